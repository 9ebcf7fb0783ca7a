"""CSV files become points, and what is wrong in one is named by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.points import CurvePoint, LossPoint, ProblemCounts, one_group
from trilaw.laws.tables import Reading, counts, curves, losses, read


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def parsed(path: Path) -> object:
    found = read(path)
    return {"losses": losses, "curve": curves, "counts": counts}[found.kind](found)


def test_losses(tmp_path: Path) -> None:
    found = read(table(tmp_path, "parameters,tokens,loss,accuracy,group\n1e6, 2e7 ,3.5,0.25,a\n2e6,4e7,3.0,,a\n\n"))
    assert found.kind == "losses"
    assert losses(found) == (LossPoint(1e6, 2e7, 3.5, None, 0.25, "a"), LossPoint(2e6, 4e7, 3.0, None, None, "a"))
    assert losses(found)[0].compute == 6 * 1e6 * 2e7


def test_tokens_follow_from_flops(tmp_path: Path) -> None:
    (point,) = losses(read(table(tmp_path, "parameters,flops,loss\n1e6,1.2e14,3.5\n")))
    assert (point.tokens, point.compute) == (2e7, 1.2e14)


def test_curves_are_in_order_of_compute(tmp_path: Path) -> None:
    found = curves(read(table(tmp_path, "run,compute,value,questions\nb,2,0.5,10\na,1,0.1,\nb,1,0.4,10\n")))
    assert found == {"b": (CurvePoint(1, 0.4, 10), CurvePoint(2, 0.5, 10)), "a": (CurvePoint(1, 0.1, 0),)}


def test_counts_and_votes(tmp_path: Path) -> None:
    found = counts(read(table(tmp_path, "problem,samples,correct,votes\np,4,2,2/1 1\nq,4,0,/3\nr,4,1,\n")))
    assert found == {
        "": (
            ProblemCounts("p", 4, 2, (2,), (1, 1)),
            ProblemCounts("q", 4, 0, (), (3,)),
            ProblemCounts("r", 4, 1),
        )
    }


def test_other_names_a_divisor_and_a_choice_of_lines(tmp_path: Path) -> None:
    path = table(tmp_path, "Run,step,eval_acc,noise\na,50,40,x\na,60,,y\nb,50,90,z\n")
    reading = Reading(columns={"compute": "step", "value": "eval_acc/100"}, where={"Run": "a"})
    assert curves(read(path, reading)) == {"a": (CurvePoint(50, 0.4, 0),)}  # `run` is found by its own name


def test_ignored_columns(tmp_path: Path) -> None:
    path = table(tmp_path, "compute,value,note\n1,0.5,x\n")
    with pytest.raises(RequestError, match="the column 'note' is not known"):
        read(path)
    assert curves(read(path, Reading(ignore=("note",)))) == {"": (CurvePoint(1, 0.5, 0),)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "are those of no law"),
        ("parameters,tokens,loss\n", "has no line below its header"),
        ("parameters,tokens,loss\n1,2\n", "line 2: 2 cells where the header has 3"),
        ("parameters,tokens,loss\n1,2,nan\n", "line 2: loss is 'nan', it must be a number above 0"),
        ("parameters,tokens,loss\n1,2,3\n0,2,3\n", "line 3: parameters is '0', it must be a number above 0"),
        ("parameters,loss\n1,2\n", "line 2: there are neither tokens nor flops"),
        ("compute,value\n1,1.5\n", "value is '1.5', it must be a number at least 0 and at most 1"),
        ("compute,valu\n1,0.5\n", "are those of no law"),
        ("problem,samples,correct\np,4,5\n", "correct is '5', it must be a number at least 0 and at most 4"),
        ("problem,samples,correct\np,4.5,1\n", "must be whole numbers"),
        ("problem,samples,correct,votes\np,4,1,1 2\n", "votes is '1 2', it must read like"),
        ("problem,samples,correct,votes\np,4,1,2/1\n", "more votes than samples"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(RequestError, match=sentence):
        parsed(path)


def test_a_reading_that_does_not_fit(tmp_path: Path) -> None:
    path = table(tmp_path, "compute,value\n1,0.5\n")
    with pytest.raises(RequestError, match=r"'valu' is no column of a law's table \(did you mean 'value'\?\)"):
        Reading(columns={"valu": "x"})
    with pytest.raises(RequestError, match="has no column 'acc'"):
        read(path, Reading(columns={"value": "acc"}))
    with pytest.raises(RequestError, match="has no column 'run'"):
        read(path, Reading(where={"run": "a"}))
    with pytest.raises(RequestError, match="no line that is asked for"):
        read(path, Reading(where={"value": "0.7"}))
    with pytest.raises(RequestError, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_groups_do_not_mix() -> None:
    with pytest.raises(LawError, match="come from 2 groups"):
        one_group([LossPoint(1, 1, 1, group="a"), LossPoint(1, 1, 1, group="b")])
