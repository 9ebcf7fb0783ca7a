"""From a run folder to the points that laws are fitted to: annealed losses, curves of reinforcement learning, counts of samples.

A pre-training stage gives one point at its annealed end. A stage of reinforcement learning gives a curve: held-out accuracy of the
models that it kept on the way, or, where fewer than `ENOUGH` of them were evaluated, the reward of its training batches (each drawn
before the update of its step, so its compute is that of the steps before). Samples come from the stores of the evaluation stages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilaw.laws.points import CurvePoint, LossPoint, Material, Measurement, ProblemCounts
from trilaw.reports.read import Run, StageRecord, lines, number, sample_store

ENOUGH = 6  # points of a curve


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against the FLOPs of one stage of reinforcement learning. `source` says what was measured, in words."""

    stage: str
    source: str
    points: tuple[CurvePoint, ...]


def material(run: Run, split: str | None = None) -> Material:
    """All of it. `split` of the evaluations: by default the first evaluated one. Models examined `for_laws` count for the joint law only."""
    drawn = curves(run)
    measured = measurements(run, split)
    results = {row.stage for row in run.shown}
    return Material(
        losses=losses(run),
        entropy=entropy(run),
        curves={curve.stage: curve.points for curve in drawn},
        sources={curve.stage: curve.source for curve in drawn},
        counts={m.model: m.counts for m in measured if m.model in results},
        measurements=measured,
    )


def losses(run: Run) -> tuple[LossPoint, ...]:
    """The annealed ends of the pre-training stages that are done."""
    found = []
    for stage in run.stages:
        loss = number((stage.metrics or {}).get("valid_loss"))
        if stage.kind == "pretrain" and stage.done and stage.parameters and stage.tokens and loss:
            group = str(stage.config.get("task") or stage.config.get("data") or "")
            found.append(
                LossPoint(float(stage.parameters), float(stage.tokens), loss, stage.flops or None, None, group)
            )
    return tuple(found)


def entropy(run: Run) -> float | None:
    """Nats a token of the validation text under the program that wrote it, if that is known and the same for all stages."""
    known = {
        number((stage.metrics or {}).get("valid_entropy"))
        for stage in run.stages
        if stage.kind == "pretrain" and stage.done
    }
    return known.pop() if len(known) == 1 else None


def curves(run: Run) -> tuple[Curve, ...]:
    """One curve a stage of reinforcement learning that has at least two points."""
    found = []
    for stage in run.stages:
        if stage.kind == "grpo" and not _coin(stage):
            held = _held_out(run, stage)
            curve = held if held is not None and len(held.points) >= ENOUGH else _training(run, stage) or held
            if curve is not None and len(curve.points) > 1:
                found.append(curve)
    return tuple(found)


def measurements(run: Run, split: str | None = None) -> tuple[Measurement, ...]:
    """Every evaluated model that descends from a known model, with its counts on one split (by default the first evaluated one)."""
    found = []
    chosen = split
    for stage in run.stages:
        if stage.kind != "eval":
            continue
        splits = [str(name) for name in stage.config.get("splits") or ()]
        chosen = chosen or (splits[0] if splits else None)
        for model in stage.config.get("models") or ():
            if chosen in splits:
                made = _measurement(run, stage, str(model), str(chosen))
                if made is not None:
                    found.append(made)
    return tuple({item.model: item for item in found}.values())  # a model that two stages examine counts once


