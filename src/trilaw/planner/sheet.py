"""How the planner shows its work: every number it derives is a line with its formula, every number it assumes has a name and a source.

A `Sheet` collects lines while a plan is computed; `--explain` prints them. An `Assumption` is a number that is not derived: it has
a range, a source, and can be overridden by name. The defaults stand in one table, assumptions.toml.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from trilaw.core.errors import RequestError, nearest

BEYOND = 1000.0  # an override so many times outside of what was seen is a slip of a unit


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that is not derived. `low` and `high` bound what was seen in practice; `source` says where, and on what it was calibrated."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    source: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One step of the arithmetic: `name` = `formula` = `value` `unit`."""

    name: str
    value: float
    unit: str
    formula: str
    source: str = ""


@dataclass
class Sheet:
    """The arithmetic of one plan, in order, and the assumptions that it used."""

    lines: list[Line] = field(default_factory=list)
    used: dict[str, Assumption] = field(default_factory=dict)
    overrides: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises RequestError for an override that is no assumption, no finite number of at least 0, or absurd."""
        known = assumptions()
        for name, value in self.overrides.items():
            if name not in known:
                raise RequestError(f"'{name}' is no assumption of the planner{nearest(name, known)}.")
            if not math.isfinite(value) or value < 0:
                raise RequestError(f"The assumption '{name}' is {value:g}, it must be a finite number of at least 0.")
            default = known[name]
            if value > BEYOND * default.high or 0 < value < default.low / BEYOND:
                raise RequestError(
                    f"The assumption '{name}' is {value:g} {default.unit}, a thousand times beyond what was ever seen"
                    f" ({default.low:g} to {default.high:g}): is the unit right?"
                )

    def put(self, name: str, value: float, unit: str, formula: str, source: str = "") -> float:
        """Record a derived number and give it back."""
        self.lines.append(Line(name, float(value), unit, formula, source))
        return float(value)

    def assume(self, name: str) -> float:
        """The value of an assumption: the caller's, else the default; recorded as used."""
        default = assumptions()[name]
        if name in self.overrides:
            value = float(self.overrides[name])
            chosen = Assumption(name, value, value, value, default.unit, "given by you", default.about)
        else:
            chosen = default
        self.used[name] = chosen
        return chosen.value

    def to_json(self) -> dict[str, Any]:
        """`lines` and `assumptions`, as lists of plain objects."""
        return {
            "lines": [
                {"name": x.name, "value": x.value, "unit": x.unit, "formula": x.formula, "source": x.source}
                for x in self.lines
            ],
            "assumptions": [
                {
                    "name": a.name,
                    "value": a.value,
                    "low": a.low,
                    "high": a.high,
                    "unit": a.unit,
                    "source": a.source,
                    "about": a.about,
                }
                for a in self.used.values()
            ],
        }


@lru_cache(maxsize=1)
def assumptions() -> Mapping[str, Assumption]:
    """The default table, by name."""
    text = resources.files("trilaw.planner").joinpath("assumptions.toml").read_text(encoding="utf-8")
    return {name: Assumption(name=name, **row) for name, row in tomllib.loads(text).items()}
