"""A datacentre from its money or its power: chips, tokens, answers and trainings, beside what others published.

    IT power = capex / (capex per GW) = GW / ratios of the definition      chips = IT power / all-in IT power of a chip

Three definitions of a gigawatt are in use and differ by half: "IT" (servers and network), "facility" (with cooling and conversion), "utility"
(what the grid connection is good for). Every figure here carries one. The published figures are in anchors.toml; none of them
is fitted to.

`check_claim` refuses claims that physics does: 50,000 racks of 72 GPUs in a building of 150 MW leave 42 W to a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.anchors import Anchor, anchor, anchors
from trilaw.planner.hardware import chip as find_chip
from trilaw.planner.models import model as find_model
from trilaw.planner.roofline import share
from trilaw.planner.serve import ServePlan, plan_serve
from trilaw.planner.serve_cost import read_load
from trilaw.planner.sheet import Sheet

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers

Definition = Literal["IT", "facility", "utility"]
DEFINITIONS = ("IT", "facility", "utility")
YEAR, DAY = 8760.0, 86_400.0  # hours, seconds
LARGEST = 1e15  # dollars, or watts, beyond which a budget is a slip of the pen
THINKING = 8_793  # tokens of an R1 answer to a 2024 mathematics contest, mean (arXiv 2501.12948v2, section E.4)


@dataclass(frozen=True)
class DatacentrePlan:
    """A datacentre. Powers by definition in watts, dollars, seconds; `..._per_day` is of the whole, at the assumed use.

    `v3_hours`: hours in which it would repeat DeepSeek-V3's pre-training if one run could fill it (no run of 3.7e24 FLOPs does: batches
    are too small; read it as a share of the datacentre's day). `r1` is R1's training from V3's base. `frontier_days`: days to 1e26 FLOPs.
    """

    chip: str
    definition: str
    chips: float
    capex: float
    watts: Mapping[str, float]
    watts_per_chip: Mapping[str, float]
    capex_per_gw: Mapping[str, float]
    usd_per_chip: float
    usd_per_chip_hour: float
    flops: float  # dense 16-bit peak of all chips
    v3_hours: float
    v3_per_day: float
    r1_hours: float
    r1_per_day: float
    frontier_days: float
    frontier_per_year: float
    output_tokens_per_day: float
    answers_per_day: float
    usd_per_million_output: float
    serve: ServePlan
    published: tuple[Anchor, ...]
    sheet: Sheet = field(repr=False, compare=False)

    @property
    def gw(self) -> float:
        """Gigawatts in the definition that was asked for."""
        return self.watts[self.definition] / 1e9

    def to_json(self) -> dict[str, Any]:
        """Every field by name; published figures and the serving plan as objects."""
        skipped = ("serve", "published", "sheet", "watts", "watts_per_chip", "capex_per_gw")
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in skipped}
        return plain | {
            "gw": self.gw,
            "watts": dict(self.watts),
            "watts_per_chip": dict(self.watts_per_chip),
            "capex_per_gw": dict(self.capex_per_gw),
            "serve": self.serve.to_json(),
            "published": [x.to_json() for x in self.published],
            "sheet": self.sheet.to_json(),
        }


def plan_datacentre(
    *,
    capex: float | None = None,
    gw: float | None = None,
    chip: str = "gb200",
    definition: Definition = "IT",
    numbers: Numbers | None = None,
    prompt: int = 200,
    response: int = THINKING,
    target_latency: float = 0.05,
    assume: Mapping[str, float] = {},
) -> DatacentrePlan:
    """A datacentre of `capex` dollars, or of `gw` gigawatts in `definition`.

    Answers are of `numbers` (DeepSeek-R1 unless given) with 8-bit weights, at most `target_latency` seconds a token, on the
    fewest whole domains of the chip's fast link that hold it.
    Raises RequestError unless exactly one of capex and gw is given, for a budget that is not positive or absurd, an unknown chip,
    definition or assumption, and for a chip whose all-in power no source gives.
    """
    if (capex is None) == (gw is None):
        raise RequestError("Give either the money (capex) or the power (gw) of the datacentre, and not both.")
    sheet = Sheet(overrides=assume)
    put, part = sheet.put, find_chip(chip)
    ratio = _ratios(definition, sheet)
    per_gw = sheet.assume("datacentre_capex_per_gw")
    if capex is not None:
        _budget("capex", capex, LARGEST, "dollars")
        it = put("IT power", capex / per_gw * 1e9, "W", "capex / capex per GW of IT power")
    else:
        assert gw is not None
        _budget("gw", gw, LARGEST / 1e9, "gigawatts")
        it = put("IT power", gw * 1e9 / ratio[definition], "W", f"{definition} power / {ratio[definition]:.4g}")
        capex = put("capex", it / 1e9 * per_gw, "$", "IT power x capex per GW of IT power")
    watts = {name: put(f"{name} power", it * x, "W", f"IT power x {x:.4g}") for name, x in ratio.items()}
    each = part.need("all_in_watts")
    source = part.all_in_watts.source if part.all_in_watts is not None else ""
    chips = put("chips", math.floor(it / each), "chips", f"IT power / {each:g} W of a chip with its server", source)
    if chips < 1:
        raise RequestError(
            f"{it:g} W of IT power do not run a single {part.name}, which takes {each:g} W with its server."
        )
    use = share(sheet, "datacentre_use")
    tco = it / 1e9 * sheet.assume("datacentre_tco_per_gw_year")
    hour = put("chip hour", tco / (chips * YEAR * use), "$/h", "cost of ownership a year / (chips x 8,760 h x use)")

    peak = put("peak", chips * part.rate("bf16"), "FLOP/s", "chips x dense 16-bit peak")
    rate = peak * share(sheet, "datacentre_mfu") * use
    v3_flops = anchor("v3_tokens").value * anchor("v3_flops_per_token").value
    v3 = put("V3's pre-training", v3_flops / rate / 3600, "h", f"{v3_flops:.3g} FLOP / (peak x MFU x use)")
    old = find_chip("h800")
    r1 = put(
        "R1 from V3's base",
        anchor("r1_gpu_hours").value * old.rate("bf16") / (peak * use),
        "h",
        "147K H800 hours x H800's peak / (peak x use): the same share of the peak",
    )
    frontier = anchor("frontier_training").value
    days = put("1e26 FLOP", frontier / rate / DAY, "days", "1e26 FLOP / (peak x MFU x use)")

    model = numbers if numbers is not None else find_model("deepseek-r1")
    read_load(
        model, 1, prompt, response, target_latency=target_latency
    )  # what is out of range is so on any number of chips
    serve = _serve(model, part.name, int(chips), prompt, response, target_latency, hour, assume)
    tokens = put(
        "output tokens",
        serve.output_tokens_per_second / serve.count * chips * DAY * use,
        "tokens/day",
        "plan of serving x chips x use",
    )
    answers = put("answers", tokens / response, "answers/day", f"output tokens / {response:,}")
    published = tuple(x for x in anchors().values() if x.unit in ("$/GW", "$/GW/year", "W"))
    return DatacentrePlan(
        chip=part.name,
        definition=definition,
        chips=chips,
        capex=capex,
        watts=watts,
        watts_per_chip={name: w / chips for name, w in watts.items()},
        capex_per_gw={name: per_gw / x for name, x in ratio.items()},
        usd_per_chip=capex / chips,
        usd_per_chip_hour=hour,
        flops=peak,
        v3_hours=v3,
        v3_per_day=24 / v3,
        r1_hours=r1,
        r1_per_day=24 / r1,
        frontier_days=days,
        frontier_per_year=YEAR / 24 / days,
        output_tokens_per_day=tokens,
        answers_per_day=answers,
        usd_per_million_output=1e6 * hour * chips * 24 * use / tokens,
        serve=serve,
        published=published,
        sheet=sheet,
    )


def _serve(
    numbers: Numbers,
    chip: str,
    most: int,
    prompt: int,
    response: int,
    latency: float,
    hour: float,
    assume: Mapping[str, float],
) -> ServePlan:
    """Serving on the fewest whole domains that hold the model."""
    part = find_chip(chip)
    domain = int(part.scale_up_size.value)
    count, told = domain, ""
    while count <= max(domain, most):
        try:
            return plan_serve(
                numbers,
                part,
                count,
                prompt=prompt,
                response=response,
                weight_bits=8,
                target_latency=latency,
                price_per_hour=hour,
                assume=assume,
            )
        except RequestError as error:
            told = str(error)
            count *= 2
            if count > 64 * domain:
                break
    raise RequestError(f"No number of {chip} tried serves {numbers.name}; the last said: {told}")


def _ratios(definition: str, sheet: Sheet) -> dict[str, float]:
    """Power by each definition over IT power."""
    if definition not in DEFINITIONS:
        raise RequestError(
            f"'{definition}' is no definition of a datacentre's power{nearest(definition, DEFINITIONS)}."
        )
    facility = sheet.assume("datacentre_facility_over_it")
    utility = sheet.assume("datacentre_utility_over_facility")
    for name, number in (("datacentre_facility_over_it", facility), ("datacentre_utility_over_facility", utility)):
        if number < 1:
            raise RequestError(
                f"The assumption '{name}' is {number:g}, it cannot be below 1: the larger power contains the smaller."
            )
    return {"IT": 1.0, "facility": facility, "utility": facility * utility}


def _budget(name: str, value: float, most: float, unit: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise RequestError(f"{name} is {value:g} {unit}, it must be a positive number.")
    if value > most:
        raise RequestError(f"{name} is {value:.3g} {unit}, more than the world has: is the unit right?")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim about chips and power, judged. verdict: "impossible", "short of power", "plausible" or "power to spare"."""

    verdict: str
    gpus: float
    watts_per_gpu: float  # of the claimed power
    needed_watts_per_gpu: float  # in the claim's definition
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def check_claim(
    *,
    power: float,
    racks: float | None = None,
    gpus: float | None = None,
    gpus_per_rack: int = 72,
    chip: str = "gb200",
    definition: Definition = "facility",
    assume: Mapping[str, float] = {},
) -> Claim:
    """Whether `power` watts (of `definition`) run `gpus` chips, or `racks` racks of them.

    Impossible: less power a chip than the chip alone draws at its limit, halved (chips can be capped, but not run on nothing). Short: less than
    it draws with its server. To spare: over three times that.
    Raises RequestError unless exactly one of racks and gpus is given, or for a number that is not positive.
    """
    if (racks is None) == (gpus is None):
        raise RequestError("Give either racks or gpus of the claim, and not both.")
    _budget("power", power, LARGEST, "watts")
    _budget("racks" if racks is not None else "gpus", racks if racks is not None else gpus or 0.0, LARGEST, "of them")
    part = find_chip(chip)
    ratio = _ratios(definition, Sheet(overrides=assume))[definition]
    total = racks * gpus_per_rack if racks is not None else float(gpus or 0)
    each, needed = power / total, part.need("all_in_watts") * ratio
    if each < part.need("watts") * ratio / 2:
        verdict = "impossible"
    elif each < needed * 0.95:
        verdict = "short of power"
    else:
        verdict = "plausible" if each <= 3 * needed else "power to spare"
    what = f"{racks:,.0f} racks of {gpus_per_rack} ({total:,.0f} GPUs)" if racks is not None else f"{total:,.0f} GPUs"
    sentence = (
        f"{what} in {power / 1e6:,.0f} MW have {_watts(each)} each; a {part.name} takes {_watts(needed)} with its server "
        f"({definition} power): {verdict}."
    )
    if racks is not None and verdict == "impossible":
        single = power / racks
        if single >= part.need("watts") * ratio / 2:
            sentence += f" Were {racks:,.0f} the number of GPUs, each would have {_watts(single)}."
    return Claim(verdict, total, each, needed, sentence)


def _watts(value: float) -> str:
    return f"{value / 1000:.1f} kW" if value >= 1000 else f"{value:.0f} W"
