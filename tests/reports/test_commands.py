"""An experiment becomes a command only where the recipe can say it in full."""

from __future__ import annotations

from pathlib import Path

from trilaw.reports.commands import command
from trilaw.reports.read import read_run


def test_commands_change_one_thing_of_the_recipe(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    base = next(stage for stage in run.stages if stage.name == "base")
    start = f"trilaw run {tiny_run}/recipe.toml --out {tiny_run}-more --set "
    assert command(run, {"kind": "pretrain", "parameters": base.parameters, "tokens": 2.2e6}) == start + (
        "stages.base.tokens=2200000"
    )
    again = {"kind": "pretrain", "parameters": base.parameters, "tokens": 1.1e6, "another_seed": True}
    assert command(run, again) == start + "seed=1"
    assert command(run, {"kind": "grpo", "steps_factor": 2.0}) == start + "stages.zero.steps=100"
    assert command(run, {"kind": "eval", "samples": 32, "questions": 512, "votes": False}) == start + (
        "stages.exam.samples=32 --set stages.exam.limit=512"
    )


def test_what_the_recipe_cannot_say_is_no_command(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    assert command(run, {"kind": "pretrain", "parameters": 1.0, "tokens": 1e6}) is None
    assert command(run, {"kind": "grpo", "rl_flops": 1e12}) is None
    assert command(run, {"kind": "loss", "models": ["base"]}) is None
