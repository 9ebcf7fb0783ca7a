"""Run a recipe: stages in order, resumed where they stopped, reported at the end.

A stage is complete when its done.json stands; that file is written last. A run that was killed at any moment goes on with the same
command: complete stages are kept, the one at work goes on from its newest checkpoint, and the outcome is that of an uninterrupted
run, bit for bit on one CPU. One process at a time holds a run folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trilaw.core.errors import RequestError, RunError, Stopped, nearest
from trilaw.core.events import EventLog
from trilaw.core.protocols import Progress, Silent, StageContext, StageResult
from trilaw.core.rundir import (
    broken,
    complaining,
    is_run,
    lock,
    read_resolved,
    stage_model,
    stages_done,
    sweep,
    write_json,
    write_text,
)
from trilaw.core.types import Estimate, Evaluation
from trilaw.pipeline import graph, manifest
from trilaw.pipeline.progress import Tracked
from trilaw.pipeline.recipe import Recipe, StageSpec, load_recipe
from trilaw.pipeline.stages import KINDS, Kind
from trilaw.reports.files import number

T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """What a complete run left behind. `results` has every stage in the recipe's order; `fresh` is False if all had been done before."""

    folder: Path
    name: str
    results: Mapping[str, StageResult]
    report: Path
    fresh: bool

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(row for result in self.results.values() for row in result.evaluations)

    @property
    def seconds(self) -> float:
        """Work done, over all attempts that led here."""
        return sum(result.seconds for result in self.results.values())

    @property
    def model(self) -> Path | None:
        """The model folder of the last stage that made one."""
        made = [result.model for result in self.results.values() if result.model]
        return made[-1] if made else None


def run(
    recipe: str | Path | Recipe = "tiny",
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    kinds: Mapping[str, Kind] = KINDS,
) -> RunSummary:
    """Run a recipe (a bundled name, a file, or a checked Recipe) in the folder `out` (by default runs/<name>), or go on with it.

    Raises RequestError or ConfigError before anything is written if something about the recipe does not hold; RunError for a
    folder that is in use, foreign, or made by another recipe; Stopped when `should_stop` said so and the state is saved.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides, kinds=kinds)
    elif overrides:
        raise RequestError("Overrides go with a recipe's name or file: give them to load_recipe.")
    folder = Path(out) if out is not None else Path("runs") / recipe.name
    _refuse_foreign(folder)
    _find_models(recipe, kinds)
    stop = should_stop or (lambda: False)
    with lock(folder):
        sweep(folder)
        _open(folder, recipe)
        missing = [stage for stage in recipe.stages if stage.name not in stages_done(folder)]
        if missing:
            manifest.begin(folder, recipe.seed)
            outcome = "failed"
            try:
                _run_stages(folder, recipe, missing, progress or Silent(), stop, kinds)
                outcome = "complete"
            except Stopped:
                outcome = "stopped"
                raise
            finally:
                manifest.end(folder, outcome)
        report = folder / "report.html"
        if missing or not report.is_file():
            from trilaw.reports.html import build  # matplotlib: only when pictures are drawn

            build(folder)
    results = {name: _result(folder / "stages" / name, done) for name, done in stages_done(folder).items()}
    return RunSummary(folder, recipe.name, results, report, fresh=bool(missing))


def _refuse_foreign(folder: Path) -> None:
    """A folder with things of someone else's is not swept or written to."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: give a folder with --out.")
    if folder.is_dir() and not is_run(folder):
        # what a run killed in its first moment leaves behind
        ours = {".lock", "recipe.toml"}
        others = [path.name for path in folder.iterdir() if path.name not in ours and not path.name.startswith(".tmp-")]
        if others:
            raise RunError(f"{folder} is no run folder and holds other things ('{min(others)}'): give another --out.")


def _find_models(recipe: Recipe, kinds: Mapping[str, Kind]) -> None:
    """Models from outside must be at hand before the first stage starts: a wrong name should not cost the stages before it."""
    edges = graph.outside([(s.name, s.config, kinds[s.kind].makes_model) for s in recipe.stages])
    if edges:
        from trilaw.model.sources import resolve

        for stage, key, name in edges:
            try:
                resolve(name)
            except RequestError as error:
                near = nearest(name, [s.name for s in recipe.stages])
                raise RequestError(
                    f"{recipe.where}: stage '{stage}': {key} = '{name}' is no stage{near} and no model: {error}"
                ) from None


