"""What work cost: FLOPs, seconds, tokens, added up and said in units that people read."""

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
