"""Training in Python: whole recipes, single stages, tasks and reports.

A single stage is a recipe of one stage, so it is stopped, resumed, refused and reported like any other run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilaw.core.config import TaskSpec
from trilaw.core.protocols import Progress, Task

if TYPE_CHECKING:
    from trilaw.pipeline.recipe import Recipe
    from trilaw.pipeline.run import RunSummary

TaskLike = str | Mapping[str, Any] | Task


def run(
    recipe: str | Path | Recipe = "tiny",
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RunSummary:
    """Run a recipe (a bundled name or a file) in the folder `out`, by default runs/<name>; the same call goes on where it stopped.

    overrides: `key=value` as on the command line. Raises ConfigError for what does not hold, RunError for a folder in use or of
    another recipe, Stopped when `should_stop` said so.

        summary = trilaw.run("tiny", overrides=["stages.zero.steps=10"])
        for row in summary.evaluations:
            print(row.stage, row.split, row.metric, row.estimate.value)
    """
    from trilaw.pipeline.run import run as run_recipe  # training needs torch

    return run_recipe(recipe, out, overrides=overrides, progress=progress, should_stop=should_stop)


def pretrain(
    *,
    out: str | Path,
    task: TaskLike | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **config: Any,
) -> RunSummary:
    """Make a new model from a task's worked text, or from a text file `data`. `config`: the other fields of PretrainConfig.

    made = trilaw.pretrain(task="calculator", out="runs/base")
    print(made.model)
    """
    text = {} if data is None else {"data": str(data)}
    return _one("pretrain", task, out, seed, progress, {**text, **config})


def sft(
    *, base: str | Path, task: TaskLike, out: str | Path, seed: int = 0, progress: Progress | None = None, **config: Any
) -> RunSummary:
    """Fine-tune a model on a task's worked solutions. `config`: the fields of SftConfig.

    trilaw.sft(base="smollm2-135m", task="arithmetic", out="runs/taught")
    """
    return _one("sft", task, out, seed, progress, {"base": str(base), **config})


def grpo(
    *, base: str | Path, task: TaskLike, out: str | Path, seed: int = 0, progress: Progress | None = None, **config: Any
) -> RunSummary:
    """Reinforcement learning from checked answers, starting at `base`. `config`: the fields of GrpoConfig.

    trained = trilaw.grpo(base="runs/base", task="calculator", out="runs/zero", steps=20)
    print(trilaw.sample(trained.model, "^ 16 +9 +5 ?")[0].text)
    """
    return _one("grpo", task, out, seed, progress, {"base": str(base), **config})


def _one(
    kind: str, task: TaskLike | None, out: str | Path, seed: int, progress: Progress | None, config: Mapping[str, Any]
) -> RunSummary:
    from trilaw.pipeline.recipe import parse_recipe
    from trilaw.pipeline.run import run as run_recipe

    given: dict[str, Task] = {}
    stage: dict[str, Any] = {"name": kind, "kind": kind, **config}
    if isinstance(task, str):
        stage["task"] = task
    elif isinstance(task, Mapping):
        stage["task"] = dict(task)
    elif task is not None:
        given, stage["task"] = {task.name: task}, task.name
    name = re.sub(r"[^a-z0-9-]+", "-", Path(out).name.lower()).strip("-")[:64] or kind
    data = {
        "version": 1,
        "name": name,
        "seed": seed,
        "stages": [stage],
    }
    return run_recipe(parse_recipe(data, where=f"trilaw.{kind}", tasks=given), out, progress=progress)


def task(kind: str, **options: Any) -> Task:
    """A task by its kind (or the path of a .jsonl or .py file), with options.

    Raises ConfigError for an unknown kind or option, TaskError when its data is missing or broken.

        calculator = trilaw.task("calculator")
        problem = calculator.problems("test", limit=1)[0]
        print(problem.messages[-1]["content"], calculator.verify(problem, problem.answer).value)
    """
    from trilaw.tasks.registry import build

    return build(TaskSpec(kind=kind, options=options))


def report(run_folder: str | Path) -> Path:
    """Draw report.html and report.json of a run, finished or not, and say where the page lies.

    Raises RequestError for a folder that is no run.

        print(trilaw.report("runs/tiny"))
    """
    from trilaw.reports.html import build  # matplotlib: only when pictures are drawn

    build(Path(run_folder))
    return Path(run_folder) / "report.html"