def _open(folder: Path, recipe: Recipe) -> None:
    """Make the run folder this recipe's, or make sure that it is."""
    resolved = recipe.resolved()
    if not is_run(folder):
        write_text(folder / "recipe.toml", recipe.text)
        write_json(folder / "resolved.json", resolved)
        return
    before = read_resolved(folder)
    changed = first_difference(before, resolved)
    if changed:
        key, old, new = changed
        raise RunError(f"{folder} was made with {key} = {old}, now {new}: give another --out, or delete it.")
    if before != resolved:  # the description or the cost: no result depends on them
        write_text(folder / "recipe.toml", recipe.text)
        write_json(folder / "resolved.json", resolved)


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first key that differs between two resolved recipes, with both values; None if they make the same run."""
    old, new = _flat(before), _flat(now)
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in old or key not in new or old[key] != new[key]:
            return key, _show(old, key), _show(new, key)
    return None


def _flat(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """`stages.zero.steps` -> value, as --set writes the keys. Description and cost make no difference to a run."""
    flat: dict[str, Any] = {key: resolved.get(key) for key in ("version", "name", "seed")}
    flat["stages"] = [stage["name"] for stage in resolved["stages"]]
    tasks = resolved.get("tasks")
    for name, options in tasks.items() if isinstance(tasks, Mapping) else ():
        given = options if isinstance(options, Mapping) else {"": options}
        flat |= {f"tasks.{name}.{key}": value for key, value in given.items()}
    for stage in resolved["stages"]:
        flat |= {f"stages.{stage['name']}.{key}": value for key, value in stage.items()}
    return flat


def _show(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "nothing"
    text = repr(flat[key])
    return text if len(text) <= 60 else text[:57] + "..."


def _run_stages(
    folder: Path,
    recipe: Recipe,
    missing: Sequence[StageSpec],
    progress: Progress,
    should_stop: Callable[[], bool],
    kinds: Mapping[str, Kind],
) -> None:
    """Run the stages that are not done. done.json of a stage is written after all else of it."""
    events = EventLog(folder / "events.jsonl")
    for stage in missing:
        if should_stop():
            raise Stopped(f"Stopped before stage '{stage.name}'; the same command goes on.")
        home = folder / "stages" / stage.name
        with complaining(home):
            home.mkdir(parents=True, exist_ok=True)
        tracked = Tracked(progress)
        done = stages_done(folder)
        context = StageContext(
            name=stage.name,
            folder=home,
            seed=recipe.seed,
            models={
                name: stage_model(folder, name)
                for _, name in graph.references(stage.config)
                if graph.stage_of(name, done) in done
            },
            events=events,
            progress=tracked,
            should_stop=should_stop,
            tasks=recipe.tasks,
        )
        try:
            result = kinds[stage.kind].run(stage.config, context)
        except Stopped:
            place = f"stage '{stage.name}', step {tracked.done} of {tracked.total}"
            raise Stopped(f"Stopped at {place}; the same command goes on.") from None
        events.flush()
        write_json(home / "done.json", _done(stage.name, home, result))


def _done(name: str, home: Path, result: StageResult) -> dict[str, Any]:
    """done.json of a stage. The model's path is relative to the stage's folder, so that a run folder can be moved."""
    model = result.model
    return {
        "version": 1,
        "name": name,
        "kind": result.kind,
        "model": str(model.resolve().relative_to(home.resolve())) if model else None,
        "seconds": result.seconds,
        "flops": result.flops,
        "tokens": result.tokens,
        "metrics": _finite(dict(result.metrics)),
        "evaluations": [_finite(row.row()) for row in result.evaluations],
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a number that is none becomes null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _result(home: Path, done: Mapping[str, Any]) -> StageResult:
    """A stage's result as done.json tells it. Raises RunError if it does not."""
    try:
        rows = tuple(
            Evaluation(
                stage=_as(str, row["stage"]),
                task=_as(str, row["task"]),
                split=_as(str, row["split"]),
                metric=_as(str, row["metric"]),
                estimate=Estimate(
                    value=math.nan if row["value"] is None else _number(row["value"]),
                    low=math.nan if row["low"] is None else _number(row["low"]),
                    high=math.nan if row["high"] is None else _number(row["high"]),
                    n=_as(int, row["n"]),
                    method=_as(str, row["method"]),
                ),
            )
            for row in _as(list, done["evaluations"])
        )
        return StageResult(
            kind=_as(str, done["kind"]),
            model=home / done["model"] if done["model"] else None,
            seconds=_number(done["seconds"]),
            flops=_number(done["flops"]),
            tokens=_as(int, done["tokens"]),
            metrics=_as(dict, done["metrics"]),
            evaluations=rows,
        )
    except (KeyError, TypeError):
        raise broken(home / "done.json") from None


def _number(value: Any) -> float:
    """Raises TypeError for what is no number of a size that can be."""
    found = number(value)
    if found is None:
        raise TypeError
    return found


def _as(kind: type[T], value: Any) -> T:
    """`value`, which must be of this type. Raises TypeError."""
    if type(value) is not kind:
        raise TypeError
    return value
