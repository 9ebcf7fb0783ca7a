"""Files of a run folder as data, in whatever state they are: torn, foreign or huge ones end in less data, never in an error.

A report shows what there is. Pipes and devices are not read, a line has a bound, and a number that passes is one that can be computed with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

MAX_LINE = 4_000_000  # characters; a longer line of a sample store is passed over
LARGEST = 1e100  # nothing that was measured is greater, and sums and products of what passes stay finite


def number(value: Any) -> float | None:
    """`value` as a finite float, None if it is none, or beyond `LARGEST`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return None
    return float(value)


def whole(value: Any) -> int:
    """`value` as a count, to the last digit; 0 if it is none."""
    return int(value) if number(value) is not None else 0


def names(config: Mapping[str, Any], key: str) -> list[str]:
    """The names that a stage lists under `key` (`models`, `splits`)."""
    listed = config.get(key)
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def read_text(path: Path) -> str:
    """The text of a file; empty if there is none. A pipe or a device is none: reading it might never end."""
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""


def is_there(path: Path) -> bool:
    """Whether there is anything of that name, be it unreadable."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a folder above may not be entered
        return True
    return True


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if it is missing or broken, for a report shows what there is."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl file, one a line; torn, foreign and overlong lines are passed over."""
    try:
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in _short_lines(file):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(row, dict):
                    yield row
    except (OSError, ValueError):
        return


def _short_lines(file: TextIO) -> Iterator[str]:
    """The lines of up to MAX_LINE characters; no more than that is in memory at a time."""
    whole_line = True
    while part := file.readline(MAX_LINE):
        ends = part.endswith("\n")
        if whole_line and (ends or len(part) < MAX_LINE):
            yield part
        whole_line = ends
