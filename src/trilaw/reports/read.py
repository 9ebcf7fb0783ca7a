"""A run folder as frozen data: what its files say, and nothing that they do not.

Reads resolved.json, manifest.json, recipe.toml, events.jsonl, stages/<name>/done.json, the sizes in stages/<name>/model/config.json
and the sample stores stages/<name>/<model>-<split>.jsonl. A run that is still going, was killed, or has a torn line is read as far as it came:
only a missing or broken resolved.json is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, RequestError
from trilaw.core.rundir import is_run, read_resolved, split_step
from trilaw.core.seeds import derive
from trilaw.core.types import Estimate, Evaluation
from trilaw.reports.files import is_there, lines, names, number, read_object, read_text, whole

MOST_LAYERS = 10_000  # of a model: they are counted one by one


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage of the recipe. `seconds`, `flops` and `tokens` are 0 and `metrics` empty until it is done."""

    name: str
    kind: str
    config: Mapping[str, Any]
    done: bool
    base: str | None = None
    seconds: float = 0.0
    flops: float = 0.0
    tokens: int = 0
    parameters: int | None = None  # weights of the model it made
    metrics: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StoredSample:
    """The first sample (index 0) of a problem from a sample store."""

    stage: str  # whose model spoke
    task: str
    split: str
    problem: str
    prompt: str
    gold: str
    text: str
    stop: str
    extracted: str | None
    value: float
    error: str | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """All that a report needs. `events` are the rows of events.jsonl in their order."""

    folder: Path
    name: str
    seed: int
    stages: tuple[StageRecord, ...]
    evaluations: tuple[Evaluation, ...]  # all of them
    shown: tuple[Evaluation, ...]  # those that are results; the others (`for_laws`) are points of curves
    events: tuple[Mapping[str, Any], ...]
    samples: tuple[StoredSample, ...]
    resolved: Mapping[str, Any]
    manifest: Mapping[str, Any]
    recipe: str
    faults: tuple[str, ...] = ()  # a sentence for each stage whose done.json is there and cannot be read

    @property
    def complete(self) -> bool:
        return all(stage.done for stage in self.stages)

    def place(self, model: str) -> tuple[str, int | None]:
        """("zero", 20) of "zero@20" if the run has a stage of that name, else (model, None)."""
        stage, step = split_step(model)
        return (stage, step) if any(record.name == stage for record in self.stages) else (model, None)

    def rows(self, stage: str) -> list[Mapping[str, Any]]:
        return [row for row in self.events if row.get("stage") == stage]

    def series(self, stage: str, x: str, y: str) -> tuple[list[float], list[float]]:
        """The points of `y` against `x` in a stage's events; rows that lack a finite value of either are left out."""
        points = [(number(row.get(x)), number(row.get(y))) for row in self.rows(stage)]
        kept = [(a, b) for a, b in points if a is not None and b is not None]
        return [a for a, _ in kept], [b for _, b in kept]

    def ancestors(self, stage: str) -> list[str]:
        """The models that `stage` was trained from, nearest first; the last one may be a model from outside the run."""
        bases = {record.name: record.base for record in self.stages}
        chain: list[str] = []
        base = bases.get(stage)
        while base and base not in chain:
            chain.append(base)
            base = bases.get(base)
        return chain


def read_run(folder: Path) -> Run:
    """Read a run folder, finished or not.

    Raises RequestError if it is no run folder, RunError if resolved.json is broken.
    """
    if not is_run(folder):
        raise RequestError(
            f"{folder} is not a run folder (it has no resolved.json): give the folder that `trilaw run` wrote."
        )
    resolved = read_resolved(folder)
    stages: list[StageRecord] = []
    evaluations: list[Evaluation] = []
    shown: list[Evaluation] = []
    samples: list[StoredSample] = []
    faults: list[str] = []
    for config in resolved["stages"]:
        path = folder / "stages" / config["name"] / "done.json"
        done = read_object(path)
        if not done and is_there(path):
            faults.append(f"{path} cannot be read: mend it, or delete it and `trilaw run` finishes the stage anew.")
        stages.append(_stage(folder, config, done))
        rows = list(_evaluations(done))
        evaluations += rows
        shown += [] if config.get("for_laws") is True else rows
        samples += _samples(folder / "stages" / config["name"], config)
    return Run(
        folder=folder,
        name=str(resolved.get("name") or folder.resolve().name),
        seed=whole(resolved.get("seed")),
        stages=tuple(stages),
        evaluations=tuple(evaluations),
        shown=tuple(shown),
        # Not by EventLog: opening one mends a torn line, and a report must not write into a run that may still be going.
        events=tuple(lines(folder / "events.jsonl")),
        samples=tuple(samples),
        resolved=resolved,
        manifest=read_object(folder / "manifest.json"),
        recipe=read_text(folder / "recipe.toml"),
        faults=tuple(faults),
    )


