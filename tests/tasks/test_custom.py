"""Custom tasks: JSONL with each verifier, Python files good and bad, and complaints that name file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.config import parse
from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.types import Problem, Score
from trilaw.tasks.custom import Custom, CustomConfig


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def custom(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> Custom:
    return Custom(parse(CustomConfig, {"data": {"test": write(tmp_path / "rows.jsonl", rows)}, **options}, "t"))


def python(tmp_path: Path, code: str, name: str = "mine.py", **options: Any) -> Custom:
    (tmp_path / name).write_text(code)
    return Custom(CustomConfig(python=str(tmp_path / name), **options))


@pytest.mark.parametrize(
    ("verifier", "answer", "gold", "right", "wrong"),
    [
        ("exact", "New York", "New York", "Answer:  New  York.", "Answer: new york"),
        ("exact", 7, "7", "so\n7", "Answer: 7.0"),
        ("number", "1,200", "1200", "it is $1200.00", "it is 1201"),
        ("number", 0.5, "1/2", "Answer: 1/2", "Answer: 0.51"),
        ("choice", "b", "B", "Answer: (B) because", "Answer: C"),
    ],
)
def test_verifiers(tmp_path: Path, verifier: str, answer: Any, gold: str, right: str, wrong: str) -> None:
    task = custom(tmp_path, [{"prompt": "Which?", "answer": answer}], verifier=verifier)
    (problem,) = task.problems("test")
    assert problem.answer == gold
    assert task.verify(problem, right) == Score(1.0, gold)
    assert task.verify(problem, wrong).value == 0
    assert task.verify(problem, "<think>" + right).extracted is None
    assert task.validate() == []


def test_rows_with_messages_ids_and_solutions(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    task = custom(
        tmp_path,
        [{"messages": turns, "answer": 4, "id": "sum", "solution": "Answer: 4"}],
        instruction="End with 'Answer: '.",
    )
    (problem,) = task.problems("test")
    assert problem.id == "sum"
    assert [m["content"] for m in problem.messages] == ["Be brief.", "2+2?\nEnd with 'Answer: '."]
    assert task.examples("test")[0].completion == "Answer: 4"


def test_no_solution_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"rows\.jsonl, line 1: there is no 'solution'"):
        custom(tmp_path, [{"prompt": "p", "answer": "a"}]).examples("test")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"answer": "a"}, "'prompt'"),
        ({"prompt": "p"}, "'answer'"),
        ({"prompt": "p", "answer": True}, "'answer'"),
        ({"prompt": "p", "answer": " "}, "'answer'"),
        ({"prompt": "p", "answer": "a\nb"}, "one line"),
        ({"prompt": "p", "answer": "x" * 400}, "at most"),
        ({"messages": "hi", "answer": "a"}, "'messages'"),
        ({"messages": [], "answer": "a"}, "last of 'messages'"),
        ({"messages": [{"role": "tool", "content": "x"}], "answer": "a"}, "'messages'"),
        ({"messages": [{"role": "assistant", "content": "x"}], "answer": "a"}, "last of 'messages'"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, row: dict[str, Any], word: str) -> None:
    task = custom(tmp_path, [{"prompt": "p", "answer": "a"}, row])
    with pytest.raises(TaskError, match=rf"rows\.jsonl, line 2: .*{word}"):
        task.problems("test")


def test_a_gold_that_the_verifier_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"line 1.*'number' can read"):
        custom(tmp_path, [{"prompt": "p", "answer": "many"}], verifier="number").problems("test")


def test_equal_ids_are_a_complaint(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": "a", "id": 1}, {"prompt": "q", "answer": "a", "id": 1}]
    assert custom(tmp_path, rows).validate() == ["The split 'test' has problems with the same id."]


def test_one_file_is_divided_without_overlap(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": f"prompt {i}", "answer": str(i)} for i in range(120)])
    task = Custom(CustomConfig(data=path))
    assert task.splits == ("train", "test", "all")
    ids = {split: {p.id for p in task.problems(split)} for split in task.splits}
    assert not ids["train"] & ids["test"]
    assert len(ids["all"]) == 120
    assert task.validate() == []
    assert list(task.problems("train", seed=2, limit=5)) == list(task.problems("train", seed=2))[:5]


def test_python_with_problems(tmp_path: Path) -> None:
    task = python(
        tmp_path,
        '"""Sums of mine.\n\nMore."""\n'
        "SPLITS = ('test', 'odd')\n"
        "def problems(split, seed, limit):\n"
        "    return [{'prompt': f'{i}+{i}?', 'answer': 2 * i, 'id': i} for i in range(seed, seed + (limit or 9))]\n"
        "def verify(problem, text):\n"
        "    return problem.answer == text.split()[-1]\n",
    )
    assert (task.splits, task.description) == (("test", "odd"), "Sums of mine.")
    problems = task.problems("odd", seed=3, limit=2)
    assert [(p.id, p.answer) for p in problems] == [("3", "6"), ("4", "8")]
    assert task.verify(problems[0], "it is 6") == Score(1.0)
    assert task.verify(problems[0], "").error is not None  # an IndexError of the user's code
    assert task.validate() == []
    with pytest.raises(TaskError, match="no function solution"):
        task.examples("odd")


def test_python_with_a_file_beside_it_and_a_solution(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", [{"prompt": f"say {i}", "answer": f"w{i}"} for i in range(60)])
    task = python(
        tmp_path,
        "from trilaw.core.types import Score\n"
        "def solution(problem): return f'<<{problem.answer}>>'\n"
        "def verify(problem, text): return Score(float(text == solution(problem)), text)\n",
    )
    assert task.splits == ("train", "test", "all")
    assert task.validate() == []
    example = task.examples("train", limit=1)[0]
    assert example.completion.startswith("<<w")


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    code = "def problems(split, seed, limit): return [{'prompt': 'p', 'answer': %s}]\ndef verify(problem, text): return %s\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = python(tmp_path / "a", code % (1, 0.25)), python(tmp_path / "b", code % (2, 0.5))
    assert [t.verify(t.problems("test")[0], "").value for t in (first, second)] == [0.25, 0.5]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('no\\nparse')", "ValueError"),
        ("return None", "NoneType"),
        ("return 'yes'", "str"),
        ("return 2.0", "between 0 and 1"),
        ("return float('nan')", "between 0 and 1"),
        ("from trilaw.core.types import Score; return Score(7.0)", "between 0 and 1"),
        ("return verify(problem, text)", "RecursionError"),
    ],
)
def test_what_user_code_does_wrong_is_data(tmp_path: Path, body: str, error: str) -> None:
    task = python(
        tmp_path, f"def problems(*a): return [{{'prompt': 'p', 'answer': 1}}]\ndef verify(problem, text): {body}\n"
    )
    score = task.verify(task.problems("test")[0], "x")
    assert score.value == 0
    assert score.error is not None
    assert score.error.startswith("verifier: ")
    assert error in score.error
    assert "is refused: verifier" in task.validate()[0]


def test_a_lax_verifier_is_found_out(tmp_path: Path) -> None:
    task = python(
        tmp_path, "def problems(*a): return [{'prompt': 'p', 'answer': 1}]\ndef verify(problem, text): return True\n"
    )
    assert "corrupted" in task.validate()[0]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("x = 1\n", "no function verify"),
        ("def verify(p, t): return 1\n", "no function problems"),
    ],
)
def test_a_broken_python_file(tmp_path: Path, code: str, word: str) -> None:
    with pytest.raises(TaskError, match=rf"mine\.py.*{word}"):
        python(tmp_path, code)


def test_what_problems_gives_is_checked(tmp_path: Path) -> None:
    rest = "\ndef verify(p, t): return 1\n"
    with pytest.raises(TaskError, match="raised KeyError"):
        python(tmp_path, "def problems(*a): return {}['x']" + rest).problems("test")
    with pytest.raises(TaskError, match="item 1: a Problem or a dict"):
        python(tmp_path, "def problems(*a): return ['x']" + rest, "two.py").problems("test")


def test_missing_files_and_options(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no file"):
        Custom(CustomConfig(python=str(tmp_path / "none.py")))
    with pytest.raises(ConfigError, match="needs `data`"):
        parse(CustomConfig, {}, "t")
    with pytest.raises(ConfigError, match="verifier"):
        parse(CustomConfig, {"data": "a.jsonl", "verifier": "sympy"}, "t")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["exact", "number", "choice"]))
def test_any_text_is_scored(text: str, verifier: str) -> None:
    task = Custom(parse(CustomConfig, {"data": "unread.jsonl", "verifier": verifier}, "t"))
    problem = Problem("p", ({"role": "user", "content": "?"},), "B" if verifier == "choice" else "7")
    assert task.verify(problem, text).value in (0.0, 1.0)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nosuchmodule_x\n", "line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        (
            "SPLITS = 3\ndef verify(p, t): return 1\ndef problems(s, e, n): return []\n",
            "SPLITS must be a tuple of names",
        ),
        ("raise ValueError('two\\nlines')\n", "line 1: ValueError: two lines"),
    ],
)
def test_an_import_that_fails_is_one_line(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "t.py").write_text(code)
    with pytest.raises(TaskError, match=words) as caught:
        Custom(CustomConfig(python=str(tmp_path / "t.py")))
    assert "\n" not in str(caught.value)


def test_user_code_cannot_end_the_process(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import sys\ndef verify(p, t): sys.exit(4)\ndef problems(s, e, n): return [{'prompt': 'a', 'answer': 'b'}]\n"
        "def solution(p): raise KeyError(1)\n"
    )
    task = Custom(CustomConfig(python=str(tmp_path / "t.py")))
    assert task.verify(Problem("p", (), "b"), "x").error == "verifier: SystemExit: 4"
    with pytest.raises(TaskError, match=r"solution\(\) of problem 'train-0-1' raised KeyError: 1"):
        task.examples("train")
