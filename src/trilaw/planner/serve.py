"""Serving a model: how many sequences fit, how fast they are read and written, what that costs.

A replica (serve_layout.py) reads prompts and writes responses in the same place, or, with `apart`, replicas of their own do either. The
time of a pass is the roofline of roofline.py. In the steady state a request, which is one prompt with `samples` responses, takes

    seconds of a replica = prompt x (1 - cached) / prefill rate  +  samples x response x step(batch) / batch / tokens a step

and the replica's throughput is its inverse. The batch is the largest whose cache fits beside the weights and whose time per output token
is within `target_latency`: throughput rises with the batch throughout. A step gives one token of a sequence, or 1 + acceptance with
a multi-token-prediction module (arXiv 2412.19437, section 5.4.3).

Cached keys and values of a prompt are held once for its samples. Whether a step also READS them once is an assumption
(`serve_prompt_reread`): at 0 the cost of memory is that of Kinetics (arXiv 2506.05333).

What is left out: queueing and bursts (a fleet that follows the load of a day is used less), the time of tokenizing and sampling,
images, and weights kept in a wider format than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trilaw.core.errors import RequestError
from trilaw.planner.prices import hourly_price
from trilaw.planner.roofline import PRODUCTS, Ceilings, Pass, roof
from trilaw.planner.serve_cost import Load, Work, read_load, read_work
from trilaw.planner.serve_layout import ServeLayout, candidates, check_layout
from trilaw.planner.serve_search import Point, best_points, linked, why_not
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.hardware import Chip


@dataclass(frozen=True)
class ServePlan:
    """What serving costs. Rates are tokens a second over all chips unless named otherwise; dollars are None without a price.

    `usd_per_million_input` is for a prompt token that is computed, `usd_per_million_output` for a response token; `usd_per_million`
    spreads the whole cost over all tokens, cached ones counted. Energy is that of the IT equipment, without the building.
    """

    model: str
    chip: str
    count: int
    prompt: int
    response: int
    samples: int
    cached: float
    context: float
    layout: ServeLayout
    replicas: int
    decode_replicas: int
    idle_chips: int
    weight_bits: int
    kv_bits: int
    weights_bytes: float  # on a chip
    cache_bytes: float  # of one sequence
    memory_bytes: float  # on a chip, of what may be filled
    batch: float  # sequences of a writing replica
    concurrency: float
    prefill_tokens_per_second: float  # if all chips did nothing else
    decode_tokens_per_second: float  # if all chips did nothing else
    input_tokens_per_second: float  # in the steady state, cached ones counted
    output_tokens_per_second: float
    requests_per_second: float
    seconds_to_first_token: float
    seconds_per_output_token: float
    prefill: Pass
    decode: Pass
    price_per_hour: float | None
    usd_per_million_input: float | None
    usd_per_million_output: float | None
    usd_per_million: float | None
    kwh_per_million_output: float | None
    mfu: float  # model FLOPs of the steady state over the 16-bit peak of all chips
    request_energy_kwh: float | None
    rates: Ceilings = field(repr=False)
    sheet: Sheet = field(repr=False, compare=False)

    @property
    def binds(self) -> str:
        """What a decoding step waits for most: "compute", "memory", "link" or "launch"."""
        return self.decode.binds

    @property
    def request_seconds(self) -> float:
        """From a request's arrival to the last token of its responses, nobody waiting before it."""
        return self.seconds_to_first_token + (self.response - 1) * self.seconds_per_output_token

    @property
    def request_gpu_hours(self) -> float:
        """Of all chips, idle ones counted, for a prompt and its responses."""
        return self.count / self.requests_per_second / 3600

    @property
    def request_usd(self) -> float | None:
        """Dollars of a prompt and its responses; None without a price."""
        return None if self.price_per_hour is None else self.request_gpu_hours * self.price_per_hour

    @property
    def tokens_per_second_per_chip(self) -> float:
        """Input (cached ones counted) and output tokens."""
        return (self.input_tokens_per_second + self.output_tokens_per_second) / self.count

    @property
    def chip_seconds_per_input_token(self) -> float:
        """Of a prompt token that is computed."""
        return self.count / self.prefill_tokens_per_second

    @property
    def chip_seconds_per_output_token(self) -> float:
        return self.count / self.decode_tokens_per_second

    def usd(self, input_tokens: float, output_tokens: float) -> float | None:
        """Dollars for so many computed prompt tokens and response tokens; None without a price."""
        if self.usd_per_million_input is None or self.usd_per_million_output is None:
            return None
        return (input_tokens * self.usd_per_million_input + output_tokens * self.usd_per_million_output) / 1e6

    def to_json(self) -> dict[str, Any]:
        """Every field by name, the layout and the binding limits as words, the sheet as lines and assumptions.

        `seconds`, `gpu_hours`, `usd` and `energy_kwh` are of one request: a prompt with its responses.
        """
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("layout", "prefill", "decode", "rates", "sheet", "request_energy_kwh")
        }
        return plain | {
            "seconds": self.request_seconds,
            "gpu_hours": self.request_gpu_hours,
            "usd": self.request_usd,
            "energy_kwh": self.request_energy_kwh,
            "layout": str(self.layout),
            "prefill_binds": self.prefill.binds,
            "decode_binds": self.decode.binds,
            "tokens_per_second_per_chip": self.tokens_per_second_per_chip,
            "roofline": roof(self.rates, {"prefill": self.prefill, "decode": self.decode}),
            "sheet": self.sheet.to_json(),
        }


