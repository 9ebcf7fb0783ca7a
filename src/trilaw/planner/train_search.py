"""The layouts of a training run that fit and how fast each is, best first; and, where none fits, how many chips would do.

Every layout of `layout.candidates` gets the cheapest recomputation that makes it fit, since recomputing only costs time; then its step is
timed. What fits is what `memory.training_memory` says against the chip's memory times the assumption `train_memory_use`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError
from trilaw.planner.layout import (
    Layout,
    Recompute,
    Stage,
    candidates,
    check,
    distinct,
    divisors,
    kinds,
    on_chips,
    split,
)
from trilaw.planner.memory import GIB, Memory, Precision, states, training_memory
from trilaw.planner.memory import precision as policy_named
from trilaw.planner.sheet import Sheet
from trilaw.planner.train_kernels import Speeds, share
from trilaw.planner.train_time import Step, step_time

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip

RECOMPUTE: tuple[Recompute, ...] = ("none", "pointwise", "full")  # with flash attention "selective" is "none"
MOST = 1 << 18  # the largest number of chips tried when a model does not fit


@dataclass(frozen=True, slots=True)
class Plan:
    """A layout with the memory of its fullest chip and the time of its step."""

    layout: Layout
    memory: Memory
    step: Step


class Run:
    """One model on one kind of chip: what every layout of a search shares. Layouts are measured, not checked."""

    def __init__(
        self, numbers: Numbers, chip: Chip, policy: Precision, sheet: Sheet, *, context: int, mtp: bool = False
    ) -> None:
        self.numbers, self.chip, self.policy, self.context, self.mtp = numbers, chip, policy, context, mtp
        self.speeds = Speeds.of(chip, policy, sheet)
        self.capacity = chip.memory_bytes.value * share(sheet, "train_memory_use")
        self._stages: dict[tuple[int, bool], tuple[Stage, ...]] = {}

    def stages(self, layout: Layout) -> tuple[Stage, ...]:
        """What the chips of each stage hold."""
        key = (layout.pp, layout.directions > 1)
        if key not in self._stages:
            self._stages[key] = on_chips(split(self.numbers, layout.pp, mtp=self.mtp), layout)
        return self._stages[key]

    def memory(self, layout: Layout, sequences: int) -> Memory:
        """The fullest chip in a step of `sequences` sequences."""
        return training_memory(
            self.numbers,
            self.stages(layout),
            layout,
            self.policy,
            context=self.context,
            micro_batches=layout.micro_batches(sequences),
            dropout=self.speeds.dropout,
        )

    def plan(self, layout: Layout, sequences: int, memory: Memory | None = None, speeds: Speeds | None = None) -> Plan:
        """The layout with its memory and its step of `sequences` sequences, at other `speeds` if given."""
        memory = memory or self.memory(layout, sequences)
        step = step_time(
            self.numbers,
            self.stages(layout),
            layout,
            self.policy,
            speeds or self.speeds,
            memory=memory,
            context=self.context,
            micro_batches=layout.micro_batches(sequences),
        )
        return Plan(layout, memory, step)

    def recomputed(self, layout: Layout, sequences: int) -> tuple[Plan, ...]:
        """The layout with each choice of what is computed again. With flash attention "selective" is "none"."""
        choices = RECOMPUTE if layout.flash else (RECOMPUTE[0], "selective", *RECOMPUTE[1:])
        return tuple(self.plan(replace(layout, recompute=choice), sequences) for choice in choices)

    def least(self, layout: Layout, sequences: int) -> tuple[Layout, Memory]:
        """The layout with the least recomputation that fits, or with all of it where none does."""
        held = max(sum(states(stage, layout, self.policy)) for stage in distinct(self.stages(layout)).values())
        for recompute in RECOMPUTE if held <= self.capacity else RECOMPUTE[-1:]:
            tried = layout if layout.recompute == recompute else replace(layout, recompute=recompute)
            memory = self.memory(tried, sequences)
            if memory.total <= self.capacity:
                break
        return tried, memory

    def all(self, count: int, sequences: int) -> Iterator[tuple[Layout, Memory]]:
        """Every candidate with its least recomputation, fitting or not; what needs a link that the chip lacks is left out."""
        links = self.speeds.links
        network = bool(links.scale_out) or count <= links.domain
        if not network:
            return
        for layout in candidates(self.numbers, count, links.domain, context=self.context, sequences=sequences):
            yield self.least(layout, sequences)


def search(
    numbers: Numbers,
    chip: Chip,
    count: int,
    *,
    batch_tokens: float,
    context: int = 4096,
    precision: str = "bf16-mixed",
    mtp: bool = False,
    assume: Mapping[str, float] | None = None,
    keep: int = 10,
) -> list[Plan]:
    """The `keep` fastest layouts that fit, best first.

    Raises RequestError where no layout divides the model, the chips and the batch, or where none fits (with the smallest count that would).
    """
    run = Run(numbers, chip, policy_named(precision), Sheet(overrides=assume or {}), context=context, mtp=mtp)
    return best(run, count, whole_sequences(batch_tokens, context), keep)


def whole_sequences(batch_tokens: float, context: int) -> int:
    """Sequences of a batch. Raises RequestError where it is not a whole number of them."""
    sequences = round(batch_tokens / context)
    if sequences < 1 or abs(sequences * context - batch_tokens) > 0.5:
        raise RequestError(
            f"A batch of {batch_tokens:,.0f} tokens is no whole number of sequences of {context}:"
            f" take {max(1, sequences) * context:,}."
        )
    return sequences


def best(run: Run, count: int, sequences: int, keep: int) -> list[Plan]:
    """`search` on a run that is set up."""
    least, fitting, seen = float("inf"), [], False
    for layout, memory in run.all(count, sequences):
        seen = True
        least = min(least, memory.total)
        if memory.total <= run.capacity:
            fitting.append(run.plan(layout, sequences, memory))
    if not fitting:
        raise RequestError(_why_not(run, count, sequences, least if seen else None))
    return heapq.nsmallest(keep, fitting, key=lambda plan: (plan.step.seconds, plan.memory.total))


def _why_not(run: Run, count: int, sequences: int, least: float | None) -> str:
    name = run.numbers.name or "the model"
    links = run.speeds.links
    if count > links.domain and not links.scale_out:
        return (
            f"{count} {run.chip.name} must talk over a network, and no source gives 'scale_out_bandwidth' of it:"
            " copy its table to a file of your own and add it."
        )
    if least is None:
        return (
            f"No layout spreads {name} and a batch of {sequences} sequences evenly over {count} chips:"
            f" take a batch that is a multiple of {count} sequences, or another count."
        )
    return (
        f"{name} in {run.policy.name} does not fit on {count} {run.chip.name} at {run.context} tokens: the least that any layout needs"
        f" is {least / GIB:.1f} GiB of a chip's {run.capacity / GIB:.1f} GiB; {needed(run, count)}."
    )


def needed(run: Run, count: int) -> str:
    """In words: the smallest count above `count` that fits, of those that are tried."""
    found = smallest_count(run, more_than=count)
    return f"{found} chips would do" if found else f"no count up to {MOST:,} does either"


def smallest_count(run: Run, *, more_than: int = 0) -> int | None:
    """The smallest count on which some layout fits, of 1, 2, 3 and 4 and 6, 8, 12, 16, ... chips; None above `MOST`.

    Each pipeline gets as many micro-batches of one sequence as it has stages.
    """
    counts = sorted({1, *(1 << k for k in range(1, 19)), *(3 << k for k in range(17))})
    states = run.policy.state * run.numbers.parameters(mtp=run.mtp)
    for count in counts:
        if count > more_than and count <= MOST and count * run.capacity >= states and _fits(run, count):
            return count
    return None


def _fits(run: Run, count: int) -> bool:
    links = run.speeds.links
    if count > links.domain and not links.scale_out:
        return False
    moe = [layer.feed_forward.experts for layer in kinds(run.numbers) if layer.feed_forward.kind == "moe"]
    for tp in (d for d in divisors(count) if d <= links.domain):
        for pp in (d for d in divisors(count // tp) if d <= len(run.numbers.layers)):
            dp = count // (tp * pp)
            ep = max((d for d in divisors(tp * dp) if all(n % d == 0 for n in moe)), default=1) if moe else 1
            layout = Layout(tp=tp, pp=pp, dp=dp, ep=ep, zero=3 if pp == 1 else 1, recompute="full")
            try:
                check(layout, run.numbers, count, context=run.context, sequences=dp * pp)
            except RequestError:
                continue
            if run.memory(layout, dp * pp).total <= run.capacity:
                return True
    return False
