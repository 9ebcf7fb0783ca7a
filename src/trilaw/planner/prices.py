"""What an hour of a chip costs, and a kWh: as somebody asked or assumed it on a date, never as we guess it.

The tables are prices/*.toml; a user's own file has the form of prices/rent.toml. A chip that no source prices raises RequestError that asks for
--price. A price is of one chip for one hour, in dollars; it says nothing of egress, storage or support.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.hardware import Chip, Sourced, key
from trilaw.planner.sourced import Table, read_file, read_text
from trilaw.planner.units import ENERGY_PRICE, PRICE, parse

if TYPE_CHECKING:
    from trilaw.planner.sheet import Sheet


MOST = 1e6  # dollars of one chip for an hour that nobody ever asked


@dataclass(frozen=True, slots=True)
class Price:
    """What `provider` asks for an hour of `chip`, $/h; the one with `default` is taken where no provider is named."""

    chip: str
    provider: str
    usd_per_hour: Sourced
    default: bool = False


def read_prices(table: Table) -> tuple[Price, ...]:
    """The prices in a data file. Raises RequestError for an unknown key, a missing one, a wrong unit, or an entry given twice."""
    table.take_origin()
    found: list[Price] = []
    for entry in table.tables("price"):
        chip, provider = entry.text("chip"), entry.text("provider")
        usd_per_hour = entry.quantity("price", PRICE, positive=False)
        if usd_per_hour is None:
            raise RequestError(f'{entry.where("price")} is missing: write it as a text such as "{PRICE.example}".')
        found.append(Price(chip, provider, usd_per_hour, entry.flag("default", False)))
        entry.end()
        if any(key(p.chip) == key(chip) and p.provider == provider for p in found[:-1]):
            raise RequestError(f"{entry.where('provider')}: '{provider}' has two prices for {chip}, keep one.")
    table.end()
    return tuple(found)


def load_file(path: Path | str) -> tuple[Price, ...]:
    """A user's own prices. Raises RequestError for a file that cannot be read, has no price, or does not hold (see `read_prices`)."""
    found = read_prices(read_file(path))
    if not found:
        raise RequestError(f"{path} has no [[price]] table.")
    return found


def _shipped(name: str) -> Table:
    text = resources.files("trilaw.planner").joinpath("prices", name).read_text(encoding="utf-8")
    return read_text(text, f"prices/{name}")


@lru_cache(maxsize=1)
def prices() -> tuple[Price, ...]:
    """Every price of the table."""
    return read_prices(_shipped("rent.toml"))


def of_chip(chip: Chip) -> tuple[Price, ...]:
    """What the table knows of a chip, the default first; empty where no source prices it."""
    names = {key(name) for name in (chip.name, *chip.aliases)}
    return tuple(sorted((p for p in prices() if key(p.chip) in names), key=lambda p: (not p.default, p.provider)))


def price(chip: Chip, provider: str | None = None, *, own: tuple[Price, ...] = ()) -> Sourced:
    """$/h of one chip from a provider, or the default where none is named.

    `own` are the user's prices (`load_file`); for a chip that they price they replace the table's.
    Raises RequestError where no source prices the chip, for an unknown provider, and where several of `own` fit and none is the default.
    """
    names = {key(name) for name in (chip.name, *chip.aliases)}
    for table in (own, prices()):
        entries = [entry for entry in table if key(entry.chip) in names]
        if entries:
            return _choose(chip, provider, entries)
    raise RequestError(f"No source prices an hour of {chip.name}: give a price, for example --price 2.")


def _choose(chip: Chip, provider: str | None, entries: list[Price]) -> Sourced:
    if provider is not None:
        fitting = [entry for entry in entries if entry.provider.casefold() == provider.casefold()]
        if not fitting:
            near = nearest(provider.casefold(), [entry.provider for entry in entries])
            raise RequestError(f"'{provider}' has no price for {chip.name}{near}.")
    elif len(entries) == 1:
        fitting = entries
    else:
        fitting = [entry for entry in entries if entry.default]
    if len(fitting) != 1:
        known = ", ".join(sorted(entry.provider for entry in entries))
        raise RequestError(f"The prices for {chip.name} name no single default: name a provider (known: {known}).")
    return fitting[0].usd_per_hour


def hourly_price(chip: Chip, given: float | None, sheet: Sheet) -> float | None:
    """Dollars of a chip for an hour: the caller's, else the table's, else None. Raises RequestError for one that is not positive."""
    if given is not None:
        if not (math.isfinite(given) and given > 0):
            raise RequestError(f"price_per_hour is {given:g}, it must be a positive number of dollars.")
        if given > MOST:
            raise RequestError(f"price_per_hour is {given:g} dollars for one chip: is the unit right?")
        return sheet.put("price", given, "$/chip-hour", "given by you")
    try:
        found = price(chip)
    except RequestError:
        return None
    return sheet.put(
        "price", found.value, "$/chip-hour", f"rent, {found.low:g} to {found.high:g}", f"{found.source}, {found.date}"
    )


def given(text: str, where: str = "--price") -> Sourced:
    """A price that the user typed: "$2.00/h". Raises RequestError for anything else."""
    return Sourced(parse(text, PRICE, where), PRICE.si, "given by you", "")


def electricity(text: str | None = None, where: str = "--electricity") -> Sourced:
    """$/kWh: what the user typed ("$0.12/kWh"), else the table's assumption. Raises RequestError for a text that is no such price."""
    if text is not None:
        return Sourced(parse(text, ENERGY_PRICE, where), ENERGY_PRICE.si, "given by you", "")
    found = _shipped("electricity.toml").quantity("electricity", ENERGY_PRICE)
    assert found is not None  # our own file
    return found
