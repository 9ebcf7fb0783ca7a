"""Stages and a task that cost nothing, for tests of the machinery around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from trilaw.core.config import Config
from trilaw.core.errors import Stopped
from trilaw.core.protocols import StageContext, StageResult
from trilaw.core.rundir import new_folder, write_text
from trilaw.core.types import Estimate, Evaluation, Message, Problem, Score
from trilaw.pipeline.stages import Kind


class ToyTask:
    """Two splits of numbers; the answer is the number."""

    name = "toy"
    splits = ("train", "test")
    description = "say the number"

    def __init__(self, complaints: Sequence[str] = ()) -> None:
        self._complaints = list(complaints)

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        return [Problem(f"{split}/{i}", (Message(role="user", content=f"say {i}"),), str(i)) for i in range(limit or 3)]

    def verify(self, problem: Problem, text: str) -> Score:
        return Score(float(text == problem.answer), text)

    def validate(self) -> list[str]:
        return self._complaints


class MakeConfig(Config):
    """A stage that counts to `steps`, `amount` at a time, on top of its base's count."""

    task: str
    base: str = ""
    steps: int = Field(default=3, ge=1)
    amount: int = 1
    valid_split: str = "test"
    fail_at: int = -1


class LookConfig(Config):
    models: list[str]
    task: str
    splits: list[str] = Field(default=["test"])


def make(config: MakeConfig, context: StageContext) -> StageResult:
    """Resumes from `count` (step and value); each step appends to `work`, which shows that no step is done twice."""
    count = context.folder / "count"
    start = int((context.models[config.base] / "value").read_text()) if config.base in context.models else 0
    step, value = (int(x) for x in count.read_text().split()) if count.exists() else (0, start)
    context.events.truncate(context.name, step)
    context.progress.start(context.name, config.steps, step)
    while step < config.steps:
        if step == config.fail_at:
            raise ZeroDivisionError("a bug")
        step, value = step + 1, value + config.amount
        with (context.folder / "work").open("a") as file:
            file.write(f"{step}\n")
        context.events.append(context.name, step, value=value)
        write_text(count, f"{step} {value}")
        context.progress.update(step, loss=1.0 / step)
        if context.should_stop():
            raise Stopped("")
    model = context.folder / "model"
    with new_folder(model) as folder:
        (folder / "value").write_text(str(value))
    return StageResult(
        kind="make", model=model, seconds=1.5, flops=2.0, tokens=3, metrics={"value": value, "odd": float("nan")}
    )


def look(config: LookConfig, context: StageContext) -> StageResult:
    rows = []
    for name in config.models:
        value = float((context.models[name] / "value").read_text()) if name in context.models else 0.0
        rows += [Evaluation(name, "toy", s, "pass@1", Estimate(value / 100, 0.0, 1.0, 4, "toy")) for s in config.splits]
    return StageResult(kind="look", evaluations=tuple(rows))


class _Make(Kind):
    config = MakeConfig  # type: ignore[assignment]
    run = staticmethod(make)  # type: ignore[assignment]


class _Look(Kind):
    config = LookConfig  # type: ignore[assignment]
    run = staticmethod(look)  # type: ignore[assignment]


KINDS = {"make": _Make("", "", True, ""), "look": _Look("", "", False, "")}


def recipe_data(**changes: object) -> dict[str, object]:
    return {
        "version": 1,
        "name": "toys",
        "seed": 0,
        "stages": [
            {"name": "one", "kind": "make", "task": "toy"},
            {"name": "two", "kind": "make", "task": "toy", "base": "one", "amount": 10},
            {"name": "exam", "kind": "look", "task": "toy", "models": ["one", "two"]},
        ],
        **changes,
    }


def state(folder: Path) -> dict[str, bytes]:
    """Every file that a run's outcome consists of."""
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (".lock", "manifest.json")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in names}
