"""Every example runs at toy size, in order: later ones take up what the first one makes."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from trilaw.tasks.registry import build

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SAYS = {
    "01_run_recipe": ("zero   beyond  pass@1", "report  runs/toy/report.html"),
    "02_sample": ("base: 4,592 weights", "p = "),
    "03_own_task": ("complaints about the verifier: none", "pass@4", "mean_tokens"),
    "04_evaluate": ("maj@16", "samples in runs/toy/example/zero.jsonl"),
    "05_train_grpo": ("step  reward", "runs/toy-grpo/stages/grpo/model"),
    "06_pretrain_from_text": ("validation loss", "# Run"),
    "07_cold_start": ("runs/toy-cold/practised", "pass@1"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("stem", SAYS)
def test_example_runs(
    stem: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = EXAMPLES / f"{stem}.py"
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", [str(path), "--toy"])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    for words in SAYS[stem]:
        assert words in said, said


def test_all_are_run_and_all_are_short() -> None:
    files = sorted(EXAMPLES.glob("*.py"))
    assert [file.stem for file in files] == list(SAYS)
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith('"""'), file.name
        assert f"python examples/{file.name}" in text, f"{file.name} says how to run it"
        assert len(text.splitlines()) < 60, file.name


def test_the_own_task_gives_a_part_of_the_score_for_a_part_of_the_answer() -> None:
    task = build(str(EXAMPLES / "03_own_task.py"))
    problem = task.problems("test", limit=1)[0]
    assert problem.answer == "0 0 0 0 1 1"
    values = [
        task.verify(problem, f"Answer: {said}").value for said in ("0 0 0 0 1 1", "0 0 0 1 0 1", "0 0 0 0 1", "none")
    ]
    assert values == [1.0, pytest.approx(1 / 3), 0.0, 0.0]
