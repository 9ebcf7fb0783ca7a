"""Which layout and which batch serve a load best, and in words why none does.

In the steady state a request takes a replica's seconds for its prompt and for its responses; throughput is the inverse:

    seconds of a step, prompts counted = step(batch) + requests finished in a step x seconds of a prompt     (together)
                                       = step(batch), and the prompts' replicas must keep pace               (apart)

Throughput rises with the batch, and so does the time per output token, so the best batch is the largest that memory and the target allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trilaw.planner.roofline import Ceilings
from trilaw.planner.serve_cost import Load, Work
from trilaw.planner.serve_layout import ServeLayout, candidates

MOST = 1 << 20  # the largest number of chips that is searched when a model does not fit


@dataclass(frozen=True, slots=True)
class Point:
    """A layout at a batch, with all that is chosen by."""

    layout: ServeLayout
    replicas: int
    decoding: int  # replicas that write; the others read prompts (all do both unless apart)
    batch: float  # sequences of a writing replica
    step: float
    prompt_seconds: float  # of a replica, for one prompt
    latency: float  # seconds per output token as a user sees it
    requests: float  # a second, all chips


def linked(layout: ServeLayout, rates: Ceilings) -> bool:
    """Whether the links that a layout needs are known."""
    return all(n == 1 or rates.link(n) > 0 for n in (layout.tensor, layout.chips))


def at_batch(
    work: Work, layout: ServeLayout, load: Load, replicas: int, decoding: int, batch: float, apart: bool
) -> Point:
    """What a layout does with `batch` sequences in each writing replica."""
    tokens = work.chunk * layout.tensor
    rate = tokens * layout.groups / work.prefill(layout, load, tokens).seconds
    prompt_seconds = load.prompt * (1 - load.cached) / rate
    step = work.decode(layout, load, batch).seconds
    written = batch * (1 + work.accept)  # tokens a step
    finished = written / (load.response * load.samples)  # requests a step
    busy = step + (0.0 if apart else finished * prompt_seconds)
    requests = decoding * finished / busy
    if apart:
        requests = min(requests, (replicas - decoding) / prompt_seconds)
    return Point(layout, replicas, decoding, batch, step, prompt_seconds, busy / (1 + work.accept), requests)


def best_points(
    work: Work, layout: ServeLayout, load: Load, count: int, target: float | None, apart: bool
) -> list[Point]:
    """The best point of a layout: a list of one, or of none where it does not fit or is too slow."""
    replicas = count // layout.chips
    most = work.fits(layout, load) * layout.groups
    if most < 1 or (apart and replicas < 2):
        return []
    limit = math.inf if target is None else target

    def at(decoding: int, batch: float) -> Point:
        return at_batch(work, layout, load, replicas, decoding, batch, apart)

    found: list[Point] = []
    if load.concurrency is None:
        # Time per token rises with the batch, whatever the number of writing replicas: bisect for the largest batch.
        if at(1, 1).latency > limit:
            return []
        low, high = 1, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if at(1, middle).latency <= limit else (low, middle - 1)
        found = [at(d, low) for d in (range(1, replicas) if apart else (replicas,))]
    else:
        for d in range(1, replicas) if apart else (min(replicas, max(1, math.floor(load.concurrency))),):
            point = at(d, max(1.0, load.concurrency / d))
            if point.batch <= most and point.latency <= limit:
                found.append(point)
    return [max(found, key=lambda p: p.requests)] if found else []


def smallest_count(work: Work, load: Load) -> int | None:
    """The fewest chips that hold the weights and one sequence; None if no number does."""

    def fits(count: int) -> bool:
        return any(
            linked(x, work.rates) and work.fits(x, load) >= 1
            for x in candidates(work.numbers, count, work.rates.domain)
        )

    high = 1
    while not fits(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2  # does not fit (or 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def why_not(
    work: Work,
    chip: str,
    tried: Sequence[ServeLayout],
    load: Load,
    count: int,
    target: float | None,
    apart: bool,
    given: bool,
) -> str:
    """Why no layout will do, and what would."""
    name = work.numbers.name
    fitting = [x for x in tried if work.fits(x, load) >= 1]
    if not fitting:
        if given:
            need = work.weights(tried[0]) + work.cache(load) / work.cache_split(tried[0])
            return (
                f"{name} does not fit in the layout {tried[0]}: a chip would hold {need / 1e9:.1f} GB of weights and one sequence, "
                f"of the {work.capacity / 1e9:.1f} GB of a {chip} that may be filled."
            )
        least = smallest_count(work, load)
        if least is None:
            reach = "" if work.rates.scale_out else f" (no source gives a network beyond {work.rates.domain} of them)"
            return f"{name} fits on no number of {chip}: a chip's part of the weights and one sequence are more than it holds{reach}."
        return f"{name} does not fit on {count} {chip}: the smallest number that holds it and one sequence is {least}."
    if apart and all(count // x.chips < 2 for x in fitting):
        least_chips = 2 * min(x.chips for x in fitting)
        return (
            f"To read and write apart takes two replicas of {name}, {least_chips} {chip} at least; there are {count}."
        )
    if load.concurrency is not None:
        most = max(work.fits(x, load) * x.groups * (count // x.chips) for x in fitting)
        if most < load.concurrency:
            return f"{load.concurrency:g} sequences do not fit at once on {count} {chip}; {most} do."
    replicas = [(x, count // x.chips) for x in fitting if not apart or count // x.chips >= 2]
    alone = min(at_batch(work, x, load, r, 1, 1.0, apart).latency for x, r in replicas)
    return (
        f"No layout of {count} {chip} gives {name}'s tokens every {target or 0:g} s"
        f"{'' if load.concurrency is None else f' with {load.concurrency:g} sequences at once'}; "
        f"the least, for a sequence alone, is {alone:.3g} s."
    )
