"""The field tables of docs/recipes.md and docs/tasks.md: `python scripts/docs_fields.py` after a change of a config class.

A table stands between `<!-- fields: GrpoConfig -->` and `<!-- end -->`. Names, types and defaults are taken from the class; the last
column, the meaning, is written by hand in the page and kept. A new field comes with an empty meaning, and a test refuses that; the row
of a field that is gone goes. With several classes of the same fields each has a column of defaults.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from trilaw.core.config import Config

DOCS = Path(__file__).parent.parent / "docs"
PAGES = (DOCS / "recipes.md", DOCS / "tasks.md")
BLOCK = re.compile(r"<!-- fields: (?P<names>[\w ]+) -->\n(?P<table>.*?)<!-- end -->", re.DOTALL)
_CELLS = re.compile(r"(?<!\\)\|")


def classes() -> dict[str, type[Config]]:
    """Every config class that a user fills in: the recipe's head, each kind of stage, each kind of task, and what these contain."""
    from trilaw.pipeline.recipe import Head
    from trilaw.pipeline.stages import KINDS
    from trilaw.tasks import registry

    roots: list[type[Config]] = [Head, *(kind.config for kind in KINDS.values())]
    roots += [registry.config_class(kind) for kind in registry.KINDS]
    found: dict[str, type[Config]] = {}
    while roots:
        cls = roots.pop(0)
        if cls.__name__ not in found:
            found[cls.__name__] = cls
            roots += [inner for field in cls.model_fields.values() for inner in _tables(field.annotation)]
    return found


def written(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each class that has a table in a page, with the meanings in it by field."""
    for block in BLOCK.finditer(text):
        for name in block["names"].split():
            yield name, _meanings(block["table"])


def update(text: str) -> str:
    """The page with every table written anew. Raises KeyError for a class that there is not."""
    known = classes()

    def table(block: re.Match[str]) -> str:
        names = block["names"].split()
        lines = _table([known[name] for name in names], _meanings(block["table"]))
        return "\n".join([f"<!-- fields: {block['names']} -->", *lines, "<!-- end -->"])

    return BLOCK.sub(table, text)


def _meanings(table: str) -> dict[str, str]:
    rows = [
        [cell.strip() for cell in _CELLS.split(line)[1:-1]] for line in table.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[-1] for row in rows}


def _table(shown: list[type[Config]], meanings: dict[str, str]) -> list[str]:
    fields = [cls.model_fields for cls in shown]
    heads = ["default"] if len(shown) == 1 else [f"`{cls.__name__}`" for cls in shown]
    lines = [f"| field | type | {' | '.join(heads)} | meaning |", "|---|---|" + "---|" * len(heads) + "---|"]
    for name, field in fields[0].items():
        defaults = " | ".join(default(each[name]) for each in fields)
        lines.append(f"| `{name}` | {kind(field)} | {defaults} | {meanings.get(name, '')} |")
    return lines


def default(field: FieldInfo) -> str:
    """As it is written in TOML; a table's default is its own fields' defaults."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, Config) or value == {}:
        return "`{}`"
    return f"`{json.dumps(value)}`"


def kind(field: FieldInfo) -> str:
    """The type in words, with its bounds."""
    bounds = {
        key: getattr(item, key) for item in field.metadata for key in ("gt", "ge", "lt", "le") if hasattr(item, key)
    }
    words = _type(field.annotation)
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return " ".join([words, *([", ".join(f"{signs[key]} {value}" for key, value in bounds.items())] if bounds else [])])


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin is tuple:
        return f"[{', '.join(_type(each) for each in inner)}]"
    if origin is list:
        return "list" if dict in (typing.get_origin(each) for each in inner) else f"list of {_type(inner[0])}s"
    if origin is dict:
        return f"table of {_type(inner[1])}s"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "table"
    return {str: "text", int: "integer", float: "number", bool: "boolean"}[annotation]


def _tables(annotation: Any) -> Iterator[type[Config]]:
    """The config classes that stand in a type, apart from the task's spec, whose options are tables of their own."""
    for each in typing.get_args(annotation) or (annotation,):
        if isinstance(each, type) and issubclass(each, Config) and each.__name__ != "TaskSpec":
            yield each


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(update(page.read_text(encoding="utf-8")), encoding="utf-8")