def plan_serve(
    numbers: Numbers,
    chip: Chip,
    count: int,
    *,
    prompt: int,
    response: int,
    context: float | None = None,
    samples: int = 1,
    cached: float = 0.0,
    weight_bits: int = 16,
    kv_bits: int = 16,
    target_latency: float | None = None,
    concurrency: float | None = None,
    apart: bool = False,
    layout: ServeLayout | None = None,
    price_per_hour: float | None = None,
    assume: Mapping[str, float] = {},
) -> ServePlan:
    """Serve `numbers` on `count` chips: the layout and the batch with the greatest throughput, or those of the given layout.

    prompt, response: tokens of a prompt and of each of its `samples` responses. context: mean cached tokens that a step attends
    (prompt + response / 2 unless given). cached: share of the prompts' tokens that was read before. target_latency: the most seconds
    per output token. concurrency: sequences in flight on all chips, instead of as many as fit. apart: replicas read prompts or write
    responses, not both. price_per_hour: dollars of a chip, the table's otherwise.

    Raises RequestError for numbers out of range, a model that does not fit (with the smallest count that it fits on), a latency that no
    layout reaches (with the least that one does), or an unknown assumption.
    """
    load = read_load(
        numbers,
        count,
        prompt,
        response,
        context=context,
        samples=samples,
        cached=cached,
        concurrency=concurrency,
        target_latency=target_latency,
        price_per_hour=price_per_hour,
    )
    sheet = Sheet(overrides=assume)
    work = read_work(numbers, chip, weight_bits, kv_bits, sheet)
    if layout is not None:
        check_layout(layout, numbers, count)
    tried = [layout] if layout is not None else list(candidates(numbers, count, work.rates.domain))
    tried = [x for x in tried if linked(x, work.rates)]
    if not tried:
        raise RequestError(
            f"No source gives a link of {chip.name} that reaches {count} chips: name one in a file of your own."
        )
    points = [p for x in tried for p in best_points(work, x, load, count, target_latency, apart)]
    if not points:
        raise RequestError(why_not(work, chip.name, tried, load, count, target_latency, apart, layout is not None))
    best = max(points, key=lambda p: (p.requests, -p.layout.chips))
    return _plan(work, chip, count, load, best, weight_bits, kv_bits, hourly_price(chip, price_per_hour, sheet), sheet)


