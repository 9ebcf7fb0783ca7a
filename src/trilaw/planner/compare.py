"""Several chips, one goal: DeepSeek-R1's pipeline from nothing, or a billion answers. Hours, money, energy, what binds, who may be sold it.

"r1-pipeline": V3's pre-training (14.8T tokens of 4,096-token sequences, arXiv 2412.19437) and R1-Zero's reinforcement learning (10,400 updates,
arXiv 2501.12948v2), one after the other. Left out, because their sizes are not published whole: context extension, the supervised stages
(4.31B tokens, under a thousandth), R1's first stage of reinforcement learning, whose steps are not stated.

"answers": so many questions answered by R1 with 8-bit weights, each with as few samples as reach the accuracy asked for on a curve of one's own.

A chip on which it cannot be done has no hours but a sentence why, and the least time that its peak alone would need.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.anchors import anchor
from trilaw.planner.answers import Curve, accuracy_of, best_k, cost_per_solved
from trilaw.planner.datacentre import THINKING
from trilaw.planner.export import classify
from trilaw.planner.hardware import Chip
from trilaw.planner.hardware import chip as find_chip
from trilaw.planner.models import model
from trilaw.planner.r1_zero import r1_zero
from trilaw.planner.roofline import PRODUCTS
from trilaw.planner.serve import plan_serve
from trilaw.planner.serve_cost import read_load
from trilaw.planner.sheet import Sheet
from trilaw.planner.train import plan_train

TARGETS = ("r1-pipeline", "answers")
CHIPS = ("h800", "h100", "h20", "4090", "cpu")
RL_COUNT = 512  # chips of R1-Zero (arXiv 2501.12948v2, section B.4.4)
V3_BATCH = 15_360 * 4096  # tokens (arXiv 2412.19437, section 4.2)
# R1 on AIME 2024: one sample, majority of 64 (arXiv 2501.12948v2, section E.4).
R1_VOTES: Mapping[int, float] = MappingProxyType({1: 0.798, 64: 0.867})


@dataclass(frozen=True, slots=True)
class CompareRow:
    """One chip. Hours, dollars and energy are None where it cannot be done (`why` says it), dollars and energy also where no source gives them.

    parts: hours of each stage. binds: what each waits for most. floor_hours: FLOPs over the 16-bit peak of all chips, which nothing on them can beat. licence: under the rules of the
    United States on the day `on` (trilaw.planner.export), or why it cannot be said.
    """

    chip: str
    count: int
    target: str
    possible: bool
    why: str
    parts: Mapping[str, float]
    hours: float | None
    gpu_hours: float | None
    usd: float | None
    energy_kwh: float | None
    energy_of: str  # "chip and server", or "chip alone" where no source gives the server's power
    binds: str
    floor_hours: float
    k: int | None  # samples of an answer
    accuracy: float | None
    eccn: str | None
    licence: str
    on: str

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"parts": dict(self.parts)}


def compare(
    chips: Sequence[str] = CHIPS,
    *,
    target: str = "r1-pipeline",
    count: int | None = None,
    rl_count: int = RL_COUNT,
    answers: float = 1e9,
    curve: Curve = R1_VOTES,
    ks: Iterable[int] | None = None,
    accuracy: float | None = None,
    prompt: int = 200,
    response: int = THINKING,
    on: date | None = None,
    assume: Mapping[str, float] = {},
) -> list[CompareRow]:
    """A row for each chip, in the order given.

    count: chips; 2,048 for the pipeline (V3's cluster; `rl_count` of them for reinforcement learning), 512 for answers, unless given. curve, ks: accuracy
    with k samples, R1's on AIME 2024 unless given; accuracy: what is asked for (otherwise the k that solves a problem for the least).
    on: the day of the export rules, today unless given.
    Raises RequestError for an unknown target or chip, an empty list, a number that is not positive, an unknown assumption, or an
    accuracy that no k reaches.
    """
    if target not in TARGETS:
        raise RequestError(f"'{target}' is no target to compare for{nearest(target, TARGETS)}.")
    if not chips:
        raise RequestError("There is no chip to compare: name at least one.")
    total = count if count is not None else 2048 if target == "r1-pipeline" else 512
    for name, number in (("count", total), ("rl_count", rl_count), ("answers", answers)):
        if not number > 0:
            raise RequestError(f"{name} is {number:g}, it must be positive.")
    if rl_count > total and rl_count != RL_COUNT:
        raise RequestError(f"rl_count is {rl_count}, it is a part of the {total} chips.")
    Sheet(overrides=assume)  # an unknown name is a wrong request, not a property of a chip
    parts = [find_chip(name) for name in chips]
    day = on or date.today()
    if target == "r1-pipeline":
        return [_pipeline(part, total, min(rl_count, total), day, assume) for part in parts]
    wanted = sorted(curve) if ks is None and isinstance(curve, Mapping) else ks
    if wanted is None:
        raise RequestError("A curve that is a function needs the k's to try (ks).")
    read_load(
        model("deepseek-r1"), total, prompt, response
    )  # lengths out of range are the caller's mistake whatever the chip
    return [
        _answers(part, total, answers, curve, list(wanted), accuracy, prompt, response, day, assume) for part in parts
    ]


def _pipeline(part: Chip, count: int, rl_count: int, day: date, assume: Mapping[str, float]) -> CompareRow:
    numbers = model("deepseek-v3")
    tokens = anchor("v3_tokens").value
    floor = tokens * numbers.flops_per_token(4096, training=True) / (count * _peak(part)) / 3600
    try:
        train = plan_train(
            numbers,
            part,
            count,
            tokens=tokens,
            context=4096,
            batch_tokens=V3_BATCH,
            precision="fp8-v3" if "fp8" in part.flops else "bf16-mixed",
            assume=assume,
        )
    except RequestError as error:
        _reraise(error)
        return _impossible(part, count, "r1-pipeline", f"Pre-training: {error}", floor, day)
    try:
        zero = r1_zero(numbers, part, rl_count, assume=assume).plan
    except RequestError as error:
        _reraise(error)
        return _impossible(part, count, "r1-pipeline", f"Reinforcement learning: {error}", floor, day)
    hours = {"pre-training": train.hours, "reinforcement learning": zero.hours}
    usd = None if train.usd is None or zero.usd is None else train.usd + zero.usd
    energy = None if train.energy_kwh is None or zero.energy_kwh is None else train.energy_kwh + zero.energy_kwh
    return CompareRow(
        chip=part.name,
        count=count,
        target="r1-pipeline",
        possible=True,
        why="",
        parts=hours,
        hours=sum(hours.values()),
        gpu_hours=train.gpu_hours + zero.gpu_hours,
        usd=usd,
        energy_kwh=energy,
        binds=f"pre-training: {train.binds}; reinforcement learning: {zero.binds}",
        floor_hours=floor,
        k=None,
        accuracy=None,
        **_about(part, day),
    )


def _answers(
    part: Chip,
    count: int,
    answers: float,
    curve: Curve,
    ks: list[int],
    accuracy: float | None,
    prompt: int,
    response: int,
    day: date,
    assume: Mapping[str, float],
) -> CompareRow:
    numbers = model("deepseek-r1")
    try:
        plan = plan_serve(numbers, part, count, prompt=prompt, response=response, weight_bits=8, assume=assume)
    except RequestError as error:
        _reraise(error)
        k = _least_samples(curve, ks, accuracy)
        least = answers * k * response * numbers.decode_flops(prompt + response / 2) / (count * _peak(part)) / 3600
        return _impossible(part, count, "answers", str(error), least, day)
    best = best_k(cost_per_solved(plan, curve, ks), accuracy=accuracy)
    seconds = answers * best.chip_seconds
    floor = answers * best.output_tokens * numbers.decode_flops(plan.context) / (count * _peak(part)) / 3600
    watts = part.all_in_watts or part.watts
    return CompareRow(
        chip=part.name,
        count=count,
        target="answers",
        possible=True,
        why="",
        parts={"answers": seconds / count / 3600},
        hours=seconds / count / 3600,
        gpu_hours=seconds / 3600,
        usd=None if best.usd is None else answers * best.usd,
        energy_kwh=None if watts is None else seconds / 3600 * watts.value / 1000,
        binds=plan.binds,
        floor_hours=floor,
        k=best.k,
        accuracy=best.accuracy,
        **_about(part, day),
    )


def _least_samples(curve: Curve, ks: list[int], accuracy: float | None) -> int:
    """Samples of an answer where nothing but their number costs: the fewest that reach the accuracy, or the fewest a solved one.

    Raises RequestError where no k reaches the accuracy, as `best_k` does.
    """
    solved = {k: accuracy_of(curve, k) for k in ks}
    if accuracy is None:
        return min(ks, key=lambda k: k / solved[k] if solved[k] else math.inf)
    reaching = [k for k in ks if solved[k] >= accuracy]
    if not reaching:
        raise RequestError(f"No k tried reaches an accuracy of {accuracy:g}; the best is {max(solved.values()):.4g}.")
    return min(reaching)


def _reraise(error: RequestError) -> None:
    """An assumption out of range is the caller's mistake whatever the chip."""
    if str(error).startswith("The assumption"):
        raise error


def _impossible(part: Chip, count: int, target: str, why: str, floor: float, day: date) -> CompareRow:
    return CompareRow(
        chip=part.name,
        count=count,
        target=target,
        possible=False,
        why=why,
        parts={},
        hours=None,
        gpu_hours=None,
        usd=None,
        energy_kwh=None,
        binds="",
        floor_hours=floor,
        k=None,
        accuracy=None,
        **_about(part, day),
    )


def _about(part: Chip, day: date) -> dict[str, Any]:
    """The fields that hold for the chip whatever is done on it: what its power includes, who may be sold it."""
    of = {"energy_of": "chip and server" if part.all_in_watts is not None else "chip alone"}
    try:
        found = classify(part, day)
    except RequestError as error:
        return of | {"eccn": None, "licence": f"It cannot be said: {error}", "on": day.isoformat()}
    return of | {"eccn": found.eccn, "licence": found.licence, "on": day.isoformat()}


def _peak(part: Chip) -> float:
    """Dense 16-bit FLOP/s, 32-bit where there are no 16."""
    return part.rate(next((kind for kind in PRODUCTS[16] if kind in part.flops), "bf16"))
