"""Names become tasks; every kind meets the seams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trilaw.core.config import Config, TaskSpec
from trilaw.core.errors import ConfigError
from trilaw.core.protocols import TeachingTask
from trilaw.tasks.registry import KINDS, build, config_class


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "custom"])
def test_every_kind_builds_with_its_defaults(kind: str) -> None:
    task = build(kind)
    assert isinstance(task, TeachingTask)
    assert task.name == kind
    assert task.description
    assert "train" in task.splits
    assert issubclass(config_class(kind), Config)


def test_files_are_custom_tasks(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "p", "answer": "1"}\n')
    assert isinstance(build(TaskSpec(kind=str(data), options={"verifier": "number"})), TeachingTask)
    code = tmp_path / "mine.py"
    code.write_text("def problems(*a): return []\ndef verify(p, t): return 1\n")
    assert build(str(code)).name == "custom"


def test_complaints_name_the_place_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"recipe, task calc: there is no task 'countdwn' \(did you mean 'countdown'"):
        build("countdwn", "recipe, task calc")
    with pytest.raises(ConfigError, match=r"recipe: unknown key 'digit' \(did you mean 'digits'"):
        build(TaskSpec(kind="arithmetic", options={"digit": [1, 2]}), "recipe")
    with pytest.raises(ConfigError, match="task 'countdown': 'largest'"):
        build(TaskSpec(kind="countdown", options={"largest": 0}))


def test_no_torch_comes_along() -> None:
    kinds = [kind for kind in KINDS if kind != "custom"]
    code = f"import sys; from trilaw.tasks.registry import build; [build(k).splits for k in {kinds}]; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
