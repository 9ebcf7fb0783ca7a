"""A number with its source, and the strict reading of the planner's data files.

A data file is TOML. `source` and `date` at its top speak for every quantity in it that names none of its own. A quantity is a text with a
unit, or a table: {value, source, date, low, high, note, others}, where `others` are what conflicting sources say. A key that is
not known, or known but of the wrong kind, is refused in one sentence that names the file and the key.
(`core.config` does the same for recipes; it brings pydantic, whose import alone takes longer than the planner may.)
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.units import Dimension, parse


@dataclass(frozen=True, slots=True)
class Sourced:
    """A number in SI units, who says so, and when. `low` and `high` bound it and what `others`, the conflicting sources, say."""

    value: float
    unit: str
    source: str
    date: str  # "2026-03-18", or only the month or the year where no more is known
    others: tuple[Sourced, ...] = ()
    low: float = math.nan  # left out: the least of value and others
    high: float = math.nan
    note: str = ""

    def __post_init__(self) -> None:
        """Fills in the bounds."""
        said = [self.value, *(other.value for other in self.others)]
        if math.isnan(self.low):
            object.__setattr__(self, "low", min(said))
        if math.isnan(self.high):
            object.__setattr__(self, "high", max(said))

    def to_json(self) -> dict[str, Any]:
        """Every field by name; `others` as a list of the same."""
        return {
            "value": self.value,
            "unit": self.unit,
            "low": self.low,
            "high": self.high,
            "source": self.source,
            "date": self.date,
            "note": self.note,
            "others": [other.to_json() for other in self.others],
        }


_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}")


class Table:
    """One table of a data file. Each key is taken once; `end` refuses what was never asked for."""

    def __init__(self, data: Mapping[str, Any], file: str, path: str = "", source: str = "", date: str = "") -> None:
        self._data = dict(data)
        self._known: list[str] = []
        self._file, self._path = file, path
        self._source, self._date = source, date

    def where(self, key: str) -> str:
        """ "mine.toml: 'flops.bf16'": the place of a key, for complaints."""
        return f"{self._file}: '{self._path}{key}'"

    def _take(self, key: str, kind: type, words: str) -> Any:
        """The value of a key of the given kind; None where it is missing."""
        self._known.append(key)
        value = self._data.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
            raise RequestError(f"{self.where(key)} must be {words}.")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text that is not empty; without a default it must be there."""
        value = self._take(key, str, "a text")
        if value is None:
            if default is None:
                raise RequestError(f"{self._file}: the key '{self._path}{key}' is missing.")
            return default
        if not value.strip():
            raise RequestError(f"{self.where(key)} is empty.")
        return str(value)

    def choice(self, key: str, options: tuple[str, ...]) -> str:
        """A text out of `options`."""
        value = self.text(key)
        if value not in options:
            raise RequestError(f"{self.where(key)} = {value!r} is unknown{nearest(value, options)}.")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._take(key, bool, "true or false")
        return default if value is None else bool(value)

    def number(self, key: str) -> float | None:
        """A bare number of at least 0 (a threshold of a rule that has no unit), or None."""
        self._known.append(key)
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise RequestError(f"{self.where(key)} must be a number of at least 0.")
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where it is missing."""
        values = self._take(key, list, "a list of texts") or []
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise RequestError(f"{self.where(key)} must be a list of texts.")
        return tuple(values)

    def day(self, key: str, default: str | None = None) -> str:
        """A date as text: "2026-03-18", "2026-03" or "2026". TOML's own dates are taken too."""
        value = self._data.get(key)
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            self._data[key] = value.isoformat()
        text = self.text(key, default)
        if text != default:
            try:
                datetime.date.fromisoformat((text + "-01-01"[: 10 - len(text)]) if _DATE.fullmatch(text) else "no")
            except ValueError:
                raise RequestError(f"{self.where(key)} = {text!r} is no date: write it as 2026-03-18.") from None
        return text

    def table(self, key: str) -> Table | None:
        """The table under a key, with this one's source and date to fall back on."""
        value = self._take(key, dict, "a table")
        return None if value is None else Table(value, self._file, f"{self._path}{key}.", self._source, self._date)

    def tables(self, key: str) -> list[Table]:
        """A list of tables; empty where it is missing."""
        values = self._take(key, list, "a list of tables") or []
        if not all(isinstance(value, dict) for value in values):
            raise RequestError(f"{self.where(key)} must be a list of tables.")
        return [
            Table(value, self._file, f"{self._path}{key}[{i}].", self._source, self._date)
            for i, value in enumerate(values)
        ]

    def take_origin(self) -> None:
        """Take `source` and `date` of this table: they speak for the quantities in it from now on."""
        self._source, self._date = self.text("source", self._source), self.day("date", self._date)

    def quantity(self, key: str, dimension: Dimension, *, positive: bool = True) -> Sourced | None:
        """The number under a key, or None where there is none."""
        self._known.append(key)
        value = self._data.get(key)
        if value is None:
            return None
        inner = value if isinstance(value, dict) else {"value": value}
        return Table(inner, self._file, f"{self._path}{key}.", self._source, self._date)._sourced(dimension, positive)

    def _sourced(self, dimension: Dimension, positive: bool, nested: bool = False) -> Sourced:
        self.take_origin()
        here = self._path[:-1]  # the key itself, without the dot
        for what, said in (("source", self._source), ("date", self._date)):
            if not said:
                raise RequestError(f"{self._file}: '{here}' has no {what}, and the file names none at its top.")
        if "value" not in self._data:
            raise RequestError(f"{self._file}: the key '{here}.value' is missing.")
        self._known.append("value")
        value = parse(self._data["value"], dimension, f"{self._file}: '{here}'")
        if positive and value <= 0:
            raise RequestError(f"{self._file}: '{here}' must be more than 0.")
        bounds = {
            key: parse(self._data[key], dimension, self.where(key)) for key in ("low", "high") if key in self._data
        }
        self._known.extend(("low", "high"))
        others = () if nested else tuple(o._sourced(dimension, positive, nested=True) for o in self.tables("others"))
        note = self.text("note", "")
        self.end()
        result = Sourced(value, dimension.si, self._source, self._date, others, note=note, **bounds)
        if not result.low <= value <= result.high:
            raise RequestError(f"{self._file}: '{here}' must lie between its low and its high.")
        return result

    def end(self) -> None:
        """Raises RequestError for a key that nobody asked for, with the nearest that was."""
        for key in self._data:
            if key not in self._known:
                raise RequestError(f"{self._file}: unknown key '{self._path}{key}'{nearest(key, self._known)}.")


def read_text(text: str, file: str) -> Table:
    """The table in a TOML text; `file` is its name in complaints. Raises RequestError if it is not TOML."""
    try:
        return Table(tomllib.loads(text), file)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{file} is not valid TOML: {error}.") from None


def read_file(path: Path | str) -> Table:
    """The table in a user's own file. Raises RequestError if it cannot be read or is not TOML."""
    try:
        return read_text(Path(path).read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise RequestError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}.") from None
