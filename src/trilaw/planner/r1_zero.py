"""DeepSeek-R1-Zero's training, planned beside published: an order of magnitude check with one unknown, the mean length of a response.

arXiv 2501.12948v2 (methods; section B.4.4): 10,400 updates of 32 questions x 16 samples, 8,192 responses a rollout, on 64 x 8 = 512 H800 in about
198 hours; the longest response is 32,768 tokens before update 8,200 and 65,536 after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trilaw.planner.anchors import anchor
from trilaw.planner.rl import RlPlan, plan_rl
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip

STEPS, EARLY = 10_400, 8_200
# The tail of a rollout is linear in the longest response, so the mean over the run stands for both limits.
LONGEST = round((EARLY * 32_768 + (STEPS - EARLY) * 65_536) / STEPS)


@dataclass(frozen=True, slots=True)
class R1Zero:
    """R1-Zero planned beside R1-Zero published. `response_that_fits` is the mean response at which both agree, or None in the range."""

    plan: RlPlan
    published_hours: float
    error: float  # predicted over published, less 1
    response_that_fits: int | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "plan"} | {
            "plan": self.plan.to_json()
        }


def r1_zero(
    numbers: Numbers, chip: Chip, count: int = 512, *, steps: int = STEPS, assume: Mapping[str, float] = {}
) -> R1Zero:
    """DeepSeek-R1-Zero's training (arXiv 2501.12948v2): 10,400 updates of 32 questions x 16 samples on 512 H800, 198 hours.

    The mean response is not published: it is the assumption 'rl_r1_zero_response'. Some responses of every rollout are taken to reach the limit.
    """
    sheet = Sheet(overrides=assume)
    prompt, mean = round(sheet.assume("rl_r1_zero_prompt")), round(sheet.assume("rl_r1_zero_response"))

    def at(response: int) -> RlPlan:
        return plan_rl(
            numbers,
            chip,
            count,
            problems=32,
            samples=16,
            prompt=prompt,
            response=response,
            steps=steps,
            rollout_steps=16,
            longest=LONGEST,
            weight_bits=8,
            assume=assume,
        )

    plan = at(mean)
    plan.sheet.used.update(sheet.used)
    hours = anchor("r1_zero_hours").value
    low, high = 500, LONGEST
    fits: int | None = None
    if at(low).hours <= hours <= at(high).hours:
        while high - low > 16:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle).hours <= hours else (low, middle)
        fits = (low + high) // 2
    why = (
        f"The mean response, which is not published, drives the difference: at {mean:,} tokens the plan takes {plan.hours:.0f} h, "
        f"published are about {hours:.0f} h; "
        + (
            "no mean below the limit makes them equal."
            if fits is None
            else f"a mean of {fits:,} tokens makes them equal."
        )
    )
    return R1Zero(plan, hours, plan.hours / hours - 1, fits, why)
