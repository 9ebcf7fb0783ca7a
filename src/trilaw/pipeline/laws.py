"""The laws stage: fit the three laws to what the stages before it measured, and say where the next unit of compute should go.

It reads the run folder as any reader would (`reports.measurements`) and leaves `laws.json`: the fits with their points and curves, the
allocation of a next budget, and for each law that the run does not carry the sentence that says what is missing. A law that cannot be
fitted does not fail the run.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field

from trilaw.core.config import Config
from trilaw.core.errors import TrilawError
from trilaw.core.protocols import StageContext, StageResult
from trilaw.core.rundir import write_json


class LawsConfig(Config):
    """`budget` is in FLOPs; without one it is `budget_factor` times what the largest base and the reinforcement learning cost."""

    split: str | None = None  # of the evaluations; the first evaluated one by default
    bootstraps: int = Field(default=200, ge=20, le=10_000)
    budget: float | None = Field(default=None, gt=0)
    budget_factor: float = Field(default=10.0, gt=0)
    queries: float = Field(default=1e4, ge=1)
    how: Literal["pass", "vote"] = "pass"


def run(config: LawsConfig, context: StageContext) -> StageResult:
    """Never raises for want of data: what is missing is said in laws.json."""
    from trilaw.laws.findings import find
    from trilaw.reports.commands import command
    from trilaw.reports.contract import finite
    from trilaw.reports.law_file import LAWS_FILE
    from trilaw.reports.measurements import material
    from trilaw.reports.read import read_run

    began = time.perf_counter()
    context.progress.start(context.name, 2)
    measured = read_run(context.folder.parent.parent)
    found = find(material(measured, config.split), bootstraps=config.bootstraps, seed=context.seed)
    context.progress.update(1)
    allocation: dict[str, Any] | None = None
    refused: str | None = None
    try:
        allocation = _allocate(config, found)
        for experiment in allocation["experiments"] if allocation else ():
            experiment["command"] = command(measured, experiment["set"])
    except TrilawError as error:
        refused = str(error)
    context.progress.update(2)
    write_json(
        context.folder / LAWS_FILE, finite({**found.to_json(), "allocation": allocation, "allocation_refused": refused})
    )
    summary = allocation["verdict"] if allocation else refused or "nothing to allocate"
    context.progress.finish(summary)
    fitted = sum(bool(x) for x in (found.pretrain, found.posttrain, found.testtime, found.joint))
    return StageResult(
        "laws", None, time.perf_counter() - began, metrics={"fitted": fitted, "refused": len(found.refused)}
    )


def _allocate(config: LawsConfig, found: Any) -> dict[str, Any] | None:
    from trilaw.laws.allocate import allocate
    from trilaw.laws.costs import Costs

    fit = found.joint
    if fit is None:
        return None
    serves = max(fit.points, key=lambda m: (m.rl_flops, m.parameters))
    spent = max(m.pretrain_flops for m in fit.points) + max(m.rl_flops for m in fit.points)
    budget = config.budget or config.budget_factor * spent
    plan = allocate(fit, budget=budget, unit="flops", queries=config.queries, costs=Costs.of(serves), how=config.how)
    return plan.to_json()
