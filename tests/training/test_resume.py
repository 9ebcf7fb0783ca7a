"""A stage that was stopped (or killed) and went on equals one that ran through, bit for bit, in weights and in events."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from trilaw.core.events import EventLog
from trilaw.training import grpo, pretrain, sft

from .conftest import timeless


def configs(base: Path) -> dict[str, tuple[Any, Any]]:
    small = {"hidden": 32, "layers": 1, "heads": 2, "row_tokens": 32, "rows_per_step": 2, "tokens": 640}
    return {
        "pretrain": (
            pretrain.run,
            pretrain.PretrainConfig(
                task="copy",
                **small,
                save_every=3,
                log_every=1,
                valid_documents=20,
                evaluate_every=4,
                micro_tokens=40,
                recompute=True,
            ),
        ),
        "sft": (
            sft.run,
            sft.SftConfig(base="base", task="copy", examples=60, batch_examples=8, save_every=3, evaluate_every=3),
        ),
        "grpo": (
            grpo.run,
            grpo.GrpoConfig(
                base="base",
                task="copy",
                steps=7,
                problems=4,
                samples=4,
                max_tokens=4,
                save_every=3,
                keep_every=2,
                kl=0.01,
                optimizer={"learning_rate": 1e-2},
            ),
        ),
        "grpo-filtered": (
            grpo.run,
            grpo.GrpoConfig(
                base="base",
                task="finite",
                steps=7,
                problems=5,
                samples=4,
                max_tokens=4,
                save_every=3,
                filter={"pool": 12, "samples": 4, "low": 0.0, "high": 0.9},
                optimizer={"learning_rate": 1e-2},
            ),
        ),
    }


@pytest.mark.parametrize("kind", ["pretrain", "sft", "grpo", "grpo-filtered"])
def test_stopped_and_continued_equals_uninterrupted(
    kind: str, base: Path, tmp_path: Path, stage: Callable[..., Any]
) -> None:
    run, config = configs(base)[kind]
    models = {"base": base}
    whole = stage(run, config, "whole", models=models)

    stage(run, config, "parts", models=models, stop_after=2)
    parts = stage(run, config, "parts", models=models)

    # A kill between two checkpoints: events run past the newest checkpoint, whose folder is all that is left.
    stage(run, config, "killed", models=models, stop_after=5)
    shutil.rmtree(tmp_path / "killed/stages/x/checkpoints/step-5")
    killed = stage(run, config, "killed", models=models)

    rows = {name: timeless(EventLog(tmp_path / name / "events.jsonl").rows()) for name in ("whole", "parts", "killed")}
    assert rows["parts"] == rows["whole"]
    assert rows["killed"] == rows["whole"]
    weights = load_file(whole.model / "model.safetensors")
    for other in (parts, killed):
        continued = load_file(other.model / "model.safetensors")
        assert all(weights[name].equal(continued[name]) for name in weights)
        assert (other.flops, other.tokens, other.metrics) == (whole.flops, whole.tokens, whole.metrics)
    kept = sorted((tmp_path / "whole/stages/x/kept").glob("*"))
    assert [path.name for path in kept] == (["step-2", "step-4", "step-6"] if kind == "grpo" else [])
    for path in kept:
        again = tmp_path / "killed/stages/x/kept" / path.name / "model.safetensors"
        assert (path / "model.safetensors").read_bytes() == again.read_bytes()
    for file in (tmp_path / "whole/stages/x").glob("*.jsonl"):
        assert file.read_bytes() == (tmp_path / "killed/stages/x" / file.name).read_bytes()
    assert len(list((tmp_path / "whole/stages/x/checkpoints").iterdir())) == 2
