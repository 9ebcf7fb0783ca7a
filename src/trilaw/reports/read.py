"""A run folder as frozen data: what its files say, and nothing that they do not.

Reads resolved.json, manifest.json, recipe.toml, events.jsonl, stages/<name>/done.json, the sizes in stages/<name>/model/config.json
and the sample stores stages/<name>/<model>-<split>.jsonl. A run that is still going, was killed, or has a torn line is read as far as it came:
only a missing or broken resolved.json is an error.
"""

from __future__ import annotations

import json
import math
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

MAX_LINE = 4_000_000  # characters; a longer line of a sample store is passed over


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
    for config in resolved["stages"]:
        done = _object(folder / "stages" / config["name"] / "done.json")
        stages.append(_stage(folder, config, done))
        rows = list(_evaluations(done))
        evaluations += rows
        shown += [] if config.get("for_laws") is True else rows
        samples += _samples(folder / "stages" / config["name"], config)
    return Run(
        folder=folder,
        name=str(resolved.get("name") or folder.resolve().name),
        seed=int(number(resolved.get("seed")) or 0),
        stages=tuple(stages),
        evaluations=tuple(evaluations),
        shown=tuple(shown),
        # Not by EventLog: opening one mends a torn line, and a report must not write into a run that may still be going.
        events=tuple(lines(folder / "events.jsonl")),
        samples=tuple(samples),
        resolved=resolved,
        manifest=_object(folder / "manifest.json"),
        recipe=_text(folder / "recipe.toml"),
    )


def number(value: Any) -> float | None:
    """`value` as a finite float, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def id_order(identifier: str) -> list[tuple[int, int | str]]:
    """Sort key of a problem id: runs of digits count by value, so test/2 comes before test/10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", identifier)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def sample_store(folder: Path, model: str, split: str) -> Path:
    """Where an eval stage keeps its samples (the rule of pipeline.evaluate.store_path; a test holds the two equal)."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", model).lstrip(".")[-80:]
    return folder / f"{plain if plain == model else f'{plain}-{derive(model) % 0x10000:04x}'}-{split}.jsonl"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if it is missing or broken, for a report shows what there is."""
    try:
        value = json.loads(_text(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


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
        tokens=int(number(done.get("tokens")) or 0),
        parameters=_parameters(folder / "stages" / name / str(done["model"])) if done.get("model") else None,
        metrics=metrics,
    )


def _parameters(model: Path) -> int | None:
    config = _object(model / "config.json")
    try:
        return Arch.from_config(config).parameters() if config else None
    except (ModelError, TypeError, KeyError):
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
        yield Evaluation(
            stage=str(row.get("stage", "")),
            task=str(row.get("task", "")),
            split=str(row.get("split", "")),
            metric=str(row.get("metric", "")),
            estimate=Estimate(
                value=value,
                low=value if low is None else low,
                high=value if high is None else high,
                n=int(number(row.get("n")) or 0),
                method=str(row.get("method", "")),
            ),
        )


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl file, one a line; torn, foreign and overlong lines are passed over."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line) if len(line) <= MAX_LINE else None
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row
    except OSError:
        return


def _samples(folder: Path, config: Mapping[str, Any]) -> Iterator[StoredSample]:
    """The first sample of each problem in the stores of an evaluation stage."""
    models, splits = config.get("models"), config.get("splits")
    for model in models if isinstance(models, list) else []:
        for split in splits if isinstance(splits, list) else []:
            path = sample_store(folder, str(model), str(split))
            task = str(_object(path.with_suffix(".settings.json")).get("task", ""))
            for row in lines(path):
                if row.get("sample") == 0 and isinstance(row.get("text"), str) and isinstance(row.get("problem"), str):
                    yield _sample(row, str(model), task, str(split))


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
        tokens=int(number(usage.get("completion_tokens")) or 0) if isinstance(usage, dict) else 0,
    )
