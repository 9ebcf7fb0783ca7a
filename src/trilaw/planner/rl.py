"""Reinforcement learning as one machine: writing responses, rewarding, scoring and updating, on the same chips or on two sets.

One rollout writes problems x samples x rollout_steps responses and feeds rollout_steps updates (DeepSeek-R1: 32 x 16 x 16 = 8,192 responses
and 16 updates, arXiv 2501.12948v2). A rollout takes

    writing = responses / throughput (serve.py's roofline, all responses in flight, or as many as fit)
    tail    = (longest - mean) x seconds of a step for a sequence alone: the last responses keep the chips waiting
    score   = forward FLOPs x passes (old policy, reference) / (chips x peak x MFU)
    update  = 3 x forward FLOPs / (chips x peak x MFU)
    sync    = new weights through each chip's network adapter

colocated: all chips do one after the other, moving what is not in use out of memory (as DeepSeek did). split: two sets of chips, one rollout
apart, so a cycle takes the longer of (writing + tail) and (score + update); the split with the shortest cycle is searched.

Left out: the time to move state out of memory and back, failures, evaluation, dynamic sampling that throws groups away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.prices import hourly_price
from trilaw.planner.roofline import PRODUCTS, share
from trilaw.planner.serve_cost import Load, Work, read_load, read_work
from trilaw.planner.serve_layout import ServeLayout, candidates, check_layout
from trilaw.planner.serve_search import at_batch, linked, smallest_count
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip

Placement = Literal["colocated", "split"]
PLACEMENTS = ("colocated", "split")
MOST_TOKENS = 1e18  # as of training
SPLITS = 32  # numbers of writing replicas that are tried for a layout


@dataclass(frozen=True, slots=True)
class _Cycle:
    """One rollout with its updates; seconds, and chips of either set (equal to all when colocated)."""

    layout: ServeLayout
    writers: int
    trainers: int
    writing: float
    tail: float
    score: float
    update: float
    sync: float
    concurrency: float
    step: float
    seconds: float
    idle: float  # share of all chips' time


@dataclass(frozen=True)
class RlPlan:
    """A run of reinforcement learning. Seconds named `..._seconds` are of one rollout with its updates; dollars are None without a price."""

    model: str
    chip: str
    count: int
    placement: str
    problems: int
    samples: int
    rollout_steps: int
    steps: int
    prompt: int
    response: float
    longest: float
    layout: ServeLayout
    rollout_chips: int
    train_chips: int
    concurrency: float
    writing_seconds: float
    tail_seconds: float
    reward_seconds: float
    score_seconds: float
    update_seconds: float
    sync_seconds: float
    cycle_seconds: float
    step_seconds: float  # of an update
    idle_share: float
    seconds: float
    hours: float
    gpu_hours: float
    usd: float | None
    energy_kwh: float | None  # of the IT equipment
    flops: float  # forward and backward of scoring and updating, and writing
    mfu: float  # `flops` over the 16-bit peak of all chips for the whole time
    rollout_tokens: float  # over the whole run
    memory_bytes: float  # a training chip's share of weights, gradients and optimizer
    sheet: Sheet = field(repr=False, compare=False)

    @property
    def binds(self) -> str:
        """The longest part of a cycle: "writing", "tail", "score", "update" or "sync"."""
        parts = {name: getattr(self, f"{name}_seconds") for name in ("writing", "tail", "score", "update", "sync")}
        return max(parts, key=lambda name: parts[name])

    def to_json(self) -> dict[str, Any]:
        """Every field by name, the layout as words, the sheet as lines and assumptions."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("layout", "sheet")}
        return plain | {"layout": str(self.layout), "binds": self.binds, "sheet": self.sheet.to_json()}


