"""Training a model: how long, how much money and energy, at which utilisation, in which layout, and what binds.

    step seconds = products + attention + pointwise + launch + exposed communication + bubble + optimizer        (train_time.py)
    MFU          = model FLOPs a token x tokens a second / (chips x dense 16-bit peak)
    chip-hours   = tokens / (tokens a second) x chips / train_goodput

Model FLOPs are three times the forward pass with causal attention, without recomputation and without multi-token-prediction modules, against the
16-bit peak whatever the format of the products: the convention of arXiv 2505.09343, table 4 (38.94 % for DeepSeek-V3). Megatron-LM and NVIDIA
count the whole attention square, which makes their figure higher.

A measured utilisation replaces the model of the step: `assume={"mfu": 0.3894}`. It is then taken as that of the whole job, so lost time
(`train_goodput`) is not counted again unless you give that too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trilaw.core.errors import RequestError
from trilaw.planner.layout import Layout, check
from trilaw.planner.memory import GIB, Memory
from trilaw.planner.memory import precision as policy_named
from trilaw.planner.prices import hourly_price
from trilaw.planner.sheet import Sheet
from trilaw.planner.train_kernels import share
from trilaw.planner.train_search import Plan, Run, best, needed, whole_sequences

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip
    from trilaw.planner.network import Flow

MOST_TOKENS = 1e18  # more than ten thousand times all text that was ever trained on


@dataclass(frozen=True)
class Cost:
    """What chip-hours cost. Dollars are None without a price, energy (of the IT equipment) without a known power."""

    gpu_hours: float
    price_per_hour: float | None
    usd: float | None
    energy_kwh: float | None
    sheet: Sheet = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Every field by name, the sheet as lines and assumptions."""
        return {
            "gpu_hours": self.gpu_hours,
            "price_per_hour": self.price_per_hour,
            "usd": self.usd,
            "energy_kwh": self.energy_kwh,
            "sheet": self.sheet.to_json(),
        }


