"""`trilaw tasks` and the task options that several verbs share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trilaw.cli.options import task_spec
from trilaw.cli.tasks import app
from trilaw.core.errors import ConfigError, RequestError
from trilaw.tasks.registry import KINDS, build

run = CliRunner().invoke


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "2+2?", "answer": 4}\n{"prompt": "3+3?", "answer": 6}\n')
    return path


def test_list() -> None:
    assert [line.split()[0] for line in run(app, ["list"]).output.splitlines()] == list(KINDS)
    assert {row["kind"]: row["description"] for row in json.loads(run(app, ["list", "--json"]).output)} == KINDS


@pytest.mark.parametrize("kind", ["arithmetic", "countdown", "calculator"])
def test_show(kind: str) -> None:
    shown = json.loads(run(app, ["show", kind, "--split", "test", "--json"]).output)
    assert len(shown["problems"]) == 3
    assert [problem["verdict"] for problem in shown["problems"]] == [1.0] * 3
    assert {option["name"] for option in shown["options"]} >= {
        "train_steps" if kind != "countdown" else "train_numbers"
    }
    text = run(app, ["show", kind]).output
    assert "options:" in text
    assert text.count("(verdict 1)") == 3


def test_show_takes_options_and_files(rows: Path) -> None:
    text = run(app, ["show", "arithmetic", "--option", "think=false", "--option", "train_steps=[5, 5]"]).output
    assert "<think>" not in text
    shown = json.loads(run(app, ["show", str(rows), "--json"]).output)
    assert shown["splits"] == ["test"]
    assert {p["completion"] for p in shown["problems"]} == {"Answer: 4", "Answer: 6"}


def test_show_without_a_file_shows_the_options() -> None:
    result = run(app, ["show", "custom"])
    assert result.exit_code == 0
    assert "verifier" in result.output
    assert "No problems are shown" in result.output
    assert isinstance(run(app, ["show", "custom", "--option", "verifer=number"]).exception, ConfigError)


def test_check(rows: Path, tmp_path: Path) -> None:
    assert run(app, ["check", "countdown"]).exit_code == 0
    assert "sound" in run(app, ["check", str(rows), "--option", "verifier=number"]).output
    assert json.loads(run(app, ["check", "custom", "--data", str(rows), "--json"]).output)["sound"] is True
    lax = tmp_path / "lax.py"
    lax.write_text("def problems(*a): return [{'prompt': 'p', 'answer': 1}]\ndef verify(problem, text): return True\n")
    result = run(app, ["check", str(lax)])
    assert result.exit_code == 1
    assert "corrupted" in result.output


def test_task_spec(rows: Path) -> None:
    assert task_spec("arithmetic", ["digits=[1, 3]", "operations=+-", "think=true"], None).options == {
        "digits": [1, 3],
        "operations": "+-",
        "think": True,
    }
    spec = task_spec(str(rows), ["verifier=number"], None)
    assert (spec.kind, spec.options) == ("custom", {"data": {"test": str(rows)}, "verifier": "number"})
    assert len(build(spec).problems("test")) == 2
    assert task_spec("gsm8k", [], rows).options == {"data": {"test": str(rows)}}
    assert task_spec("mine.py", [], rows).options == {"python": "mine.py", "data": {"test": str(rows)}}
    assert task_spec("gsm8k", ["data.train=a/b.jsonl"], None).options == {"data": {"train": "a/b.jsonl"}}


@pytest.mark.parametrize("option", ["digits", "=3"])
def test_an_option_needs_key_and_value(option: str) -> None:
    with pytest.raises(RequestError, match="key=value"):
        task_spec("arithmetic", [option], None)
