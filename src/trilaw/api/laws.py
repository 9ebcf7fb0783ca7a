"""The laws in Python: fit what was measured, and say where the next unit of compute should go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from trilaw.core.errors import LawError, RequestError

if TYPE_CHECKING:
    from trilaw.laws.allocation import Allocation
    from trilaw.laws.costs import StagePrice
    from trilaw.laws.findings import Findings
    from trilaw.laws.points import Material
    from trilaw.laws.tables import Reading

Source = str | Path
T = TypeVar("T")


def fit(
    *sources: Source,
    laws: Sequence[str] | None = None,
    split: str | None = None,
    entropy: float | None = None,
    reading: Reading | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Findings:
    """Fit the laws that run folders or CSV files carry, with 90% intervals. What they do not carry is in `refused`, with the reason.

    sources: run folders, or tables whose columns docs/laws.md lists. laws: any of "pretrain", "posttrain", "testtime", "joint" (all by
    default). split: of the evaluations (by default the first one of each run). entropy: the known irreducible loss in nats a token; a
    run knows its own where the task's author is a program. reading: which columns of a CSV are meant, and which lines.
    Raises RequestError for a source that cannot be read, LawError if no law at all can be fitted.

        found = trilaw.fit("runs/tiny")
        print(found.posttrain["zero"].A, found.refused)
    """
    from trilaw.laws.findings import LAWS, find

    wanted = tuple(laws or LAWS)
    for law in wanted:
        if law not in LAWS:
            raise RequestError(f"There is no law '{law}': it is one of {', '.join(LAWS)}.")
    if entropy is not None and not (math.isfinite(entropy) and entropy >= 0):
        raise RequestError(f"The entropy is {entropy:g} nats a token; it must be 0 or a positive number.")
    material = gather(sources, split=split, reading=reading)
    if entropy is not None:
        material = replace(material, entropy=entropy)
    found = find(material, laws=wanted, bootstraps=bootstraps, seed=seed)
    if not found.any:
        reasons = " ".join(found.refused.values()) or "it holds no measurement for the laws asked for."
        raise LawError(f"No law can be fitted to {', '.join(map(str, sources))}: {reasons}")
    return found


def allocate(
    run: Source,
    budget: float,
    *,
    unit: Literal["flops", "usd"] = "flops",
    queries: float = 1e6,
    how: Literal["pass", "vote"] = "pass",
    price: StagePrice | None = None,
    model: str | None = None,
    split: str | None = None,
    accuracy: float | None = None,
    bootstraps: int = 200,
    seed: int = 0,
) -> Allocation:
    """How to split the next budget among a larger or longer-trained base, more RL, and more samples a question.

    run: a run folder that measured several bases, a run of RL and repeated samples. unit: of the budget. queries: questions that the
    model will answer in its life. how: "pass" where a verifier picks the right sample, "vote" where the plurality does. model: one of
    the run that is owned already; by default everything is bought. accuracy: also say what reaching it takes.
    Raises RequestError or LawError where the budget or the runs do not allow an answer.

        plan = trilaw.allocate("runs/tiny", 1e14, queries=1e5)
        print(plan.verdict)
    """
    from trilaw.laws.allocate import allocate as split_budget
    from trilaw.laws.allocate import check_request
    from trilaw.laws.costs import Costs

    check_request(budget, unit, queries, how, accuracy)
    found = fit(run, laws=("pretrain", "joint"), split=split, bootstraps=bootstraps, seed=seed)
    if found.joint is None:
        raise LawError(
            found.refused.get("joint", f"{run} measured no model on questions: it needs an evaluation stage.")
        )
    points = found.joint.points
    base = next((m for m in points if m.model == model), None) if model is not None else None
    if model is not None and base is None:
        raise RequestError(f"{run} measured no model '{model}': it is one of {', '.join(m.model for m in points)}.")
    serves = base or max(points, key=lambda m: (m.rl_flops, m.parameters))
    return split_budget(
        found.joint,
        budget=budget,
        unit=unit,
        queries=queries,
        costs=Costs.of(serves, price),
        how=how,
        accuracy_target=accuracy,
        base=base,
    )


def gather(sources: Sequence[Source], *, split: str | None = None, reading: Reading | None = None) -> Material:
    """What run folders and CSV files measured, put together. Raises RequestError for a source that is neither or cannot be read."""
    from trilaw.laws.points import Material

    if not sources:
        raise RequestError("Name at least one run folder or CSV file.")
    parts = [_material(Path(source), split, reading) for source in sources]
    if len(parts) == 1:
        return parts[0]
    entropies = {part.entropy for part in parts}
    names = [Path(source).name for source in sources]
    return Material(
        losses=[point for part in parts for point in part.losses],
        entropy=entropies.pop() if len(entropies) == 1 else None,
        curves=_joined(names, [part.curves for part in parts]),
        sources=_joined(names, [part.sources for part in parts]),
        counts=_joined(names, [part.counts for part in parts]),
        measurements=[m for part in parts for m in part.measurements],
    )


def _joined(names: Sequence[str], parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """One mapping: keys that two sources share get the name of their source in front."""
    keys = [key for part in parts for key in part]
    joined: dict[str, T] = {}
    for name, part in zip(names, parts):
        for key, value in part.items():
            joined[f"{name}:{key}" if keys.count(key) > 1 else key] = value
    return joined


def _material(path: Path, split: str | None, reading: Reading | None) -> Material:
    from trilaw.core.rundir import is_run
    from trilaw.laws import tables
    from trilaw.laws.points import Material
    from trilaw.reports.measurements import material
    from trilaw.reports.read import read_run

    if is_run(path):
        return material(read_run(path), split)
    if not path.is_file():
        raise RequestError(f"{path} is neither a run folder nor a CSV file.")
    table = tables.read(path, reading or tables.PLAIN)
    match table.kind:
        case "losses":
            return Material(losses=tables.losses(table))
        case "curve":
            return Material(curves=tables.curves(table))
        case _:
            return Material(counts=tables.counts(table))
