from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import trilaw.pipeline.recipe as recipe_module
import trilaw.pipeline.run as run_module
from pipeline.conftest import models, reports
from pipeline.toys import KINDS
from trilaw.cli.main import main
from trilaw.cli.run import example_question, results_table
from trilaw.core.types import Estimate, Evaluation
from trilaw.pipeline.recipe import load_recipe

__all__ = ["models", "reports"]

RECIPE = """
version = 1
name = "toys"
[[stages]]
name = "one"
kind = "make"
task = "calculator"
[[stages]]
name = "exam"
kind = "look"
task = "calculator"
models = ["one"]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Path], models: None) -> Path:
    """A recipe of toy stages in a folder of its own, which is also the working folder."""
    monkeypatch.setitem(recipe_module.load_recipe.__kwdefaults__, "kinds", KINDS)
    monkeypatch.setitem(run_module.run.__kwdefaults__, "kinds", KINDS)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toys.toml"
    path.write_text(RECIPE)
    return path


def ends(*words: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def test_run_prints_the_table_and_what_to_try(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not ends("run", recipe)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == ["model", "task", "split", "problems", "pass@1"]
    assert lines[1].split() == ["one", "toy", "test", "4", "3", "%", "[0,", "100]", "%"]
    assert lines[2:5] == ["", "time    1.5 s", "report  runs/toys/report.html"]
    words = shlex.split(lines[5])
    assert words[:4] == ["try", "trilaw", "solve", "runs/toys"]
    assert len(words) == 5
    assert "[1/2] one" in err
    assert not ends("run", recipe)
    assert capsys.readouterr().out == "runs/toys was complete already; its results:\n\n" + out


def test_json_options_and_refusals(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not ends("run", recipe, "--out", "here", "--set", "stages.one.amount=5", "--seed", 3, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["run"] == "here"
    assert result["evaluations"][0]["value"] == 0.15
    assert json.loads(Path("here/resolved.json").read_text())["seed"] == 3
    assert ends("run", recipe, "--out", "here", "--set", "stages.one.amount=5") == 1
    assert capsys.readouterr().err == "error: here was made with seed = 3, now 0: give another --out, or delete it.\n"
    assert ends("run", recipe, "--set", "stages.one.amont=5") == 2
    assert "unknown key 'amont' (did you mean 'amount'?)" in capsys.readouterr().err


def test_results_table_aligns_and_orders_metrics() -> None:
    def row(stage: str, metric: str, value: float) -> Evaluation:
        return Evaluation(stage, "calc", "test", metric, Estimate(value, value - 0.1, value + 0.1, 64, "m"))

    lines = results_table(
        [
            row("base", "pass@16", 0.5),
            row("base", "pass@1", 0.2),
            row("base", "mean_tokens", 20.0),
            row("longer", "maj@16", 0.3),
        ]
    )
    assert lines[0].split() == ["model", "task", "split", "problems", "pass@1", "maj@16", "pass@16"]
    assert lines[1].index("20 %") == lines[0].index("pass@1")
    assert lines[2].index("30 %") == lines[0].index("maj@16")
    assert lines[2].split()[4] == "-"
    assert results_table([]) == []


def test_the_question_to_try_is_of_the_first_split_of_the_exam() -> None:
    recipe = load_recipe("tiny")
    exam = next(stage.config for stage in recipe.stages if stage.name == "exam")
    assert exam.splits[0] == "test"
    assert example_question(recipe) in {p.id for p in recipe.tasks["calc"].problems("test", limit=8)}
