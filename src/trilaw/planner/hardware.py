"""Chips: what one of them computes, holds and moves, and how many stand together; each number with its source.

The table is hardware/*.toml, one chip a file; a user's own chip is a file of the same form. Speeds are dense (without sparsity). All
bandwidths between chips are of ONE direction and per chip: a data sheet's "900 GB/s NVLink" counts both and is 450 here. `scale_up` is the link
inside a domain of chips that reach each other at that speed (NVLink, Infinity Fabric, HCCS; PCIe where there is no other), `scale_out` the
network adapter of the chip. A number that no source gives is absent, and whoever needs it is told so (`Chip.need`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.sourced import Sourced as Sourced  # the planner's rooms take the noun from here
from trilaw.planner.sourced import Table, read_file, read_text
from trilaw.planner.units import AREA, BANDWIDTH, COUNT, FLOPS, MEMORY, OPS, POWER, Dimension

# Formats of a multiplication: bits of an operand (which is what export rules multiply with), and the unit of their speed.
BITS: Mapping[str, int] = MappingProxyType(
    {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
)
_SPEED = {name: OPS if name.startswith("int") else FLOPS for name in BITS}

# Field of Chip -> key of the file, its dimension. The first two must be there.
QUANTITIES: Mapping[str, tuple[str, Dimension]] = MappingProxyType(
    {
        "memory_bytes": ("memory", MEMORY),
        "memory_bandwidth": ("memory_bandwidth", BANDWIDTH),
        "node_size": ("node_size", COUNT),
        "scale_up_size": ("scale_up_size", COUNT),
        "scale_up_bandwidth": ("scale_up_bandwidth", BANDWIDTH),
        "scale_up_effective": ("scale_up_effective", BANDWIDTH),
        "scale_out_bandwidth": ("scale_out_bandwidth", BANDWIDTH),
        "scale_out_effective": ("scale_out_effective", BANDWIDTH),
        "watts": ("watts", POWER),
        "all_in_watts": ("all_in_watts", POWER),
        "die_mm2": ("die", AREA),
    }
)
_REQUIRED = ("memory_bytes", "memory_bandwidth")
_SHARED_COUNTS = ("node_size", "scale_up_size")
# SI, a thousand times and more what a chip of today has: beyond is a slip of a unit
MOST: Mapping[str, float] = MappingProxyType(
    {MEMORY.si: 1e15, BANDWIDTH.si: 1e17, FLOPS.si: 1e20, OPS.si: 1e20, POWER.si: 1e7, AREA.si: 1e7, COUNT.si: 1e6}
)


@dataclass(frozen=True)
class Chip:
    """A chip and its place in a cluster. Bytes, bytes a second, FLOP/s (OP/s for int formats), watts, mm2; see the file's head."""

    name: str
    kind: Literal["gpu", "cpu"]
    flops: Mapping[str, Sourced]  # by format, see BITS; dense
    memory_bytes: Sourced
    memory_bandwidth: Sourced
    node_size: Sourced  # chips in one server
    scale_up_size: Sourced  # chips in one domain of the fast link
    scale_up_bandwidth: Sourced | None = None
    scale_up_effective: Sourced | None = None  # what was measured of it
    scale_out_bandwidth: Sourced | None = None
    scale_out_effective: Sourced | None = None
    watts: Sourced | None = None  # the chip at its limit
    all_in_watts: Sourced | None = None  # its share of the server or rack: IT power, without the building's cooling
    die_mm2: Sourced | None = None  # logic dies
    maker: str = ""
    released: str = ""
    data_centre: bool = True  # designed or marketed for data centres, as export rules ask
    aliases: tuple[str, ...] = ()
    note: str = ""

    def rate(self, format: str) -> float:
        """Dense FLOP/s (OP/s) in a format. Raises RequestError for one that the chip's table does not have."""
        if format not in self.flops:
            raise RequestError(f"The table of {self.name} has no speed in '{format}'{nearest(format, self.flops)}.")
        return self.flops[format].value

    def need(self, field: str) -> float:
        """The value of a field that may be absent. Raises RequestError that asks for it."""
        found = getattr(self, field)
        if found is None:
            key, dimension = QUANTITIES[field]
            raise RequestError(
                f"No source gives '{key}' of {self.name}: copy its table to a file of your own and add it,"
                f' for example {key} = "{dimension.example}".'
            )
        return float(found.value)

    def to_json(self) -> dict[str, Any]:
        """Every field by name; quantities as `Sourced.to_json`, absent ones as None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in QUANTITIES and f.name != "flops"}
        plain["aliases"] = list(self.aliases)
        quantities = {name: getattr(self, name) for name in QUANTITIES}
        return (
            plain
            | {"flops": {name: speed.to_json() for name, speed in self.flops.items()}}
            | {name: None if found is None else found.to_json() for name, found in quantities.items()}
        )


def read_chip(table: Table) -> Chip:
    """The chip in a data file. Raises RequestError for an unknown key, a missing one, or a quantity without its unit."""
    table.take_origin()
    name, kind = table.text("name"), table.choice("kind", ("gpu", "cpu"))
    speeds = table.table("flops")
    if speeds is None:
        raise RequestError(f'{table.where("flops")} is missing: a table of speeds, for example bf16 = "989.4 TFLOP/s".')
    flops = {
        format: _plausible(speeds.where(format), speed)
        for format in BITS
        if (speed := speeds.quantity(format, _SPEED[format])) is not None
    }
    speeds.end()
    if not flops:
        raise RequestError(f"{table.where('flops')} is empty (known formats: {', '.join(BITS)}).")
    found: dict[str, Sourced | None] = {}
    date = ""  # of the memory, which comes first
    for field, (key, dimension) in QUANTITIES.items():
        value = table.quantity(key, dimension)
        if value is None and field in _REQUIRED:
            raise RequestError(f'{table.where(key)} is missing: write it as a text such as "{dimension.example}".')
        if value is None and field in _SHARED_COUNTS:
            value = Sourced(1.0, COUNT.si, "left out of the file: one chip, alone", date)
        if value is not None and dimension is COUNT and value.value != int(value.value):
            raise RequestError(f"{table.where(key)} must be a whole number of chips.")
        date = date or (value.date if value is not None else "")
        found[field] = None if value is None else _plausible(table.where(key), value)
    result = Chip(
        name=name,
        kind=cast(Literal["gpu", "cpu"], kind),
        flops=MappingProxyType(flops),
        maker=table.text("maker", ""),
        released=table.day("released", ""),
        data_centre=table.flag("data_centre", True),
        aliases=table.texts("aliases"),
        note=table.text("note", ""),
        **cast(dict[str, Any], found),
    )
    table.end()
    return result


def _plausible(where: str, found: Sourced) -> Sourced:
    """The quantity; RequestError for more of it than any chip has."""
    if found.value > MOST[found.unit]:
        raise RequestError(f"{where} is {found.value:g} {found.unit}, more than any chip has: is the unit right?")
    return found


def load_file(path: Path | str) -> Chip:
    """A user's own chip. Raises RequestError for a file that cannot be read or does not hold (see `read_chip`)."""
    return read_chip(read_file(path))


