"""An experiment that the allocation asks for, as a command that can be typed: the run's own recipe with one thing changed.

Only what the recipe can say in full becomes a command; for the rest (a size that the recipe does not have) the sentence must do.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from trilaw.reports.files import whole
from trilaw.reports.read import Run, StageRecord

_SAME = 0.02  # relative difference at which two sizes are the same


def command(run: Run, settings: Mapping[str, Any]) -> str | None:
    """`settings` is an experiment's `set`. None where the recipe has no stage that could do it."""
    changes = _changes(run, settings)
    if not changes or not run.recipe:
        return None
    words = ["trilaw", "run", str(run.folder / "recipe.toml"), "--out", f"{run.folder}-more"]
    for key, value in changes.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def _changes(run: Run, settings: Mapping[str, Any]) -> dict[str, int]:
    kind = settings.get("kind")
    if kind == "pretrain":
        stage = _base(run, settings)
        if stage is None:
            return {}
        if settings.get("another_seed"):
            return {"seed": run.seed + 1}
        return {f"stages.{stage.name}.tokens": round(settings["tokens"])}
    if kind == "grpo":
        stage = next((s for s in run.stages if s.kind == "grpo" and s.done), None)
        steps = whole(stage.config.get("steps")) if stage is not None else 0
        if stage is None or not steps or "steps_factor" not in settings:
            return {}
        return {f"stages.{stage.name}.steps": round(settings["steps_factor"] * steps)}
    if kind == "eval":
        stages = [s for s in run.stages if s.kind == "eval" and s.done]
        changes: dict[str, int] = {}
        for stage in stages:
            changes[f"stages.{stage.name}.samples"] = int(settings["samples"])
            changes[f"stages.{stage.name}.limit"] = int(settings["questions"])
        return changes
    return {}


def _base(run: Run, settings: Mapping[str, Any]) -> StageRecord | None:
    """The pre-training stage of that size; of several the one with the most tokens."""
    size = float(settings["parameters"])
    fitting = [
        stage
        for stage in run.stages
        if stage.kind == "pretrain" and stage.parameters and abs(stage.parameters / size - 1) < _SAME
    ]
    return max(fitting, key=lambda stage: stage.tokens, default=None)
