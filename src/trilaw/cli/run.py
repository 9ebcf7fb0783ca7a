"""`trilaw run`: a recipe from start to report, stopped and resumed at any moment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trilaw.cli.terminal import say
from trilaw.reports import words

if TYPE_CHECKING:
    from trilaw.core.types import Evaluation
    from trilaw.pipeline.recipe import Recipe
    from trilaw.pipeline.run import RunSummary


def run_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe's name, or the path of a recipe file.")
    ] = "tiny",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run folder.  [default: runs/<name of the recipe>]")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the recipe, as in stages.zero.steps=5. Repeatable."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The run's seed (short for --set seed=N).")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run a recipe, or go on where it stopped.

    The same command goes on with a run that was stopped or killed at any moment, and ends with the same result.
    """
    # in here: these bring in torch, which `trilaw --help` should not wait for
    from trilaw.pipeline.progress import watch
    from trilaw.pipeline.recipe import load_recipe
    from trilaw.pipeline.run import run
    from trilaw.pipeline.stopping import stop_on_signals

    overrides = [*(set_ or ()), *([f"seed={seed}"] if seed is not None else [])]
    with stop_on_signals() as should_stop:
        checked = load_recipe(recipe, overrides)
        with watch([stage.name for stage in checked.stages]) as progress:
            summary = run(checked, out, progress=progress, should_stop=should_stop)
    say(json.dumps(as_json(summary), indent=2) if json_ else closing(summary, checked))


def closing(summary: RunSummary, recipe: Recipe) -> str:
    """What the command ends with: the table of results, the time, the report, and what to try next."""
    lines = [] if summary.fresh else [f"{summary.folder} was complete already; its results:", ""]
    points = {stage.name for stage in recipe.stages if getattr(stage.config, "for_laws", False)}
    shown = [row for name, result in summary.results.items() if name not in points for row in result.evaluations]
    table = results_table(shown)
    lines += [*table, ""] if table else []
    lines += [f"{'time':<8}{words.duration(summary.seconds)}", f"{'report':<8}{summary.report}"]
    if summary.model is not None:
        lines.append(
            f"{'try':<8}trilaw solve {shlex.quote(str(summary.folder))} {shlex.quote(example_question(recipe))}"
        )
    return "\n".join(lines)


def example_question(recipe: Recipe) -> str:
    """The last words of a problem of the recipe's last task, of the first split that it is examined on; else a placeholder."""
    configs = [stage.config for stage in recipe.stages if getattr(stage.config, "task", None) in recipe.tasks]
    if not configs:
        return "your question"
    task = recipe.tasks[str(getattr(configs[-1], "task", ""))]
    split = (getattr(configs[-1], "splits", None) or task.splits)[0]
    problems = task.problems(split, limit=1)
    question = problems[0].messages[-1]["content"] if problems else ""
    return question if question and len(question) <= 200 else "your question"


def results_table(rows: Sequence[Evaluation]) -> list[str]:
    """Lines of an aligned table, one for each model, task and split: pass@1, then maj@k and pass@k of the largest k there is."""
    found = {row.metric for row in rows}
    metrics = ["pass@1"] if "pass@1" in found else []
    for name in ("maj@", "pass@"):
        sizes = [int(metric.removeprefix(name)) for metric in found if metric.startswith(name)]
        metrics += [f"{name}{k}" for k in sorted(sizes)[-1:] if k > 1]
    if not metrics:
        return []
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    problems: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key, e = (words.line(row.stage, 80), words.line(row.task, 80), words.line(row.split, 80)), row.estimate
        cells.setdefault(key, {})[row.metric] = f"{words.value(row.metric, e.value)} {words.interval(row.metric, e)}"
        problems[key] = max(problems.get(key, 0), e.n)
    table = [["model", "task", "split", "problems", *metrics]]
    table += [
        [*key, str(problems[key]), *(found.get(metric, "-") for metric in metrics)] for key, found in cells.items()
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def as_json(summary: RunSummary) -> dict[str, object]:
    """The results as plain data."""
    return {
        "run": str(summary.folder),
        "report": str(summary.report),
        "model": str(summary.model) if summary.model else None,
        "seconds": summary.seconds,
        "evaluations": [row.row() for row in summary.evaluations],
    }
