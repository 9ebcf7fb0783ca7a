"""CSV files become points, and what is wrong in one is named by line and column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trilaw.core.errors import LawError, RequestError
from trilaw.laws import tables
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


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n\n" + text,
        lambda text: "".join(",".join(f'"{cell}"' for cell in line.split(",")) + "\n" for line in text.splitlines()),
    ],
)
def test_the_dialects_of_tables(tmp_path: Path, change: Callable[[str], str]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(change("Parameters,tokens,loss\n1e6,2e7,3.5\n").encode())
    assert parsed(path) == (LossPoint(1e6, 2e7, 3.5),)


def test_what_is_no_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes("paramètres,tokens,loss\n1,2,3\n".encode(encoding))
        with pytest.raises(RequestError, match="is no text in UTF-8"):
            read(path)


def test_a_column_that_is_there_twice_is_refused_where_it_matters(tmp_path: Path) -> None:
    path = table(tmp_path, "compute,value,Value,x,x\n1,0.5,0.6,1,2\n")
    with pytest.raises(RequestError, match="2 columns called 'value': rename or delete all but one"):
        read(path, Reading(ignore=("x",)))
    with pytest.raises(RequestError, match="2 columns called 'x'"):
        read(path, Reading(columns={"compute": "compute", "value": "x"}))
    path = table(tmp_path, "step,acc,x,x\n1,0.5,1,2\n")
    assert curves(read(path, Reading(columns={"compute": "step", "value": "acc"}))) == {"": (CurvePoint(1, 0.5),)}


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path) -> None:
    path = table(tmp_path, 'run,compute,value\n\n"two\nlines",1,0.5\nb,2,x\n')
    with pytest.raises(RequestError, match="line 5: value is 'x'"):
        parsed(path)


@pytest.mark.parametrize("number", ["1e400", "1e61", "1e-61", "5e-324", "inf", "-inf", "nan", "9" * 400])
def test_a_number_beyond_all_measure_is_refused(tmp_path: Path, number: str) -> None:
    with pytest.raises(RequestError, match="line 2: tokens is"):
        parsed(table(tmp_path, f"parameters,tokens,loss\n1e6,{number},3\n"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("compute,value,questions\n1,0.5,1e300\n", "questions is '1e300'"),
        ("problem,samples,correct\np,1e300,4\n", "samples is '1e300'"),
        ("parameters,tokens,loss,flops\n1e6,1e7,3,1e3\n", "flops is 1000, but 6 times parameters times tokens is 6e"),
        ("x" * 5000 + ",b\n1,2\n", r"the columns x{57}\.\.\., b are those of no law"),
        (",".join(f"c{i}" for i in range(500)) + "\n", "c11 and 488 more are those of no law"),
    ],
)
def test_absurd_files_end_in_a_short_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        parsed(table(tmp_path, text))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("by", [".", "1.2.3", "0", "1e400", "-1", "nan", "x"])
def test_a_divisor_that_is_no_number_belongs_to_the_name(tmp_path: Path, by: str) -> None:
    with pytest.raises(RequestError, match="has no column 'value/"):
        read(table(tmp_path, "compute,value\n1,0.5\n"), Reading(columns={"value": f"value/{by}"}))


def test_large_files_are_refused_and_may_be_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, "run,compute,value\n" + "".join(f"r{i % 20},{i},0.5\n" for i in range(200)))
    monkeypatch.setattr(tables, "MOST_LINES", 100)
    with pytest.raises(RequestError, match="more than 100 lines to read: choose some with --where"):
        read(path)
    assert len(read(path, Reading(where={"run": "r5"})).lines) == 10
    monkeypatch.setattr(tables, "MOST_BYTES", 1 << 10)
    with pytest.raises(RequestError, match="is larger than"):
        read(path)


def test_ignored_columns_are_found_in_any_case(tmp_path: Path) -> None:
    path = table(tmp_path, "Compute,Value,Run\n1,0.5,a\n2,0.6,b\n")
    assert set(curves(read(path, Reading(ignore=("Run",))))) == {""}
