"""Published figures of datacentres and fleets (anchors.toml), each with its definition, date and source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from trilaw.core.errors import RequestError, nearest


@dataclass(frozen=True, slots=True)
class Anchor:
    """What somebody published. `definition` says what the number includes; without it powers and costs cannot be compared."""

    name: str
    who: str
    what: str
    value: float
    unit: str
    definition: str
    date: str
    source: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


@lru_cache(maxsize=1)
def anchors() -> Mapping[str, Anchor]:
    """All of anchors.toml, by name."""
    text = resources.files("trilaw.planner").joinpath("anchors.toml").read_text(encoding="utf-8")
    return {name: Anchor(name=name, **row) for name, row in tomllib.loads(text).items()}


def anchor(name: str) -> Anchor:
    """One of them. Raises RequestError with the nearest name."""
    known = anchors()
    if name not in known:
        raise RequestError(f"'{name}' is no published figure of the planner{nearest(name, known)}.")
    return known[name]
