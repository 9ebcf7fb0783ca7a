"""Quantities as data sheets write them, parsed strictly into SI: "80 GB", "3.35 TB/s", "989.4 TFLOP/s", "700 W", "$2.00/h".

A dimension says which units are its own. A bare number, a unit of another dimension, or a unit misspelled is refused, with the place and the
unit that was expected. Nothing is guessed: GB is 10^9 bytes and GiB is 2^30, Gb/s is 10^9 bits a second, and "TFLOPS" (which may mean an
amount of work or a speed) is no unit. Arithmetic is decimal, so `parse(write(x))` is x to the last bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trilaw.core.errors import RequestError, nearest


@dataclass(frozen=True, slots=True)
class Dimension:
    """A kind of quantity: its name, its SI unit, an example, and the units that it may be written in, each with its size in SI."""

    name: str
    si: str
    example: str
    units: Mapping[str, Decimal]
    written: tuple[str, ...]  # the units that `write` chooses from, ascending
    prefix: str = ""  # what stands before the number: a currency


_PREFIXES = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def _decimal(unit: str, prefixes: str = "kMGTP") -> dict[str, Decimal]:
    return {prefix + unit: Decimal(10) ** _PREFIXES[prefix] for prefix in ("", *prefixes)}


_BYTES = _decimal("B")
_BINARY = {f"{prefix}iB": Decimal(1024) ** power for power, prefix in enumerate("KMGT", start=1)}
_BYTES_S = {f"{unit}/s": size for unit, size in _BYTES.items()}
_BITS_S = {f"{prefix}b/s": Decimal(10) ** _PREFIXES[prefix] / 8 for prefix in "MGT"}
_FLOPS = _decimal("FLOP/s", "kMGTPE")
_OPS = _decimal("OP/s", "kMGTPE")
_WATTS = _decimal("W", "kMG")
_ONE = Decimal(1)

MEMORY = Dimension("an amount of memory", "B", "80 GB", _BYTES | _BINARY, tuple(_BYTES))
BANDWIDTH = Dimension("a bandwidth", "B/s", "3.35 TB/s", _BYTES_S | _BITS_S, tuple(_BYTES_S))
FLOPS = Dimension("a speed of arithmetic", "FLOP/s", "989.4 TFLOP/s", _FLOPS, tuple(_FLOPS))
OPS = Dimension("a speed of whole-number arithmetic", "OP/s", "1979 TOP/s", _OPS, tuple(_OPS))
POWER = Dimension("a power", "W", "700 W", _WATTS, tuple(_WATTS))
AREA = Dimension("an area", "mm2", "814 mm2", {"mm2": _ONE}, ("mm2",))
COUNT = Dimension("a number of chips", "chips", "8 chips", {"chips": _ONE}, ("chips",))
PRICE = Dimension("a price of a chip for an hour", "$/h", "$2.00/h", {"/h": _ONE}, ("/h",), "$")
ENERGY_PRICE = Dimension("a price of electricity", "$/kWh", "$0.07/kWh", {"/kWh": _ONE}, ("/kWh",), "$")

_NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?"
_QUANTITY = re.compile(rf"(?P<number>{_NUMBER}) ?(?P<unit>[A-Za-z/][A-Za-z0-9/]*)?")


def parse(text: Any, dimension: Dimension, where: str) -> float:
    """The quantity in SI units. `where` names the place for the complaint: "mine.toml: 'memory'".

    Raises RequestError for anything that is not a finite number of at least 0 with a unit of `dimension`.
    """
    hint = f'write it as a text such as "{dimension.example}"'
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise RequestError(f"{where} = {text} has no unit: {hint}.")
    if not isinstance(text, str):
        raise RequestError(f"{where} must be {dimension.name}: {hint}.")
    body = text.strip()
    if not body.startswith(dimension.prefix):
        raise RequestError(f"{where} = {text!r} lacks its '{dimension.prefix}': {hint}.")
    match = _QUANTITY.fullmatch(body, len(dimension.prefix))
    if match is None:
        raise RequestError(f"{where} = {text!r} is not {dimension.name}: {hint}.")
    unit = match["unit"]
    if unit is None:
        raise RequestError(f"{where} = {text!r} has no unit: {hint}.")
    if unit not in dimension.units:
        folded = {known.casefold(): known for known in dimension.units}
        near = f" (did you mean '{folded[unit.casefold()]}'?)" if unit.casefold() in folded else ""
        near = near or nearest(unit, dimension.units)
        raise RequestError(f"{where} = {text!r}: '{unit}' is no unit of {dimension.name}{near}; {hint}.")
    value = float(Decimal(match["number"]) * dimension.units[unit])
    if not math.isfinite(value):
        raise RequestError(f"{where} = {text!r} is too large to be {dimension.name}.")
    return value


def write(value: float, dimension: Dimension) -> str:
    """`value` (SI) as a text that `parse` turns into the same number, in the largest unit that leaves at least 1.

    Raises ValueError unless it is finite and at least 0.
    """
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value} is not {dimension.name}.")
    exact = Decimal(repr(float(value)))
    fitting = [unit for unit in dimension.written if exact >= dimension.units[unit]]
    unit = fitting[-1] if fitting else dimension.written[0]
    number = exact / dimension.units[unit]  # a power of ten: exact
    digits = format(number, "f")
    if len(digits) > 30:
        digits = format(number, "E")
    elif "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return f"{dimension.prefix}{digits}{'' if unit.startswith('/') else ' '}{unit}"
