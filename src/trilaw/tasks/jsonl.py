"""Problems in JSON Lines files: reading with the line named in every complaint, and files as splits.

`data` of a task is a table, `{train = "a.jsonl", test = "b.jsonl"}` (each split is its file), or one file, which is divided by the
hash of each problem's text: about one in eight is `test`, the others are `train`, and `all` is the whole file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from trilaw.core.errors import TaskError
from trilaw.tasks.split import held_out

Data = str | dict[str, str]
MAX_LINE = 1_000_000  # characters; a longer line is no problem text but a mistake


class Row(NamedTuple):
    """One line: where it stands ("file.jsonl, line 3"), a stable id, and its object."""

    where: str
    id: str
    value: dict[str, Any]

    def text(self, key: str) -> str:
        """The string under `key`. Raises TaskError if there is none."""
        value = self.value.get(key)
        if not isinstance(value, str) or not value.strip():
            raise TaskError(f"{self.where}: '{key}' must be a text that is not empty.")
        return value


def read(path: Path) -> list[Row]:
    """The objects in a file; blank lines are skipped.

    Raises TaskError naming file and line for what is no JSON object, and for a file that is missing, unreadable or without rows.
    """
    rows: list[Row] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    rows.append(Row(where, f"{path.stem}-{number}", _object(line, where)))
    except FileNotFoundError:
        raise TaskError(f"There is no file {path}: give the path of a JSONL file as the task's `data`.") from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not rows:
        raise TaskError(f"{path} holds no problems: it should have one JSON object a line.")
    return rows


def _object(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise TaskError(f"{where}: longer than {MAX_LINE} bytes; a JSONL file has one problem a line.")
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise TaskError(f"{where}: not UTF-8 text; save the file as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or a number too long"
        raise TaskError(f"{where}: not valid JSON ({reason}); each line must be one complete object.") from None
    if not isinstance(value, dict):
        raise TaskError(f"{where}: a JSON object like {{...}} is needed, this is a {type(value).__name__}.")
    return value


def splits(data: Data) -> tuple[str, ...]:
    return ("train", "test", "all") if isinstance(data, str) else tuple(data)


def read_split(data: Data, split: str, key: Callable[[Row], str]) -> list[Row]:
    """The rows of a split, in the order of the file. key: a problem's canonical text, which decides for a divided file.

    Raises TaskError when the file is broken or no row belongs to the split.
    """
    if not isinstance(data, str):
        return read(Path(data[split]))
    rows = read(Path(data))
    if split != "all":
        rows = [row for row in rows if held_out(key(row)) == (split == "test")]
    if not rows:
        raise TaskError(
            f"{data} is too small to be divided: no line of it falls to '{split}'; use the split 'all', or give one file for each split."
        )
    return rows


def check(data: Data | None) -> Data | None:
    """`data` as it is. Raises ValueError (for a config's validator) for a table that names no split or one with an odd name."""
    if isinstance(data, dict) and (not data or not all(name.isidentifier() for name in data)):
        raise ValueError('give a file, or a table of splits such as {train = "a.jsonl", test = "b.jsonl"}')
    return data


def shared(names: tuple[str, ...], texts: Callable[[str], list[str]]) -> list[str]:
    """A complaint for each held-out split that has problems in common with `train`."""
    if "train" not in names:
        return []
    train = set(texts("train"))
    counts = {name: len(train & set(texts(name))) for name in names if name not in ("train", "all")}
    return [f"{count} problems of the split '{name}' also stand in 'train'." for name, count in counts.items() if count]