@lru_cache(maxsize=1)
def _files() -> Mapping[str, str]:
    """The texts of the table's files."""
    folder = resources.files("trilaw.planner").joinpath("hardware")
    entries = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return {f"hardware/{entry.name}": entry.read_text(encoding="utf-8") for entry in entries}


@cache
def _shipped(file: str) -> Chip:
    return read_chip(read_text(_files()[file], file))


@lru_cache(maxsize=1)
def chips() -> tuple[Chip, ...]:
    """The chips of the table, by name."""
    return tuple(sorted((_shipped(file) for file in _files()), key=lambda chip: chip.name.casefold()))


def key(name: str) -> str:
    """What two spellings of one chip share: "H100 SXM", "h100-sxm" and "H100_SXM" are the same."""
    return "".join(c for c in name.casefold() if c.isalnum())


def chip(name: str) -> Chip:
    """The chip of that name or alias, whatever its case and hyphens; a name that ends in .toml is a file of the user's own.

    Raises RequestError with the nearest names.
    """
    if name.endswith(".toml"):
        return load_file(name)
    wanted = key(name)
    for file, text in _files().items():
        if wanted in key(
            text.partition("\nkind")[0]
        ):  # names stand first: only files that hold this one are read whole
            candidate = _shipped(file)
            if wanted in {key(known) for known in (candidate.name, *candidate.aliases)}:
                return candidate
    folded = {known.casefold(): known for candidate in chips() for known in (candidate.name, *candidate.aliases)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    known = ", ".join(candidate.name for candidate in chips())
    near = f"did you mean '{folded[close[0]]}'?" if close else f"known: {known}"
    raise RequestError(f"There is no chip '{name}' ({near}); a file of your own is named by its path, ending in .toml.")