def id_order(identifier: str) -> list[tuple[int, int | str]]:
    """Sort key of a problem id: runs of digits count by value, so test/2 comes before test/10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", identifier)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def sample_store(folder: Path, model: str, split: str) -> Path:
    """Where an eval stage keeps its samples (the rule of pipeline.evaluate.store_path; a test holds the two equal)."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", model).lstrip(".")[-80:]
    return folder / f"{plain if plain == model else f'{plain}-{derive(model) % 0x10000:04x}'}-{split}.jsonl"


def _stage(folder: Path, config: dict[str, Any], done: dict[str, Any]) -> StageRecord:
    metrics = done.get("metrics") if isinstance(done.get("metrics"), dict) else {}
    name, base = config["name"], config.get("base")
    return StageRecord(
        name=name,
        kind=str(config.get("kind", done.get("kind", "?"))),
        config=config,
        done=bool(done),
        base=base if isinstance(base, str) else None,
        seconds=number(done.get("seconds")) or 0.0,
        flops=number(done.get("flops")) or 0.0,
        tokens=whole(done.get("tokens")),
        parameters=_parameters(folder / "stages" / name / str(done["model"])) if done.get("model") else None,
        metrics=metrics,
    )


def _parameters(model: Path) -> int | None:
    config = read_object(model / "config.json")
    if not 0 < whole(config.get("num_hidden_layers")) <= MOST_LAYERS:
        return None
    try:
        return whole(Arch.from_config(config).parameters()) or None
    except (ModelError, TypeError, KeyError, OverflowError):
        return None


def _evaluations(done: dict[str, Any]) -> Iterator[Evaluation]:
    rows = done.get("evaluations")
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        value = number(row.get("value"))
        if value is None:
            continue
        low, high = number(row.get("low")), number(row.get("high"))
        if low is None or high is None or low > high:
            low = high = value
        yield Evaluation(
            stage=str(row.get("stage", "")),
            task=str(row.get("task", "")),
            split=str(row.get("split", "")),
            metric=str(row.get("metric", "")),
            estimate=Estimate(
                value=value,
                low=low,
                high=high,
                n=whole(row.get("n")),
                method=str(row.get("method", "")),
            ),
        )


def _samples(folder: Path, config: Mapping[str, Any]) -> Iterator[StoredSample]:
    """The first sample of each problem in the stores of an evaluation stage."""
    for model in names(config, "models"):
        for split in names(config, "splits"):
            path = sample_store(folder, model, split)
            task = str(read_object(path.with_suffix(".settings.json")).get("task", ""))
            for row in lines(path):
                if row.get("sample") == 0 and isinstance(row.get("text"), str) and isinstance(row.get("problem"), str):
                    yield _sample(row, model, task, split)


def _sample(row: Mapping[str, Any], stage: str, task: str, split: str) -> StoredSample:
    messages = row.get("messages")
    contents = (
        [str(m.get("content", "")) for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []
    )
    usage = row.get("usage")
    return StoredSample(
        stage=stage,
        task=task,
        split=split,
        problem=row["problem"],
        prompt="\n".join(contents),
        gold=str(row.get("gold", "")),
        text=row["text"],
        stop=str(row.get("stop", "")),
        extracted=None if row.get("extracted") is None else str(row["extracted"]),
        value=number(row.get("value")) or 0.0,
        error=None if row.get("error") is None else str(row["error"]),
        tokens=whole(usage.get("completion_tokens")) if isinstance(usage, dict) else 0,
    )