@dataclass(frozen=True)
class TrainPlan:
    """A training run. Times are seconds unless named; `step_parts` add up to `step_seconds` (with a given MFU there are none).

    `recompute` is the layout with each choice of what backward computes again, fitting or not.
    `gpu_hours_low` and `gpu_hours_high` follow the range of the one assumption that matters most, the share of its peak that a chip reaches in
    products; they are the hours themselves where the MFU is given. `mfu` is that of a step, against the 16-bit peak.
    """

    model: str
    chip: str
    count: int
    tokens: float
    context: int
    batch_tokens: float
    precision: str
    layout: Layout
    steps: float
    step_seconds: float
    step_parts: Mapping[str, float]
    flows: tuple[Flow, ...]
    exposed_seconds: Mapping[str, float]  # of a step, by kind of flow; the rest of it is hidden behind computing
    mfu: float
    tflops_per_chip: float
    tokens_per_second: float
    flops: float
    memory: Memory
    memory_capacity: float
    seconds: float
    gpu_hours: float
    gpu_hours_low: float
    gpu_hours_high: float
    price_per_hour: float | None
    usd: float | None
    energy_kwh: float | None
    binds: str
    busiest_link: str
    others: tuple[Plan, ...] = field(repr=False, compare=False)  # further layouts of the search, next best first
    recompute: tuple[Plan, ...] = field(repr=False, compare=False)
    sheet: Sheet = field(repr=False, compare=False)

    @property
    def hours(self) -> float:
        return self.seconds / 3600

    @property
    def days(self) -> float:
        return self.seconds / 86400

    @property
    def tokens_per_second_per_chip(self) -> float:
        return self.tokens_per_second / self.count

    @property
    def tokens_per_day(self) -> float:
        """While steps run; `train_goodput` is not in it."""
        return self.tokens_per_second * 86400

    def to_json(self) -> dict[str, Any]:
        """Every field by name; the layout also as words, `memory_bytes` of the fullest chip, `memory_parts` of it, flows and sheet as lists."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name
            not in ("layout", "flows", "memory", "others", "recompute", "sheet", "step_parts", "exposed_seconds")
        }
        return plain | {
            "hours": self.hours,
            "days": self.days,
            "tokens_per_second_per_chip": self.tokens_per_second_per_chip,
            "tokens_per_day": self.tokens_per_day,
            "layout": self.layout.to_json() | {"words": str(self.layout)},
            "step_parts": dict(self.step_parts),
            "exposed_seconds": dict(self.exposed_seconds),
            "memory_bytes": self.memory.total,
            "memory_parts": self.memory.to_json(),
            "flows": [asdict(flow) | {"seconds": flow.seconds} for flow in self.flows],
            "recompute_choices": [
                {
                    "recompute": plan.layout.recompute,
                    "activations_bytes": plan.memory.activations,
                    "memory_bytes": plan.memory.total,
                    "step_seconds": plan.step.seconds,
                    "fits": plan.memory.total <= self.memory_capacity,
                }
                for plan in self.recompute
            ],
            "other_layouts": [
                {"words": str(plan.layout), "step_seconds": plan.step.seconds, "memory_bytes": plan.memory.total}
                for plan in self.others
            ],
            "sheet": self.sheet.to_json(),
        }


def plan_train(
    numbers: Numbers,
    chip: Chip,
    count: int,
    *,
    tokens: float,
    context: int = 4096,
    batch_tokens: float | None = None,
    precision: str = "bf16-mixed",
    layout: Layout | None = None,
    mtp: bool | None = None,
    price_per_hour: float | None = None,
    assume: Mapping[str, float] | None = None,
) -> TrainPlan:
    """Plan the training of `numbers` on `tokens` tokens in sequences of `context`, on `count` chips.

    Without `batch_tokens` the batch is DeepSeek's law, rounded so that it divides over the chips (`default_batch`); without `layout` the
    fastest that fits is taken (`train_search`). `mtp`: train the model's multi-token-prediction modules too, by default if it has any.

    Raises RequestError, in one sentence, for a number out of range, an unknown precision or assumption, a format or a link that the chip lacks, a
    layout that does not divide, and a model that does not fit (with the smallest count that would do).
    """
    sheet = Sheet(overrides=assume or {})
    _ranges(numbers, count, tokens, context, batch_tokens)
    run = _run(numbers, chip, precision, sheet, context, mtp)
    price = hourly_price(chip, price_per_hour, sheet)
    _ceilings(run, sheet)
    model_flops = sheet.put(
        "model FLOPs", numbers.flops_per_token(context, training=True), "FLOP/token", "3 x forward, causal attention"
    )
    if batch_tokens is None:
        sequences = default_batch(model_flops * tokens, context, count)
        sheet.put("batch", sequences * context, "tokens", "0.2920 x FLOPs^0.3271, rounded", "arXiv 2401.02954")
    else:
        sequences = whole_sequences(batch_tokens, context)
    if sequences * context > tokens:
        raise RequestError(
            f"A batch of {sequences * context:,} tokens is more than the {tokens:,.0f} of the run: take more tokens or"
            f" {'fewer chips' if batch_tokens is None else 'a smaller batch'}."
        )
    if layout is None:
        plan, *others = best(run, count, sequences, 10)
    else:
        check(layout, numbers, count, context=context, sequences=sequences)
        plan, others = run.plan(layout, sequences), []
        if plan.memory.total > run.capacity:
            raise RequestError(
                f"{numbers.name or 'The model'} in the layout {layout} needs {plan.memory.total / GIB:.1f} GiB of a chip's"
                f" {run.capacity / GIB:.1f} GiB (activations {plan.memory.activations / GIB:.1f}): recompute or shard more;"
                f" with the best layout for it, {needed(run, 0)}."
            )
    peak = chip.rate("fp32" if run.policy.products == "fp32" else "bf16")
    given, goodput = sheet.assume("mfu"), 1.0
    step_flops = model_flops * sequences * context
    if given > 1:
        raise RequestError(f"The assumption 'mfu' is {given:g}, it is a share of the peak and must be at most 1.")
    if not given or "train_goodput" in sheet.overrides:
        goodput = share(sheet, "train_goodput")
    if given:
        step, parts = step_flops / (count * peak * given), {}
        low = high = step
        sheet.put("step", step, "s", "model FLOPs x batch / (chips x peak x mfu)")
    else:
        parts = plan.step.parts()
        step = plan.step.seconds
        low, high = _bounds(run, plan.layout, sequences, sheet)
        for name, seconds in parts.items():
            sheet.put(f"step, {name}", seconds, "s", _FORMULAS[name])
        sheet.put("step", step, "s", "the sum of its parts")
    rate = sheet.put("throughput", sequences * context / step, "tokens/s", "batch / step")
    mfu = sheet.put(
        "MFU", step_flops / (step * count * peak), "share", "model FLOPs x throughput / (chips x 16-bit peak)"
    )
    for name, size in plan.memory.parts().items():
        sheet.put(f"memory, {name}", size, "B/chip", _MEMORY[name])
    seconds = sheet.put("time", tokens / rate / goodput, "s", "tokens / throughput / goodput")
    hours = sheet.put("chip-hours", seconds * count / 3600, "h", "time x chips")
    cost = _cost(chip, hours, price, sheet)
    return TrainPlan(
        model=numbers.name,
        chip=chip.name,
        count=count,
        tokens=tokens,
        context=context,
        batch_tokens=sequences * context,
        precision=run.policy.name,
        layout=plan.layout,
        steps=tokens / (sequences * context),
        step_seconds=step,
        step_parts=parts,
        flows=plan.step.flows,
        exposed_seconds={} if given else dict(plan.step.exposed),
        mfu=mfu,
        tflops_per_chip=mfu * peak / 1e12,
        tokens_per_second=rate,
        flops=model_flops * tokens,
        memory=plan.memory,
        memory_capacity=run.capacity,
        seconds=seconds,
        gpu_hours=hours,
        gpu_hours_low=hours * low / step,
        gpu_hours_high=hours * high / step,
        price_per_hour=price,
        usd=cost.usd,
        energy_kwh=cost.energy_kwh,
        binds="the given mfu" if given else plan.step.binds,
        busiest_link=plan.step.busiest_link,
        others=tuple(others),
        recompute=run.recomputed(plan.layout, sequences),
        sheet=sheet,
    )


_FORMULAS = {
    "products": "FLOPs of matrix products / (peak x share)",
    "attention": "FLOPs of attention / (16-bit peak x share)",
    "pointwise": "bytes of norms, activations, softmax, casts / (memory bandwidth x share)",
    "launch": "(train_launch - work of a layer of a micro-batch, where that is less) x layers x micro-batches",
    "communication": "exposed part of bytes / link",
    "bubble": "F + B of the other stages x fill of the schedule",
    "optimizer": "bytes of gradients and states / (memory bandwidth x share)",
}


_MEMORY = {
    "weights": "bytes a weight x (dense weights / tp + experts / ep) of the fullest stage; sharded over its replicas with ZeRO-3",
    "gradients": "bytes a gradient x the same; sharded from ZeRO-2",
    "master": "bytes a master weight x the same; sharded from ZeRO-1",
    "moments": "bytes of two moments x the same; sharded from ZeRO-1",
    "activations": "bytes a token of its layers (arXiv 2205.05198) x tokens of a micro-batch x micro-batches in flight",
    "head": "logits in FP32, inputs of the last norm and of the head",
    "workspace": "a layer while it is computed again, weights and gradients gathered by ZeRO-3",
}


def _ceilings(run: Run, sheet: Sheet) -> None:
    """What the chip reaches, after the assumed shares."""
    speeds, links = run.speeds, run.speeds.links
    sheet.put("products", speeds.products, "FLOP/s", f"{run.policy.products} peak x share")
    sheet.put("attention", speeds.attention, "FLOP/s", "16-bit peak x share")
    sheet.put("memory bandwidth", speeds.memory, "B/s", "peak x share")
    for name, speed in (("scale-up link", links.scale_up), ("scale-out link", links.scale_out)):
        if speed:
            sheet.put(name, speed, "B/s", "one way: what was measured of it, else peak x share")
    sheet.put("may be filled", run.capacity, "B/chip", "memory x share")


def cost_of_hours(
    chip: Chip, gpu_hours: float, *, price_per_hour: float | None = None, assume: Mapping[str, float] | None = None
) -> Cost:
    """Money and energy of chip-hours that are known. Raises RequestError for a number that is not positive."""
    if not (math.isfinite(gpu_hours) and gpu_hours > 0):
        raise RequestError(f"gpu_hours is {gpu_hours:g}, it must be a positive number.")
    sheet = Sheet(overrides=assume or {})
    price = hourly_price(chip, price_per_hour, sheet)
    return _cost(chip, sheet.put("chip-hours", gpu_hours, "h", "given by you"), price, sheet)


def default_batch(flops: float, context: int, count: int) -> int:
    """Sequences of a batch of 0.2920 C^0.3271 tokens for a budget of C FLOPs (arXiv 2401.02954, section 3.1), rounded.

    To a power of two, times the odd part of the count so that it divides over the chips; at least one sequence for each chip.
    """
    odd = count
    while odd % 2 == 0:
        odd //= 2
    wanted = max(0.2920 * flops**0.3271 / context, count)
    return int(odd * 2 ** max(0, round(math.log2(wanted / odd))))


def _ranges(numbers: Numbers, count: int, tokens: float, context: int, batch_tokens: float | None) -> None:
    for name, whole in (("count", count), ("context", context)):
        if isinstance(whole, bool) or not isinstance(whole, int) or whole < 1:
            raise RequestError(f"{name} is {whole!r}, it must be a whole number of at least 1.")
    for name, number in (("tokens", tokens), ("batch_tokens", batch_tokens)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise RequestError(f"{name} is {number:g}, it must be a positive number.")
    if tokens > MOST_TOKENS:
        raise RequestError(f"tokens is {tokens:g}: there is no such amount of text, the most taken is {MOST_TOKENS:g}.")
    if count > 10_000_000:
        raise RequestError(f"count is {count:,}: no cluster has so many chips, the most taken is 10,000,000.")
    if context > numbers.max_positions:
        raise RequestError(
            f"{numbers.name or 'The model'} takes {numbers.max_positions} tokens of context, not {context}."
        )
    if tokens < context:
        raise RequestError(f"tokens is {tokens:g}, less than one sequence of {context}.")


def _run(numbers: Numbers, chip: Chip, name: str, sheet: Sheet, context: int, mtp: bool | None) -> Run:
    if mtp and not numbers.mtp:
        raise RequestError(f"{numbers.name or 'The model'} has no multi-token-prediction module to train.")
    policy = policy_named(name)
    return Run(numbers, chip, policy, sheet, context=context, mtp=bool(numbers.mtp) if mtp is None else mtp)


def _bounds(run: Run, layout: Layout, sequences: int, sheet: Sheet) -> tuple[float, float]:
    """Seconds of the step with the high and with the low end of the share that products reach."""
    ends = []
    for end in ("high", "low"):
        speeds = run.speeds
        for name, fields in (
            ("train_matmul_low", ("products",) if run.policy.products == "fp8" else ()),
            ("train_matmul_a100", ("products", "wide")),
            ("train_matmul", ("products", "wide") if run.policy.products != "fp8" else ("wide",)),
        ):
            used = sheet.used.get(name)
            if used is not None:
                ratio = getattr(used, end) / used.value
                speeds = replace(speeds, **{field: getattr(speeds, field) * ratio for field in fields})
        ends.append(run.plan(layout, sequences, speeds=speeds).step.seconds)
    return ends[0], ends[1]


def _cost(chip: Chip, hours: float, price: float | None, sheet: Sheet) -> Cost:
    usd = None if price is None else sheet.put("cost", hours * price, "$", "chip-hours x price")
    power = chip.all_in_watts or chip.watts
    energy = None
    if power is not None:
        watts = power.value * share(sheet, "train_power")
        energy = sheet.put("energy", hours * watts / 1e3, "kWh", "chip-hours x power x share", power.source)
    return Cost(hours, price, usd, energy, sheet)
