from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from trilaw.pipeline import manifest


def test_attempts_are_kept_apart(tmp_path: Path) -> None:
    manifest.begin(tmp_path, 5)
    manifest.begin(tmp_path, 5)  # the first one was killed
    manifest.end(tmp_path, "complete")
    found = json.loads((tmp_path / "manifest.json").read_text())
    assert (found["version"], found["seed"], found["python"]) == (1, 5, platform.python_version())
    assert [(a["outcome"], a["ended"] is None) for a in found["attempts"]] == [(None, True), ("complete", False)]


def test_the_commit_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert manifest.describe()["git"] is None
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    Path("a").write_text("1")
    for words in (["init", "-q"], ["add", "a"], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert manifest.describe()["git"] == head
    Path("a").write_text("2")
    assert manifest.describe()["git"] == head + "+"


@pytest.mark.parametrize("text", ["{", "[]", '{"attempts": 3}', '{"attempts": [3]}'])
def test_a_broken_manifest_stops_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    manifest.end(tmp_path, "failed")
    manifest.begin(tmp_path, 5)
    manifest.end(tmp_path, "complete")
    attempts = json.loads((tmp_path / "manifest.json").read_text())["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["complete"]


def test_an_end_that_cannot_be_written_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.begin(tmp_path, 5)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    manifest.end(tmp_path, "failed")
    assert json.loads((tmp_path / "manifest.json").read_text())["attempts"][-1]["outcome"] is None