def read_counts(path: Path) -> tuple[tuple[ProblemCounts, ...], float, float]:
    """Counts of a sample store in the order of its problems, and the mean tokens of a prompt and of a completion."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in lines(path):
        if isinstance(row.get("problem"), str) and number(row.get("value")) is not None:
            rows.setdefault(row["problem"], []).append(row)
    usage = [row["usage"] for group in rows.values() for row in group if isinstance(row.get("usage"), dict)]
    return (
        tuple(_counts(problem, group) for problem, group in rows.items()),
        _mean(usage, "prompt_tokens"),
        _mean(usage, "completion_tokens"),
    )


def _counts(problem: str, rows: Sequence[Mapping[str, Any]]) -> ProblemCounts:
    votes = Counter(str(row["extracted"]) for row in rows if row.get("extracted") is not None)
    right = {str(row["extracted"]) for row in rows if row["value"] >= 1 and row.get("extracted") is not None}
    return ProblemCounts(
        problem,
        len(rows),
        sum(row["value"] >= 1 for row in rows),
        tuple(sorted((n for answer, n in votes.items() if answer in right), reverse=True)),
        tuple(sorted((n for answer, n in votes.items() if answer not in right), reverse=True)),
    )


def _mean(usage: Sequence[Mapping[str, Any]], key: str) -> float:
    values = [value for row in usage if (value := number(row.get(key))) is not None]
    return sum(values) / len(values) if values else 0.0


def _measurement(run: Run, stage: StageRecord, model: str, split: str) -> Measurement | None:
    counts, prompt, completion = read_counts(sample_store(run.folder / "stages" / stage.name, model, split))
    if not counts:
        return None
    name, step = run.place(model)
    chain = [record for record in (_record(run, n) for n in (name, *run.ancestors(name))) if record is not None]
    base = next((record for record in chain if record.kind == "pretrain"), None)
    parameters = next((record.parameters for record in chain if record.parameters), None)
    if parameters is None:  # a model from outside: its size is that of what was trained from it
        heirs = [record for record in run.stages if model in run.ancestors(record.name) and record.parameters]
        parameters = heirs[0].parameters if heirs else None
    if not parameters:
        return None
    if any(_coin(record) for record in chain):
        return None  # its compute bought nothing by design, so it is no point of a law
    spent = sum(record.flops for record in chain if record.kind != "pretrain")
    if step is not None:
        spent += flops_at(run, name, step) - chain[0].flops
    return Measurement(
        run=run.name,
        model=model,
        task=f"{stage.config.get('task')}/{split}",
        parameters=float(parameters),
        tokens=float(base.tokens) if base else 0.0,
        pretrain_flops=base.flops if base else 0.0,
        rl_flops=spent,
        loss=number((base.metrics or {}).get("valid_loss")) if base else None,
        prompt_tokens=prompt,
        completion_tokens=completion,
        counts=counts,
    )


def flops_at(run: Run, stage: str, step: int) -> float:
    """What a stage had spent after `step` steps, by its events."""
    spent = [(row.get("step"), number(row.get("flops"))) for row in run.rows(stage)]
    return max((flops for at, flops in spent if isinstance(at, int) and at <= step and flops), default=0.0)


def _record(run: Run, name: str) -> StageRecord | None:
    return next((stage for stage in run.stages if stage.name == name), None)


def _coin(stage: StageRecord) -> bool:
    """Whether a stage of reinforcement learning was a control, paid by a coin."""
    return bool(stage.config.get("reward", "task") != "task")


def _held_out(run: Run, stage: StageRecord) -> Curve | None:
    """Held-out accuracy of the base, of the models kept on the way and of the last one, on the first split that has them all."""
    places = dict.fromkeys(
        (row.task, row.split)
        for row in run.evaluations
        if run.place(row.stage)[0] == stage.name and row.metric == "pass@1"
    )
    best: Curve | None = None
    for task, split in places:
        points = sorted(_points(run, stage, task, split), key=lambda point: point.compute)
        if best is None or len(points) > len(best.points):
            best = Curve(stage.name, f"accuracy on {task} / {split}", tuple(points))
    return best


def _points(run: Run, stage: StageRecord, task: str, split: str) -> Iterator[CurvePoint]:
    seen: set[str] = set()
    for row in run.evaluations:
        if (row.task, row.split, row.metric) != (task, split, "pass@1") or row.stage in seen:
            continue
        name, step = run.place(row.stage)
        if row.stage == stage.base:
            compute = 0.0
        elif name == stage.name:
            compute = stage.flops if step is None else flops_at(run, name, step)
        else:
            continue
        seen.add(row.stage)
        yield CurvePoint(compute, row.estimate.value, row.estimate.n)


def _training(run: Run, stage: StageRecord) -> Curve | None:
    questions = int(number(stage.config.get("problems")) or 0)
    points, spent = [], 0.0
    for row in run.rows(stage.name):
        reward, flops = number(row.get("reward")), number(row.get("flops"))
        if reward is not None and flops is not None and 0 <= reward <= 1:
            points.append(CurvePoint(spent, reward, questions))
            spent = flops
    return Curve(stage.name, "reward of the training batches", tuple(points)) if points else None
