"""docs/cli.md, written from the command line itself: `python scripts/docs_cli.py` after a change of a command or an option.

Names, types and defaults come from the signatures of the commands' functions, meanings from the help texts that the user sees too.
A test compares the file with what this script would write.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"

HEAD = """# Commands

Written by `scripts/docs_cli.py`; `trilaw COMMAND --help` says the same.

MODEL is a catalogue name, a folder, a `.gguf` file, a run folder or `owner/name` on the Hugging Face hub: see
[models.md](models.md). Sampling options have the same names and meanings everywhere. A value such as `KEY=VALUE` is read as in
TOML, a bare word being a string.

Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 the work failed, 2 the request was wrong, 130 stopped by
Ctrl-C or SIGTERM with the state saved.
"""

_STATED = re.compile(
    r"\s*[\[(]default: ([^\])]*)[\])]"
)  # a default that the help text words, for an option without one


class Line(typing.NamedTuple):
    """One argument or option: its names, type or placeholder, default, and meaning."""

    names: tuple[str, ...]
    type: str
    default: str
    help: str


def page() -> str:
    """The whole file."""
    from trilaw.cli.main import build

    return "\n".join([HEAD, *sections(build())])


def sections(app: typer.Typer) -> Iterator[str]:
    callback = app.registered_callback
    assert callback is not None
    assert callback.callback is not None
    yield _section("trilaw", callback.callback)
    for path, function in commands(app):
        yield _section(f"trilaw {path}", function)


def commands(app: typer.Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each command's words after `trilaw`, and its function; groups after the plain commands."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield command.name or command.callback.__name__.replace("_", "-"), command.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for path, function in commands(group.typer_instance):
            yield f"{group.name} {path}", function


def _section(title: str, function: Callable[..., Any]) -> str:
    lines = list(parameters(function))
    arguments = [line for line in lines if not line.names[0].startswith("-")]
    words = [line.names[0] if line.default == "required" else f"[{line.names[0]}]" for line in arguments]
    head = " ".join([title, *words, *(["[OPTIONS]"] if len(arguments) < len(lines) else [])])
    text = [f"## {title}", "", "```", head, "```", "", inspect.cleandoc(function.__doc__ or ""), ""]
    if lines:
        text += ["| | type | default | |", "|---|---|---|---|"]
        text += [f"| {', '.join(f'`{name}`' for name in x.names)} | {x.type} | {x.default} | {x.help} |" for x in lines]
        text.append("")
    return "\n".join(text)


def parameters(function: Callable[..., Any]) -> Iterator[Line]:
    """Arguments and options of a command, in the order of its signature."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint, *extras = typing.get_args(hints[name])
        info = next(extra for extra in extras if isinstance(extra, ArgumentInfo | OptionInfo))
        # In `Annotated[...]`, the first name of an option takes the place of the default.
        declared = tuple(
            word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str) and word.startswith("-")
        )
        if isinstance(info, ArgumentInfo):
            names: tuple[str, ...] = (info.metavar or name.upper(),)
        else:
            names = declared or (f"--{name.replace('_', '-')}",)
        stated = _STATED.search(info.help or "")
        meaning = _STATED.sub("", info.help or "").strip()
        yield Line(names, _type(hint, info), _default(parameter.default, stated and stated[1]), _cell(meaning))


def _type(hint: Any, info: ArgumentInfo | OptionInfo) -> str:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    kind = kinds[0]
    if typing.get_origin(kind) is list or typing.get_origin(hint) is list:
        return f"`{info.metavar or 'TEXT'}`, repeatable"
    if info.metavar and isinstance(info, OptionInfo):
        return f"`{info.metavar}`"
    if kind is bool:
        return "flag"
    word = {str: "text", Path: "path", int: "integer", float: "number"}[kind]
    low, high = (f"{bound:g}" if bound is not None else "" for bound in (info.min, info.max))
    return f"{word} {low} to {high}" if low and high else f"{word} from {low}" if low else word


def _default(value: Any, stated: str | None) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if value is None or value is False:
        return _cell(stated or "")
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", r"\<")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
