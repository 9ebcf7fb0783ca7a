"""The planner in Python: what training, serving and reinforcement learning take on chips that you name, and do not have to have.

A model is a name of the catalogue (`trilaw plan models`), a folder with a config.json, or `owner/name` in the local Hugging Face cache. Hardware
is a name of the table (`trilaw plan hardware`) or the path of your own .toml file. Nothing here loads torch or reaches the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trilaw.core.errors import ModelError, RequestError, nearest

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip
    from trilaw.planner.rl import Placement, RlPlan
    from trilaw.planner.serve import ServePlan
    from trilaw.planner.sheet import Sheet
    from trilaw.planner.sourced import Sourced
    from trilaw.planner.train import TrainPlan

TOKENS_PER_WEIGHT = 20  # compute-optimal by arXiv 2203.15556, table 3, rounded

T = TypeVar("T")
Settings = str | Mapping[str, Any]  # of a layout: "tp=8 pp=4", or the same as a mapping


def plan_train(
    model: str | Path,
    hardware: str | Path,
    count: int,
    *,
    tokens: float | None = None,
    context: int | None = None,
    batch: float | None = None,
    precision: str | None = None,
    layout: Settings | None = None,
    mtp: bool | None = None,
    price: float | str | None = None,
    assume: Mapping[str, float] | None = None,
) -> TrainPlan:
    """Training a model on `count` chips: chip-hours, dollars, energy, utilisation, the layout, the memory by part, and what binds.

    tokens: 20 for each weight that a token passes unless given (arXiv 2203.15556). context: tokens of a sequence, 4,096 or what the model takes.
    batch: tokens of a step, by DeepSeek's law unless given. precision: a name of `trilaw.planner.memory.PRECISIONS`; unless given, the one that the
    model is known to be trained in where the chip has it, else bf16-mixed, else fp32. layout: "tp=8 pp=4 dp=64", the fastest that fits unless
    given. mtp: train the multi-token-prediction modules too, as a model that has them does. price: dollars of a chip for an hour, a provider of
    the table ("runpod"), or the path of your own .toml file of prices. assume: assumptions by name; `mfu` replaces the model of the step by a
    measured utilisation.
    Raises RequestError, in one sentence, for whatever does not hold.

        plan = trilaw.plan_train("llama-3.1-8b", "h100", 64, tokens=1e12)
        print(plan.gpu_hours, plan.usd, plan.mfu, plan.layout)
    """
    from trilaw.planner.layout import Layout
    from trilaw.planner.train import plan_train as plan

    numbers, chip = numbers_of(model), chip_of(hardware)
    asked = price_of(price, chip)
    planned = plan(
        numbers,
        chip,
        count,
        tokens=TOKENS_PER_WEIGHT * numbers.active_parameters() if tokens is None else tokens,
        context=min(4096, numbers.max_positions) if context is None else context,
        batch_tokens=batch,
        precision=_precision(str(model), chip) if precision is None else precision,
        layout=None if layout is None else _made(Layout, layout),
        mtp=mtp,
        price_per_hour=None if asked is None else asked.value,
        assume=assume or {},
    )
    _say_price(planned.sheet, asked)
    if tokens is None:
        planned.sheet.put(
            "tokens", planned.tokens, "tokens", f"{TOKENS_PER_WEIGHT} x active weights", "arXiv 2203.15556, table 3"
        )
    return planned


def plan_serve(
    model: str | Path,
    hardware: str | Path,
    count: int,
    *,
    prompt: int = 1000,
    response: int = 1000,
    samples: int = 1,
    context: float | None = None,
    cached: float = 0.0,
    weight_bits: int | None = None,
    kv_bits: int = 16,
    latency: float | None = None,
    batch: float | None = None,
    apart: bool = False,
    layout: Settings | None = None,
    price: float | str | None = None,
    assume: Mapping[str, float] | None = None,
) -> ServePlan:
    """Serving a model on `count` chips: sequences that fit, tokens a second, seconds to the first token and for each, dollars, energy.

    prompt, response: tokens of a prompt and of each of its `samples` responses. context: mean cached tokens that a step attends. cached: share of
    the prompts' tokens that was read before. weight_bits: 16, 8 or 4; unless given, what the model is published in, else 16. latency: the most
    seconds per output token. batch: sequences in flight on all chips, as many as fit unless given. apart: chips of their own read the prompts.
    layout: "tensor=8", "tensor=1 expert=64 redundant=64", searched unless given. price, assume: as in `plan_train`.
    Raises RequestError, in one sentence, for whatever does not hold.

        plan = trilaw.plan_serve("deepseek-r1", "h100", 64, prompt=1000, response=8000)
        print(plan.output_tokens_per_second, plan.usd_per_million_output, plan.binds)
    """
    from trilaw.planner.serve import plan_serve as plan
    from trilaw.planner.serve_layout import ServeLayout

    chip = chip_of(hardware)
    asked = price_of(price, chip)
    planned = plan(
        numbers_of(model),
        chip,
        count,
        prompt=prompt,
        response=response,
        context=context,
        samples=samples,
        cached=cached,
        weight_bits=_bits(str(model)) if weight_bits is None else weight_bits,
        kv_bits=kv_bits,
        target_latency=latency,
        concurrency=batch,
        apart=apart,
        layout=None if layout is None else _made(ServeLayout, layout),
        price_per_hour=None if asked is None else asked.value,
        assume=assume or {},
    )
    _say_price(planned.sheet, asked)
    return planned


def plan_rl(
    model: str | Path,
    hardware: str | Path,
    count: int,
    *,
    problems: int = 32,
    samples: int = 16,
    prompt: int = 200,
    response: int = 4000,
    steps: int = 1000,
    rollout_steps: int = 1,
    longest: int | None = None,
    score_passes: int = 2,
    placement: Placement = "colocated",
    weight_bits: int | None = None,
    kv_bits: int = 16,
    layout: Settings | None = None,
    price: float | str | None = None,
    assume: Mapping[str, float] | None = None,
) -> RlPlan:
    """Reinforcement learning on `count` chips: seconds of writing, waiting, scoring and updating, chip-hours, dollars, idle time.

    problems x samples responses feed an update, and `rollout_steps` updates use one rollout. response: mean tokens of a response; longest: the
    longest of a rollout. score_passes: forward passes beside the update (2 with a reference model). placement: "colocated", all chips do
    all, or "split". weight_bits, kv_bits, layout: of the writing engine, as in `plan_serve`. price, assume: as in `plan_train`.
    Raises RequestError, in one sentence, for whatever does not hold.

        plan = trilaw.plan_rl("qwen2.5-7b", "h100", 16, response=2000, steps=500)
        print(plan.hours, plan.usd, plan.binds)
    """
    from trilaw.planner.rl import plan_rl as plan
    from trilaw.planner.serve_layout import ServeLayout

    chip = chip_of(hardware)
    asked = price_of(price, chip)
    planned = plan(
        numbers_of(model),
        chip,
        count,
        problems=problems,
        samples=samples,
        prompt=prompt,
        response=response,
        steps=steps,
        rollout_steps=rollout_steps,
        longest=longest,
        score_passes=score_passes,
        placement=placement,
        weight_bits=_bits(str(model)) if weight_bits is None else weight_bits,
        kv_bits=kv_bits,
        layout=None if layout is None else _made(ServeLayout, layout),
        price_per_hour=None if asked is None else asked.value,
        assume=assume or {},
    )
    _say_price(planned.sheet, asked)
    return planned


def numbers_of(model: str | Path) -> Numbers:
    """The sizes of a model. Raises RequestError for an unknown name, and for a config.json that cannot be counted (it names the field)."""
    from trilaw.planner.models import model as find

    try:
        return find(str(model))
    except ModelError as error:  # to the planner a config.json is a request, and no weights were to be loaded
        raise RequestError(str(error)) from error


def chip_of(hardware: str | Path) -> Chip:
    """The chip of a name or of a .toml file. Raises RequestError for an unknown name or a file that does not hold."""
    from trilaw.planner.hardware import chip

    return chip(str(hardware))


def price_of(price: float | str | None, chip: Chip) -> Sourced | None:
    """What an hour of a chip costs: a number of dollars, "$2.00/h", a provider of the table, or a .toml file of prices; None where None is asked.

    Raises RequestError for a text that is none of them, and for a provider or a file that does not price the chip.
    """
    from trilaw.planner import prices
    from trilaw.planner.hardware import Sourced

    if price is None:
        return None
    try:
        return Sourced(float(price), "$/h", "given by you", "")
    except ValueError:
        text = str(price)
    if text.startswith("$"):
        return prices.given(text)
    if text.endswith("/h"):
        raise RequestError(
            f"--price is '{text}': write 2, or '$2.00/h' in single quotes, or the shell takes $2 for itself."
        )
    if text.endswith(".toml"):
        return prices.price(chip, own=prices.load_file(text))
    return prices.price(chip, text)


def _say_price(sheet: Sheet, asked: Sourced | None) -> None:
    """Put the source of a price that came from a table on the sheet."""
    from trilaw.planner.sheet import Line

    if asked is not None and asked.date:
        found = next(i for i, line in enumerate(sheet.lines) if line.name == "price")
        range_ = f"rent, {asked.low:g} to {asked.high:g}"
        sheet.lines[found] = Line("price", asked.value, "$/chip-hour", range_, f"{asked.source}, {asked.date}")


def _precision(model: str, chip: Chip) -> str:
    from trilaw.planner.memory import precision
    from trilaw.planner.models import published

    known = published(model)
    if known is not None and precision(known.precision).products in chip.flops:
        return known.precision
    return "bf16-mixed" if "bf16" in chip.flops else "fp32"


def _bits(model: str) -> int:
    from trilaw.planner.models import published

    known = published(model)
    return 16 if known is None else known.weight_bits


def _made(kind: type[T], settings: Settings) -> T:
    """A layout out of "tp=8 pp=4" (or with commas), or out of a mapping. Raises RequestError for an unknown key or a value of another type."""
    if isinstance(settings, str):
        pairs = {}
        for word in settings.replace(",", " ").split():
            key, equals, value = word.partition("=")
            if not (key and equals and value):
                raise RequestError(f"'{word}' is no setting of a layout: write KEY=VALUE, for example tp=8.")
            pairs[key] = value
    else:
        pairs = dict(settings)
    types = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    read: dict[str, Any] = {}
    for key, value in pairs.items():
        if key not in types:
            raise RequestError(f"A layout has no '{key}'{nearest(key, types)}.")
        read[key] = _value(key, value, types[key])
    return kind(**read)


def _value(key: str, value: Any, kind: str) -> Any:
    """A setting in the type of its field; only texts are converted."""
    if kind == "bool":
        known = {"true": True, "false": False}
        if isinstance(value, bool) or str(value).lower() in known:
            return value if isinstance(value, bool) else known[str(value).lower()]
        raise RequestError(f"The layout's '{key}' must be true or false, it is {value!r}.")
    if kind == "int":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        try:
            return int(value if isinstance(value, str) else "")
        except ValueError:
            raise RequestError(f"The layout's '{key}' must be a whole number, it is {value!r}.") from None
    return value