def plan_rl(
    numbers: Numbers,
    chip: Chip,
    count: int,
    *,
    problems: int,
    samples: int,
    prompt: int,
    response: int,
    steps: int,
    rollout_steps: int = 1,
    longest: int | None = None,
    score_passes: int = 2,
    placement: Placement = "colocated",
    weight_bits: int = 16,
    kv_bits: int = 16,
    layout: ServeLayout | None = None,
    price_per_hour: float | None = None,
    assume: Mapping[str, float] = {},
) -> RlPlan:
    """Train `numbers` by reinforcement learning on `count` chips for `steps` updates of problems x samples responses each.

    response: mean tokens of a response; longest: the longest of a rollout (the assumed ratio otherwise). score_passes: forward passes over
    the responses beside the update: 2 with a reference model, 1 without, 0 where the log-probabilities of writing are trusted.
    weight_bits, kv_bits: of the writing engine. layout: of the writing engine, searched otherwise.

    Raises RequestError for numbers out of range, an unknown placement, a model that does not fit (with the smallest count that does), or
    an unknown assumption.
    """
    _check(problems, samples, steps, rollout_steps, score_passes, response, longest, placement)
    sheet = Sheet(overrides=assume)
    load = read_load(numbers, count, prompt, response, samples=samples, price_per_hour=price_per_hour)
    work = read_work(numbers, chip, weight_bits, kv_bits, sheet)
    if layout is not None:
        check_layout(layout, numbers, count)
    if longest is not None and prompt + longest > numbers.max_positions:
        raise RequestError(
            f"{numbers.name or 'The model'} takes {numbers.max_positions} tokens of context at most, a prompt of {prompt} and the"
            f" longest response of {longest} are more."
        )
    top = min(longest or response * sheet.assume("rl_longest_over_mean"), numbers.max_positions - prompt)
    responses = problems * samples * rollout_steps
    train = _Training(numbers, chip, responses, prompt, response, score_passes, share(sheet, "rl_update_mfu"), sheet)
    reward = sheet.assume("rl_reward_seconds")

    def cycles() -> Iterator[_Cycle]:
        for x in [layout] if layout is not None else candidates(numbers, count, work.rates.domain):
            if linked(x, work.rates) and work.fits(x, load) >= 1:
                for replicas in _splits(count // x.chips, placement):
                    yield _cycle(work, x, load, count, replicas, responses, top, reward, placement, train)

    found = [c for c in cycles() if c.trainers and train.memory(c.trainers) <= work.capacity]
    if not found:
        raise RequestError(_why_not(work, chip, load, count, train, placement))
    best = min(found, key=lambda c: (c.seconds, c.idle))
    return _plan(
        work,
        chip,
        count,
        load,
        best,
        train,
        top,
        responses,
        steps,
        rollout_steps,
        problems,
        placement,
        reward,
        price_per_hour,
        sheet,
    )


class _Training:
    """FLOPs and memory of scoring and updating."""

    def __init__(
        self,
        numbers: Numbers,
        chip: Chip,
        responses: int,
        prompt: int,
        response: float,
        passes: int,
        mfu: float,
        sheet: Sheet,
    ) -> None:
        length = prompt + response
        forward = numbers.flops_per_token(round(length), training=False)
        self.tokens = responses * length
        self.score_flops = passes * self.tokens * forward
        self.update_flops = 3 * self.tokens * forward
        self.kind = next(kind for kind in PRODUCTS[16] if kind in chip.flops)
        self.rate = chip.rate(self.kind) * mfu
        self.state = numbers.parameters() * sheet.assume("rl_state_bytes")

    def memory(self, chips: int) -> float:
        """Bytes of a training chip."""
        return self.state / chips


def _check(
    problems: int,
    samples: int,
    steps: int,
    rollout_steps: int,
    passes: int,
    response: int,
    longest: int | None,
    placement: str,
) -> None:
    counts = (
        ("problems", problems, 1),
        ("samples", samples, 1),
        ("steps", steps, 1),
        ("rollout_steps", rollout_steps, 1),
    )
    for name, number, least in (*counts, ("score_passes", passes, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise RequestError(f"{name} is {number!r}, it must be a whole number of at least {least}.")
    if samples < 2:
        raise RequestError(
            "A group needs at least 2 samples: the mean of a single one is itself, so nothing is learned."
        )
    if rollout_steps > steps:
        raise RequestError(f"A rollout cannot feed {rollout_steps} updates of a run of {steps}.")
    written = problems * samples * steps * response
    if written > MOST_TOKENS:
        raise RequestError(
            f"The run would write {written:.3g} tokens, the most taken is {MOST_TOKENS:g}: is a number too large?"
        )
    if placement not in PLACEMENTS:
        raise RequestError(f"The placement '{placement}' is unknown{nearest(placement, PLACEMENTS)}.")
    if longest is not None and longest < response:
        raise RequestError(
            f"The longest response is {longest} tokens, it cannot be shorter than the mean of {response}."
        )


def _splits(replicas: int, placement: str) -> list[int]:
    """Numbers of writing replicas to try."""
    if placement == "colocated":
        return [replicas]
    if replicas <= SPLITS:
        return list(range(1, replicas + 1))
    return sorted({max(1, round(replicas * i / SPLITS)) for i in range(1, SPLITS)})


def _cycle(
    work: Work,
    layout: ServeLayout,
    load: Load,
    count: int,
    replicas: int,
    responses: int,
    longest: float,
    reward: float,
    placement: str,
    train: _Training,
) -> _Cycle:
    """The times of one rollout with `replicas` writing replicas."""
    writers = replicas * layout.chips
    trainers = count if placement == "colocated" else count - writers
    used = min(replicas, responses)
    batch = min(responses / used, work.fits(layout, load) * layout.groups)
    point = at_batch(work, layout, load, used, used, batch, False)
    writing = responses / load.samples / point.requests
    # While the mean response is written the longest keeps pace; after that it goes on alone.
    alone = work.decode(layout, replace(load, context=load.prompt + (load.response + longest) / 2), 1.0)
    tail = max(0.0, longest - load.response) * alone.seconds / (1 + work.accept)
    score = train.score_flops / (trainers * train.rate) if trainers else 0.0
    update = train.update_flops / (trainers * train.rate) if trainers else 0.0
    link = work.rates.scale_out or work.rates.scale_up
    sync = work.weights(layout) / link if link and count > 1 else 0.0
    if placement == "colocated":
        seconds = writing + tail + reward + score + update + sync
        busy = (writers * writing * used / replicas + trainers * (score + update)) / (count * seconds)
    else:
        seconds = max(writing + tail + reward, score + update) + sync
        busy = (writers * writing * used / replicas + trainers * (score + update)) / (count * seconds)
    return _Cycle(
        layout, writers, trainers, writing, tail, score, update, sync, batch * used, point.step, seconds, 1 - busy
    )


def _why_not(work: Work, chip: Chip, load: Load, count: int, train: _Training, placement: str) -> str:
    """Why no layout will do, and what would."""
    name = work.numbers.name
    write = smallest_count(work, load)
    learn = math.ceil(train.state / work.capacity)
    if write is None:
        return f"{name} cannot be written with on any number of {chip.name}: a chip's part of the weights and one sequence are too large."
    if placement == "split":  # replicas of a size that leaves the rest to training
        sizes = [x.chips for x in candidates(work.numbers, 2 * write, work.rates.domain) if work.fits(x, load) >= 1]
        write = min(sizes, default=write)
    least = max(write, learn) if placement == "colocated" else write + learn
    return (
        f"{name} cannot be trained by reinforcement learning on {count} {chip.name}, {placement}: writing needs {write} of them and "
        f"updating {learn} ({train.state / 1e9:,.0f} GB of weights, gradients and optimizer), so {least} at least."
    )


def _plan(
    work: Work,
    chip: Chip,
    count: int,
    load: Load,
    best: _Cycle,
    train: _Training,
    longest: float,
    responses: int,
    steps: int,
    rollout_steps: int,
    problems: int,
    placement: str,
    reward: float,
    price_per_hour: float | None,
    sheet: Sheet,
) -> RlPlan:
    put = sheet.put
    put("responses of a rollout", responses, "responses", "problems x samples x rollout_steps")
    put("in flight", best.concurrency, "responses", "all, or as many as fit beside the weights")
    put("step", best.step, "s", "roofline of a decoding step at that batch")
    put("writing", best.writing, "s", "responses x tokens / throughput")
    put("tail", best.tail, "s", f"({longest:g} - {load.response:g} tokens) x a lone sequence's step")
    put("score", best.score, "s", f"{train.score_flops:.3g} FLOP / ({best.trainers} chips x {train.kind} peak x MFU)")
    put(
        "update", best.update, "s", f"{train.update_flops:.3g} FLOP / ({best.trainers} chips x {train.kind} peak x MFU)"
    )
    put("sync", best.sync, "s", "weights of a chip / its network adapter")
    formula = (
        "sum of all" if placement == "colocated" else "longer of (writing + tail + reward), (score + update), + sync"
    )
    put("cycle", best.seconds, "s", formula)
    rollouts = put("rollouts", math.ceil(steps / rollout_steps), "rollouts", "steps / rollout_steps")
    seconds = put("run", rollouts * best.seconds, "s", "rollouts x cycle")
    gpu_hours = put("chip hours", seconds / 3600 * count, "h", "run x chips")
    price = hourly_price(chip, price_per_hour, sheet)
    usd = None if price is None else put("cost", gpu_hours * price, "$", "chip hours x price")
    watts = chip.all_in_watts or chip.watts
    alone = "" if chip.all_in_watts else ", its server not counted: no source gives it"
    kwh = (
        None
        if watts is None
        else put("energy", gpu_hours * watts.value / 1000, "kWh", f"chip hours x {watts.value:g} W{alone}")
    )
    written = responses * load.response
    context = load.prompt + load.response / 2
    flops = rollouts * (train.score_flops + train.update_flops + written * work.numbers.decode_flops(context))
    put("model FLOPs", flops, "FLOP", "rollouts x (score + update + writing)")
    mfu = put(
        "MFU", flops / (seconds * count * chip.rate(train.kind)), "share", f"FLOP / (run x chips x {train.kind} peak)"
    )
    return RlPlan(
        model=work.numbers.name,
        chip=chip.name,
        count=count,
        placement=placement,
        problems=problems,
        samples=load.samples,
        rollout_steps=rollout_steps,
        steps=steps,
        prompt=load.prompt,
        response=load.response,
        longest=longest,
        layout=best.layout,
        rollout_chips=best.writers,
        train_chips=best.trainers,
        concurrency=best.concurrency,
        writing_seconds=best.writing,
        tail_seconds=best.tail,
        reward_seconds=reward,
        score_seconds=best.score,
        update_seconds=best.update,
        sync_seconds=best.sync,
        cycle_seconds=best.seconds,
        step_seconds=best.seconds / rollout_steps,
        idle_share=best.idle,
        seconds=seconds,
        hours=seconds / 3600,
        gpu_hours=gpu_hours,
        usd=usd,
        energy_kwh=kwh,
        flops=flops,
        mfu=mfu,
        rollout_tokens=rollouts * written,
        memory_bytes=train.memory(best.trainers),
        sheet=sheet,
    )
