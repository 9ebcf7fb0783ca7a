"""The laws stage: it leaves what the folder carries, says what it lacks, and loses nothing when the disk is full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from trilaw.core.config import parse
from trilaw.core.errors import RunError
from trilaw.core.events import EventLog
from trilaw.core.protocols import Silent, StageContext
from trilaw.core.rundir import write_json
from trilaw.laws.findings import NO_BASE
from trilaw.pipeline.laws import LawsConfig, run
from trilaw.reports.law_file import sound
from trilaw.reports.read import sample_store

ARCH = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """RL on a base from outside the run, both evaluated."""
    stages = [
        {"name": "zero", "kind": "grpo", "base": "owner/name", "task": "calc", "steps": 24, "problems": 64},
        {"name": "exam", "kind": "eval", "models": ["owner/name", "zero"], "task": "calc", "splits": ["test"]},
        {"name": "laws", "kind": "laws"},
    ]
    write_json(tmp_path / "resolved.json", {"version": 1, "name": "r", "seed": 0, "stages": stages})
    write_json(
        tmp_path / "stages" / "zero" / "done.json", {"name": "zero", "kind": "grpo", "model": "model", "flops": 24e9}
    )
    write_json(tmp_path / "stages" / "zero" / "model" / "config.json", ARCH)
    events = EventLog(tmp_path / "events.jsonl")
    for step in range(1, 25):
        events.append("zero", step, flops=1e9 * step, reward=0.1 + 0.6 / (1 + (6 / step) ** 1.5))
    draw = np.random.default_rng(0)
    home = tmp_path / "stages" / "exam"
    home.mkdir()
    for model, share in (("owner/name", 0.2), ("zero", 0.6)):
        rows = [
            {"problem": f"q{i}", "sample": j, "value": float(draw.random() < share), "usage": {"completion_tokens": 9}}
            for i in range(16)
            for j in range(4)
        ]
        sample_store(home, model, "test").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(home / "done.json", {"name": "exam", "kind": "eval", "model": None, "evaluations": evaluations()})
    return tmp_path


def evaluations() -> list[dict[str, object]]:
    place = {"task": "calc", "split": "test", "metric": "pass@1", "n": 16, "method": "-"}
    return [
        {"stage": name, "value": v, "low": v, "high": v, **place} for name, v in (("owner/name", 0.2), ("zero", 0.6))
    ]


def stage(folder: Path) -> StageContext:
    home = folder / "stages" / "laws"
    return StageContext("laws", home, 0, {}, EventLog(folder / "events.jsonl"), Silent(), lambda: False, {})


def test_a_base_from_outside_stops_no_run(folder: Path) -> None:
    result = run(LawsConfig(bootstraps=20), stage(folder))
    left = json.loads((folder / "stages" / "laws" / "laws.json").read_text())
    assert sound(left)
    assert left["refused"] == {"joint": NO_BASE}
    assert set(left["laws"]["testtime"]) == {"owner/name", "zero"}
    assert set(left["laws"]["posttrain"]) == {"zero"}
    assert result.metrics == {"fitted": 2, "refused": 1}


def test_a_full_disk_keeps_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(LawsConfig(bootstraps=20), stage(folder))
    path = folder / "stages" / "laws" / "laws.json"
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(
            RunError, match=r"laws\.json cannot be written, the disk is full .* give the same command again"
        ):
            run(LawsConfig(bootstraps=20), stage(folder))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["laws.json"]
    run(LawsConfig(bootstraps=20), stage(folder))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "fields", [{"budget": float("inf")}, {"queries": 1e400}, {"budget": 0}, {"bootstraps": 5}, {"how": "luck"}]
)
def test_what_cannot_be_asked_is_refused_before_the_run(fields: dict[str, object]) -> None:
    with pytest.raises(Exception, match=f"stage 'laws': '{next(iter(fields))}'"):
        parse(LawsConfig, fields, "stage 'laws'")
