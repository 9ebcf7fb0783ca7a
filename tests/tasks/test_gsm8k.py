"""GSM8K on rows written for these tests in its layout."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from trilaw.core.config import TaskSpec
from trilaw.core.errors import ConfigError, SourceError, TaskError
from trilaw.core.types import Problem
from trilaw.tasks.gsm8k import GSM8K, GSM8KConfig
from trilaw.tasks.registry import build

ROWS = [
    {
        "question": "Ada bakes 3 trays of 8 rolls and eats 2. How many are left?",
        "answer": "She bakes 3*8=<<3*8=24>>24.\n24-2=<<24-2=22>>22 stay.\n#### 22",
    },
    {"question": "A rope of 1,200 cm is cut in 4. How long is a part?", "answer": "1200/4=<<1200/4=300>>300\n#### 300"},
    {
        "question": "A car costs $9,000 and gains a third. What is it worth?",
        "answer": "It is worth 9000+3000=<<9000+3000=12000>>12,000.\n#### 12,000",
    },
    {"question": "It is 4 degrees and falls by 9. What is it then?", "answer": "4-9=<<4-9=-5>>-5\n#### -5"},
    {"question": "Half of 7 litres is how much?", "answer": "7/2=<<7/2=3.5>>3.5\n#### 3.5"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def by_question(problems: Any) -> dict[str, Problem]:
    return {problem.messages[0]["content"].split("\n")[0]: problem for problem in problems}


def test_problems_and_worked_examples(file: Path) -> None:
    task = GSM8K(GSM8KConfig(data={"test": str(file)}))
    assert task.splits == ("test",)
    problems = task.problems("test")
    answers = {question: problem.answer for question, problem in by_question(problems).items()}
    assert [answers[row["question"]] for row in ROWS] == ["22", "300", "12000", "-5", "7/2"]
    assert problems[0].messages[0]["content"].endswith("end with 'Answer: ' and the number.")
    for problem, example in zip(problems, task.examples("test"), strict=True):
        assert example.messages == problem.messages
        assert "<<" not in example.completion
        assert "####" not in example.completion
        assert example.completion.splitlines()[-1] == f"Answer: {problem.answer}"
        assert task.verify(problem, example.completion).value == 1
    worked = {e.messages[0]["content"].split("\n")[0]: e.completion for e in task.examples("test")}
    assert worked[ROWS[0]["question"]] == "She bakes 3*8=24.\n24-2=22 stay.\nAnswer: 22"


def test_order_is_by_seed_and_limits_append(file: Path) -> None:
    task = GSM8K(GSM8KConfig(data={"test": str(file)}))
    full = list(task.problems("test", seed=1))
    assert list(task.problems("test", seed=1, limit=2)) == full[:2]
    assert any(list(task.problems("test", seed=seed)) != full for seed in range(2, 6))
    assert {p.id for p in full} == {f"rows-{i}" for i in range(1, 6)}


@pytest.mark.parametrize(
    ("text", "value", "extracted"),
    [
        ("3*8=24, less 2.\nAnswer: 22", 1, "22"),
        ("#### 22", 1, "22"),
        ("so \\boxed{22}.", 1, "22"),
        ("There are 22 rolls.", 1, "22"),
        ("Answer: $22.00", 1, "22"),
        ("<think>24? no 22</think>Answer: 24", 0, "24"),
        ("<think>22", 0, None),
        ("22 of 24", 0, "24"),
        ("none", 0, None),
        ("9" * 10**6, 0, None),
    ],
)
def test_verify(file: Path, text: str, value: float, extracted: str | None) -> None:
    task = GSM8K(GSM8KConfig(data={"test": str(file)}))
    problem = by_question(task.problems("test"))[ROWS[0]["question"]]
    score = task.verify(problem, text)
    assert (score.value, score.extracted) == (value, extracted)


def test_validate(file: Path) -> None:
    assert GSM8K(GSM8KConfig(data={"test": str(file)})).validate() == []
    both = GSM8K(GSM8KConfig(data={"train": str(file), "test": str(file)}))
    assert both.validate() == ["5 problems of the split 'test' also stand in 'train'."]


def test_a_row_without_a_final_number_is_named(file: Path) -> None:
    with file.open("a") as stream:
        stream.write('{"question": "q", "answer": "forgotten"}\n')
    with pytest.raises(TaskError, match=r"rows\.jsonl, line 6: 'answer' must end"):
        GSM8K(GSM8KConfig(data={"test": str(file)})).problems("test")


def test_a_bad_table_is_refused() -> None:
    with pytest.raises(ConfigError, match="splits"):
        build(TaskSpec(kind="gsm8k", options={"data": {}}))


def test_without_pyarrow_the_sentence_says_how_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # how Python marks a module that cannot be imported
    with pytest.raises(SourceError, match="install pyarrow"):
        GSM8K().problems("test")


def pretend_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    package, parquet = ModuleType("pyarrow"), ModuleType("pyarrow.parquet")
    package.__spec__ = ModuleSpec("pyarrow", None)
    table = SimpleNamespace(to_pylist=lambda: ROWS)
    monkeypatch.setattr(parquet, "read_table", lambda path, columns: table, raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", package)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)


def test_the_hub_is_asked_for_parquet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def download(repo: str, name: str, *, repo_type: str) -> str:
        asked.append((repo, name, repo_type))
        return "a.parquet"

    pretend_pyarrow(monkeypatch)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    task = GSM8K()
    assert len(task.problems("test")) == 5
    task.problems("test")  # read once
    assert asked == [("openai/gsm8k", "main/test-00000-of-00001.parquet", "dataset")]


def test_a_download_that_fails_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **more: object) -> str:
        raise ConnectionError("down")

    pretend_pyarrow(monkeypatch)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(SourceError, match="ConnectionError"):
        GSM8K().problems("train")
