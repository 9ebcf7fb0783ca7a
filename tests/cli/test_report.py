"""`trilaw report`, from the command line's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from trilaw.cli.report import report_command
from trilaw.core.errors import RequestError

app = typer.Typer()
app.command()(report_command)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    home = folder / "stages" / "exam"
    home.mkdir(parents=True)
    row = {
        "stage": "base",
        "task": "calc",
        "split": "test",
        "metric": "pass@1",
        "value": 0.2,
        "low": 0.1,
        "high": 0.3,
        "n": 50,
        "method": "exact",
    }
    (folder / "resolved.json").write_text(
        json.dumps({"name": "t", "seed": 3, "stages": [{"name": "exam", "kind": "eval", "models": ["base"]}]})
    )
    (home / "done.json").write_text(
        json.dumps({"name": "exam", "kind": "eval", "seconds": 1.0, "flops": 1.0, "tokens": 1, "evaluations": [row]})
    )
    return folder


def test_it_prints_the_result_the_table_and_the_path(run_folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(run_folder), "--picture", str(tmp_path / "p.svg")], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    assert "base solves 20 % [10, 30] of held-out problems." in result.output
    assert "[10, 30] %" in result.output
    assert str(run_folder / "report.html") in result.output
    assert (run_folder / "report.html").is_file()
    assert (tmp_path / "p.svg").is_file()


def test_json_is_the_file_and_nothing_else(run_folder: Path) -> None:
    result = CliRunner().invoke(app, [str(run_folder), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == json.loads((run_folder / "report.json").read_text())


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run folder"):
        CliRunner().invoke(app, [str(tmp_path)], catch_exceptions=False)


def test_a_stage_that_cannot_be_read_is_said_beside_the_report(run_folder: Path) -> None:
    (run_folder / "stages" / "exam" / "done.json").write_text("{")
    result = CliRunner().invoke(app, [str(run_folder)])
    assert result.exit_code == 0
    assert "exam/done.json cannot be read: mend it" in result.stderr
    assert "no result yet" in result.stdout


def test_a_picture_that_cannot_be_is_known_before_the_report(run_folder: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in \.svg or \.png"):
        CliRunner().invoke(app, [str(run_folder), "--picture", "p.gif"], catch_exceptions=False)
    assert not (run_folder / "report.html").exists()
