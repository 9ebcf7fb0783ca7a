"""What work cost: FLOPs, seconds, tokens, added up and said in units that people read; energy and money at stated rates.

FLOPs and seconds are measured. Energy is seconds times an assumed draw, money is energy times a price plus rent: both are estimates, and
`Rates.about` says on what they rest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """FLOPs (0 if unknown), wall-clock seconds, tokens produced."""

    flops: float = 0.0
    seconds: float = 0.0
    tokens: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.flops + other.flops, self.seconds + other.seconds, self.tokens + other.tokens)

    @property
    def tokens_per_second(self) -> float:
        """0 when no time has passed."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        parts = [
            f"{count(self.tokens)} tokens",
            f"{duration(self.seconds)}",
            f"{count(self.tokens_per_second)} tokens/s",
        ]
        return ", ".join([*parts, flops(self.flops)] if self.flops else parts)


WATTS_PER_CORE = 10.0  # of the wall socket, a busy core's share of board, memory and power supply; 4 (a server's) to 20 (a desktop's)
WATTS_PER_ACCELERATOR = (
    500.0  # a data-centre GPU at work with its share of the host; 300 (PCIe cards) to 1,300 (H100 SXM, all in)
)
USD_PER_KWH = 0.15  # household electricity; 0.06 (industrial) to 0.35


@dataclass(frozen=True, slots=True)
class Rates:
    """Watts while work is done, US dollars a kWh and US dollars of rent an hour; `about` names what is assumed."""

    watts: float
    usd_per_kwh: float = USD_PER_KWH
    usd_per_hour: float = 0.0
    about: str = ""

    def joules(self, seconds: float) -> float:
        return self.watts * seconds

    def usd(self, seconds: float) -> float:
        """Electricity at the socket and rent. With rent the electricity is the landlord's, so it is not counted twice."""
        if self.usd_per_hour > 0:
            return self.usd_per_hour * seconds / 3600.0
        return self.joules(seconds) / 3.6e6 * self.usd_per_kwh


def rates(
    *,
    cores: int | None,
    accelerators: int = 0,
    watts: float | None = None,
    usd_per_kwh: float | None = None,
    usd_per_hour: float | None = None,
) -> Rates:
    """The rates of a machine: what is given, and assumptions for the rest."""
    said = []
    if watts is None:
        watts = (cores or 1) * WATTS_PER_CORE + accelerators * WATTS_PER_ACCELERATOR
        parts = [f"{WATTS_PER_CORE:g} W for each of {cores or 1} cores"]
        parts += [f"{WATTS_PER_ACCELERATOR:g} W for each of {accelerators} accelerators"] if accelerators else []
        said.append(f"energy assumes {' and '.join(parts)} while work is done")
    else:
        said.append(f"energy takes {watts:g} W as given")
    price = USD_PER_KWH if usd_per_kwh is None else usd_per_kwh
    if usd_per_hour:
        said.append(f"money is rent, {usd_per_hour:g} $ an hour")
    else:
        said.append(f"money is electricity at {price:g} $ a kWh{'' if usd_per_kwh is not None else ', assumed'}")
    return Rates(watts, price, usd_per_hour or 0.0, "; ".join(said))


def energy(joules: float) -> str:
    """7,200 as "2.0 Wh"; units Wh, kWh, MWh."""
    wh = joules / 3600.0
    for unit, size in (("MWh", 1e6), ("kWh", 1e3)):
        if wh >= size * 0.99995:
            return f"{wh / size:.1f} {unit}"
    return f"{wh:.1f} Wh" if wh >= 0.05 or wh == 0 else f"{wh:.1e} Wh"


def money(usd: float) -> str:
    """Dollars with the digits that matter: "$1,234", "$12.30", "$0.0012"."""
    if usd >= 1000:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if usd >= 0.995 or usd == 0 else f"${usd:.2g}"


def count(number: float) -> str:
    """12345 as "12.3k"; units k, M, B, T. Numbers below 1000 keep at most three digits."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,950 is closer to 1.0M than to 1000.0k.
        if abs(number) >= size * 0.99995:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}" if float(number).is_integer() or abs(number) >= 100 else f"{number:.3g}"


def flops(number: float) -> str:
    """1.2e15 as "1.2e15 FLOPs"."""
    if number == 0:
        return "0 FLOPs"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def duration(seconds: float) -> str:
    """200 as "3 min 20 s"; the two largest units of day, h, min, s, and one decimal below ten seconds."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    if rest < 60:
        return f"{rest} s"
    if rest < 3600:
        return f"{rest // 60} min {rest % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