def _plan(
    work: Work,
    chip: Chip,
    count: int,
    load: Load,
    best: Point,
    weight_bits: int,
    kv_bits: int,
    price_per_hour: float | None,
    sheet: Sheet,
) -> ServePlan:
    """The chosen point as a plan, its arithmetic on the sheet."""
    layout, put = best.layout, sheet.put
    rates, used = work.rates, best.replicas * layout.chips
    weights = put(
        "weights per chip",
        work.weights(layout),
        "B",
        f"weights outside the experts / {layout.tensor} + experts / {layout.expert}",
    )
    cache = put(
        "cache of a sequence",
        work.cache(load),
        "B",
        f"keys and values of {load.context:g} tokens, its share of the prompt, and slack",
    )
    held = weights + max(1.0, best.batch / layout.groups) * cache / work.cache_split(layout)
    put("memory filled per chip", held, "B", f"weights + sequences x cache, of {work.capacity / 1e9:.1f} GB")
    put("weight products", rates.matmul, "FLOP/s", f"{rates.products} peak x assumed share")
    put("attention", rates.attention, "FLOP/s", "16-bit peak x assumed share")
    put("memory bandwidth", rates.memory, "B/s", "peak x assumed share")
    tokens = work.chunk * layout.tensor
    prefill = work.prefill(layout, load, tokens)
    decode = work.decode(layout, load, best.batch)
    for name, p in (("prefill", prefill), ("decode", decode)):
        put(f"{name}: weight products", p.matmul_compute, "s", "FLOPs / weight products")
        put(f"{name}: weights read", p.matmul_memory, "s", "bytes of weights / memory bandwidth")
        put(f"{name}: attention", p.attention_compute, "s", "FLOPs / attention")
        put(f"{name}: cache read", p.attention_memory, "s", "bytes of cache / memory bandwidth")
        put(f"{name}: links", p.tensor_link + p.expert_link, "s", "bytes sent / link")
        put(
            f"{name}: pass",
            p.seconds,
            "s",
            "(products or weights + attention or cache + links - hidden) / balance + launch",
        )
    prefill_rate = put(
        "prefill",
        best.replicas * layout.groups * tokens / prefill.seconds,
        "tokens/s",
        "replicas x tokens of a pass / pass",
    )
    decode_rate = put(
        "decode",
        best.replicas * best.batch * (1 + work.accept) / decode.seconds,
        "tokens/s",
        "replicas x batch x tokens a step / pass",
    )
    requests = put("requests", best.requests, "1/s", "1 / (prompts' seconds + responses' seconds), all replicas")
    usd_in = usd_out = usd = None
    if price_per_hour is not None:
        a_second = price_per_hour * count / 3600
        usd_in = put("input", 1e6 * a_second / prefill_rate, "$/M tokens", "price / prefill")
        usd_out = put("output", 1e6 * a_second / decode_rate, "$/M tokens", "price / decode")
        all_tokens = requests * (load.prompt + load.samples * load.response)
        usd = put("all tokens", 1e6 * a_second / all_tokens, "$/M tokens", "price / (input + output)")
    watts = chip.all_in_watts or chip.watts
    kwh = None
    if watts is not None:
        kwh = put(
            "energy",
            watts.value * count / decode_rate * 1e6 / 3.6e6,
            "kWh/M output tokens",
            f"{watts.value:g} W a chip{'' if chip.all_in_watts else ', its server not counted: no source gives it'}",
        )
    new = load.prompt * (1 - load.cached)
    flops = work.numbers.forward_flops(new, None, 0, cached=load.prompt - new)
    flops += load.samples * load.response * work.numbers.decode_flops(load.context)
    put("request", flops, "FLOP", "prompt's forward pass + samples x response x a decoding step")
    wide = next(kind for kind in PRODUCTS[16] if kind in chip.flops)
    mfu = put("MFU", requests * flops / (count * chip.rate(wide)), "share", f"requests x FLOP / (chips x {wide} peak)")
    idle_first = work.prefill(layout, load, load.prompt * (1 - load.cached))
    return ServePlan(
        model=work.numbers.name,
        chip=chip.name,
        count=count,
        prompt=load.prompt,
        response=load.response,
        samples=load.samples,
        cached=load.cached,
        context=load.context,
        layout=layout,
        replicas=best.replicas,
        decode_replicas=best.decoding,
        idle_chips=count - used,
        weight_bits=weight_bits,
        kv_bits=kv_bits,
        weights_bytes=weights,
        cache_bytes=cache,
        memory_bytes=held,
        batch=best.batch,
        concurrency=best.batch * best.decoding,
        prefill_tokens_per_second=prefill_rate,
        decode_tokens_per_second=decode_rate,
        input_tokens_per_second=requests * load.prompt,
        output_tokens_per_second=requests * load.samples * load.response,
        requests_per_second=requests,
        seconds_to_first_token=put(
            "first token", idle_first.seconds, "s", "one prompt's pass, nobody waiting before it"
        ),
        seconds_per_output_token=put(
            "output token", best.latency, "s", "a step, with the prompts read between steps unless apart"
        ),
        prefill=prefill,
        decode=decode,
        price_per_hour=price_per_hour,
        usd_per_million_input=usd_in,
        usd_per_million_output=usd_out,
        usd_per_million=usd,
        kwh_per_million_output=kwh,
        mfu=mfu,
        rates=rates,
        request_energy_kwh=None if watts is None else watts.value * count / requests / 3.6e6,
        sheet=sheet,
    )
