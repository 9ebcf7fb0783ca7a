"""From a run folder to the points that laws are fitted to: annealed losses, curves of reinforcement learning, counts of samples.

A pre-training stage gives one point at its annealed end. A stage of reinforcement learning gives a curve: held-out accuracy of the
models that it kept on the way, or, where fewer than `ENOUGH` of them were evaluated, the reward of its training batches (each drawn
before the update of its step, so its compute is that of the steps before). Samples come from the stores of the evaluation stages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trilaw.laws.points import CurvePoint, LossPoint, Material, Measurement, ProblemCounts
from trilaw.reports.files import lines, names, number, whole
from trilaw.reports.read import Run, StageRecord, sample_store

ENOUGH = 6  # points of a curve
MOST_STEPS = 500  # of training as points: a fit of more costs minutes and says no more


@dataclass(frozen=True, slots=True)
class Examined:
    """A model that an evaluation stage sampled: what of its store the laws need. Tokens are the mean of one sample."""

    stage: StageRecord
    model: str
    split: str
    counts: tuple[ProblemCounts, ...]
    prompt_tokens: float
    completion_tokens: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against the FLOPs of one stage of reinforcement learning. `source` says what was measured, in words."""

    stage: str
    source: str
    points: tuple[CurvePoint, ...]


def material(run: Run, split: str | None = None) -> Material:
    """All of it. `split` of the evaluations: by default the first evaluated one. Models examined `for_laws` count for the joint law only."""
    drawn = curves(run)
    seen = examined(run, split)
    results = {row.stage for row in run.shown}
    return Material(
        losses=losses(run),
        entropy=entropy(run),
        curves={curve.stage: curve.points for curve in drawn},
        sources={curve.stage: curve.source for curve in drawn},
        counts={one.model: one.counts for one in seen if one.model in results},
        measurements=_measurements(run, seen),
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
    """Every examined model of known size, with its counts on one split (by default the first evaluated one)."""
    return _measurements(run, examined(run, split))


def examined(run: Run, split: str | None = None) -> tuple[Examined, ...]:
    """Every model with samples on one split of one task, the first evaluated one that has it. What a coin trained is left out: its compute
    bought nothing by design."""
    found: dict[str, Examined] = {}  # a model that two stages examine counts once
    chosen, task = split, None
    for stage in run.stages:
        splits = names(stage.config, "splits") if stage.kind == "eval" else []
        chosen = chosen or (splits[0] if splits else None)
        if chosen not in splits or task not in (None, stage.config.get("task")):
            continue
        task = stage.config.get("task")
        for model in names(stage.config, "models"):
            if not any(_coin(record) for record in _chain(run, model)):
                counts, prompt, completion = read_counts(
                    sample_store(run.folder / "stages" / stage.name, model, str(chosen))
                )
                if counts:
                    found[model] = Examined(stage, model, str(chosen), counts, prompt, completion)
    return tuple(found.values())


def read_counts(path: Path) -> tuple[tuple[ProblemCounts, ...], float, float]:
    """Counts of a sample store in the order of its problems, and the mean tokens of a prompt and of a completion."""
    answers: dict[
        str, Counter[tuple[str | None, bool]]
    ] = {}  # of each problem: how often it was answered so, right or wrong
    prompt, completion = _Mean(), _Mean()
    for row in lines(path):
        value, said, usage = number(row.get("value")), row.get("extracted"), row.get("usage")
        if isinstance(row.get("problem"), str) and value is not None:
            answers.setdefault(row["problem"], Counter())[None if said is None else str(said), value >= 1] += 1
            if isinstance(usage, dict):
                prompt.add(number(usage.get("prompt_tokens")))
                completion.add(number(usage.get("completion_tokens")))
    return tuple(_counts(problem, found) for problem, found in answers.items()), prompt.value, completion.value


@dataclass
class _Mean:
    """Of the numbers added; 0 without any."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float:
        return self.total / self.count if self.count else 0.0


def _counts(problem: str, answers: Mapping[tuple[str | None, bool], int]) -> ProblemCounts:
    """An answer that was judged both ways counts as two: no problem has more votes for right answers than right samples."""

    def votes(right: bool) -> tuple[int, ...]:
        return tuple(
            sorted((n for (said, judged), n in answers.items() if said is not None and judged == right), reverse=True)
        )

    correct = sum(n for (_, judged), n in answers.items() if judged)
    return ProblemCounts(problem, sum(answers.values()), correct, votes(True), votes(False))


def _measurements(run: Run, seen: tuple[Examined, ...]) -> tuple[Measurement, ...]:
    made = (_measurement(run, one) for one in seen)
    return tuple(measurement for measurement in made if measurement is not None)


def _measurement(run: Run, one: Examined) -> Measurement | None:
    name, step = run.place(one.model)
    chain = _chain(run, one.model)
    base = next((record for record in chain if record.kind == "pretrain"), None)
    parameters = next((record.parameters for record in chain if record.parameters), None)
    if parameters is None:  # a model from outside: its size is that of what was trained from it
        heirs = [record for record in run.stages if one.model in run.ancestors(record.name) and record.parameters]
        parameters = heirs[0].parameters if heirs else None
    if not parameters:
        return None
    spent = sum(record.flops for record in chain if record.kind != "pretrain")
    if step is not None:
        spent += flops_at(run, name, step) - chain[0].flops
    return Measurement(
        run=run.name,
        model=one.model,
        task=f"{one.stage.config.get('task')}/{one.split}",
        parameters=float(parameters),
        tokens=float(base.tokens) if base else 0.0,
        pretrain_flops=base.flops if base else 0.0,
        rl_flops=spent,
        loss=number((base.metrics or {}).get("valid_loss")) if base else None,
        prompt_tokens=one.prompt_tokens,
        completion_tokens=one.completion_tokens,
        counts=one.counts,
    )


def _chain(run: Run, model: str) -> list[StageRecord]:
    """The stages that made a model, the last first."""
    name, _ = run.place(model)
    return [record for record in (_record(run, n) for n in (name, *run.ancestors(name))) if record is not None]


def flops_at(run: Run, stage: str, step: int) -> float:
    """What a stage had spent after `step` steps, by its events."""
    spent = [(number(row.get("step")), number(row.get("flops"))) for row in run.rows(stage)]
    return max((flops for at, flops in spent if at is not None and at <= step and flops), default=0.0)


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
    questions = whole(stage.config.get("problems"))
    points, spent = [], 0.0
    for row in run.rows(stage.name):
        reward, flops = number(row.get("reward")), number(row.get("flops"))
        if reward is not None and flops is not None and 0 <= reward <= 1:
            points.append(CurvePoint(spent, reward, questions))
            spent = flops
    return Curve(stage.name, "reward of the training batches", tuple(_pooled(points))) if points else None


def _pooled(points: list[CurvePoint]) -> list[CurvePoint]:
    """At most MOST_STEPS points: of a longer run the means of equally many neighbours."""
    width = -(-len(points) // MOST_STEPS)
    windows = [points[i : i + width] for i in range(0, len(points), width)]
    return [
        CurvePoint(
            sum(p.compute for p in window) / len(window),
            sum(p.value for p in window) / len(window),
            sum(p.questions for p in window),
        )
        for window in windows
    ]
