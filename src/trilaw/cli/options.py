"""Options of a task as typed on the command line, shared by the verbs that take a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError

if TYPE_CHECKING:
    from trilaw.core.config import TaskSpec


def task_spec(kind: str, options: list[str], data: Path | None) -> TaskSpec:
    """`kind` (a kind, or a .jsonl or .py file of the user's: then `custom`) with its options.

    options: key=value, the value as in TOML, a bare word being a string. data: a file to test on, so it becomes the split `test`,
    whole. Raises RequestError for an option without "=".
    """
    from trilaw.core.config import (
        TaskSpec,
        override,
    )  # in here: it brings in pydantic, which takes longer than some commands

    for option in options:
        if not option.partition("=")[0] or "=" not in option:
            raise RequestError(f"The task option '{option}' must be key=value, for example digits=[1, 3].")
    values = override({}, options)
    suffix = Path(kind).suffix
    if suffix == ".jsonl":
        values = {"data": {"test": kind}, **values}
    if suffix == ".py":
        values = {"python": kind, **values}
    if data is not None:
        values = {**values, "data": {"test": str(data)}}
    return TaskSpec(kind="custom" if suffix in (".jsonl", ".py") else kind, options=values)
