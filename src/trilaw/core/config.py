"""Configuration: frozen, typed, strict at the door.

A config class lives beside the code it configures and derives from `Config`; its defaults are the vetted setting. `parse` turns
plain data into it and turns every complaint into one sentence that names the place, and for an unknown key the nearest right one.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trilaw.core.errors import ConfigError, nearest

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every config: immutable, unknown keys refused, defaults validated, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class TaskSpec(Config):
    """Names a task and its options: `"gsm8k"`, or a table `{kind = "gsm8k", data = "train.jsonl"}`."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"kind": value}
        if isinstance(value, Mapping) and set(value) - {"kind", "options"}:
            kind = {"kind": value["kind"]} if "kind" in value else {}  # a missing one is complained of as missing
            return {**kind, "options": {k: v for k, v in value.items() if k != "kind"}}
        return value


def parse(cls: type[C], data: Mapping[str, Any], where: str) -> C:
    """`data` as a `cls`.

    Raises ConfigError with one sentence that names `where` and the key.
    """
    try:
        return cls.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(_sentence(cls, error, where)) from None


def _sentence(cls: type[Config], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    path = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _fields_at(cls, first["loc"][:-1])
        return f"{where}: unknown key '{path}'{nearest(key, known)}."
    if first["type"] == "missing":
        return f"{where}: the key '{path}' is missing."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    message = re.sub(r" or instance of \w+", "", message)
    return (
        f"{where}: '{path}' = {_short(first.get('input'))} does not hold: {message}."
        if path
        else f"{where}: {message}."
    )


# pydantic's words, in those of someone who writes a recipe
_WORDS = {
    "Input should be ": "it must be ",
    "List should have ": "the list must have ",
    "a valid integer": "a whole number",
    "a valid ": "a ",
    "a dictionary or instance of TaskSpec": "a table or a name",
    "a dictionary": "a table",
    "a tuple": "a list",
    "a string": "a text",
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    ", got a number with a fractional part": "",
    " after validation": "",
}


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(cls: type[Config], loc: tuple[int | str, ...]) -> list[str]:
    """The field names of the config class that `loc` leads to, as far as annotations tell."""
    current: Any = cls
    for part in loc:
        if isinstance(part, int) or not hasattr(current, "model_fields") or part not in current.model_fields:
            continue
        annotation = current.model_fields[part].annotation
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        if not inner:
            return []
        current = inner[0]
    return list(getattr(current, "model_fields", {}))


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises ConfigError if it cannot be read or parsed (line and column named).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number or a nesting that has no end
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """`data` with `--set a.b=value` applied (a TOML value; a bare word is a string). A list of tables is entered by its `name`.

    Raises ConfigError for an assignment without `=` or a path through something that is no table.
    """
    result = copy.deepcopy(data)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise ConfigError(f"--set {assignment}: write it as key=value, for example --set seed=1.")
        try:
            table = tomllib.loads(f"value = {text}")
            value = table["value"] if len(table) == 1 else text  # a line break in it could start a second key
        except (ValueError, RecursionError):  # no TOML: a word
            value = text
        *parents, last = path.split(".")
        node: Any = result
        for part in parents:
            if isinstance(node, list):
                named = [item for item in node if isinstance(item, dict) and item.get("name") == part]
                if not named:
                    names = [str(item.get("name")) for item in node if isinstance(item, dict)]
                    raise ConfigError(f"--set {path}: there is no '{part}'{nearest(part, names)}.")
                node = named[0]
            elif isinstance(node, dict):
                node = node.setdefault(part, {})
            else:
                raise ConfigError(f"--set {path}: '{part}' lies inside something that is no table.")
        if not isinstance(node, dict):
            raise ConfigError(f"--set {path}: '{last}' lies inside something that is no table.")
        node[last] = value
    return result
