"""`trilaw models` through typer's runner, on a tiny folder and an empty cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trilaw.cli.models import app
from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.model import sources

runner = CliRunner()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRILAW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def put(folder: Path, arch: Arch) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(arch.to_config()))
    (folder / "model.safetensors").write_bytes(b"12345678")
    return folder


def test_list_says_what_is_here(tiny_arch: Arch) -> None:
    before = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    row = next(r for r in before if r["name"] == "smollm2-135m")
    assert (row["cached"], row["path"], row["bytes"]) == (False, None, 0)
    assert "trilaw models pull smollm2-135m" in runner.invoke(app, ["list"]).stdout

    folder = put(sources.model_folder("smollm2-135m"), tiny_arch)
    after = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    row = next(r for r in after if r["name"] == "smollm2-135m")
    assert (row["cached"], row["path"]) == (True, str(folder))
    assert row["bytes"] == sum(f.stat().st_size for f in folder.iterdir())
    assert str(folder) in runner.invoke(app, ["list"]).stdout


def test_show_prints_the_numbers(tmp_path: Path, tiny_arch: Arch) -> None:
    folder = put(tmp_path / "model", tiny_arch)
    shown = json.loads(runner.invoke(app, ["show", str(folder), "--json"]).stdout)
    assert shown["parameters"] == tiny_arch.parameters()
    assert shown["context"] == tiny_arch.max_positions
    assert shown["kv_bytes_per_token"] == tiny_arch.kv_bytes_per_token()
    assert shown["path"] == str(folder)
    assert shown["licence"] is None
    text = runner.invoke(app, ["show", str(folder)]).stdout
    assert f"{tiny_arch.parameters():,}" in text
    assert "not stated" in text
    assert shown["dtype"] == "float32"
    assert f"C functions {'in use' if shown['no_c_functions'] is None else 'not in use: '}" in text


def test_pull_prints_the_place_and_nothing_else_on_stdout(tiny_arch: Arch) -> None:
    folder = put(sources.model_folder("smollm2-135m"), tiny_arch)
    result = runner.invoke(app, ["pull", "smollm2-135m"])
    assert result.stdout.strip() == str(folder)
    shown = json.loads(runner.invoke(app, ["show", "smollm2-135m", "--json"]).stdout)
    assert shown["licence"] == "Apache-2.0"


def test_errors_reach_the_one_place_that_prints_them() -> None:
    assert isinstance(runner.invoke(app, ["pull", "smollm"]).exception, RequestError)
    assert isinstance(runner.invoke(app, ["show", "no-such-model"]).exception, RequestError)
