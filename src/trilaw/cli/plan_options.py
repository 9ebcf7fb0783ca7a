"""Options that the commands of `trilaw plan` share, and what their texts mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli.terminal import say

if TYPE_CHECKING:
    from datetime import date

    from trilaw.planner.sheet import Sheet

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name of `trilaw plan models`, a folder with a config.json, owner/name in the hub's local cache.",
        show_default=False,
    ),
]
Hardware = Annotated[
    str,
    typer.Option("--hardware", metavar="CHIP", help="A name of `trilaw plan hardware`, or the path of a .toml file."),
]
Count = Annotated[int, typer.Option("--count", metavar="N", help="How many of them.")]
Price = Annotated[
    str | None,
    typer.Option(
        "--price",
        metavar="USD",
        help="Dollars of a chip for an hour, a provider of the table, or a .toml file of prices.  [default: the table's]",
    ),
]
Assume = Annotated[
    list[str] | None,
    typer.Option("--assume", metavar="NAME=VALUE", help="Override an assumption (docs/planner.md has the list)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print plain data instead of text (keys: docs/planner.md).")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Also print the arithmetic, line by line; with --json it always is there.")
]
Picture = Annotated[Path | None, typer.Option("--picture", metavar="FILE", help="Also draw it, as .svg or .png.")]
Weights = Annotated[
    int | None,
    typer.Option("--weight-bits", metavar="N", help="16, 8 or 4.  [default: as the model is published, else 16]"),
]
Cache = Annotated[int, typer.Option("--kv-bits", metavar="N", help="Of a cached key or value: 16, 8 or 4.")]
Prompt = Annotated[int, typer.Option("--prompt", metavar="P", help="Tokens of a prompt.")]
Response = Annotated[int, typer.Option("--response", metavar="R", help="Tokens of a response, on average.")]
Latency = Annotated[float | None, typer.Option("--latency", metavar="S", help="The most seconds per output token.")]
Curve = Annotated[
    str | None,
    typer.Option("--curve", metavar="K=SHARE,...", help="Share solved with k samples, such as 1=0.798,64=0.867."),
]
Day = Annotated[str | None, typer.Option("--date", metavar="DAY", help="Of the export rules.  [default: today]")]


def amount(text: str, option: str) -> float:
    """14.8e12 of "14.8e12" or "14.8T" (k, M, B, T). Raises RequestError for what is no number above 0."""
    from trilaw.core.errors import RequestError

    plain = text.strip().replace("_", "").replace(",", "")
    size = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}.get(plain[-1:].lower(), 1.0)
    try:
        value = float(plain if size == 1.0 else plain[:-1]) * size
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise RequestError(f"{option} is '{text}': give a number above 0, such as 14.8e12 or 14.8T.")
    return value


def assumed(pairs: list[str] | None) -> dict[str, float]:
    """The overrides of `--assume`. Raises RequestError for one that is no NAME=NUMBER, or given twice."""
    from trilaw.core.errors import RequestError

    found: dict[str, float] = {}
    for pair in pairs or ():
        name, _, value = pair.partition("=")
        name = name.strip()
        try:
            number = float(value)
        except ValueError:
            raise RequestError(f"--assume is '{pair}': write NAME=VALUE, for example mfu=0.4.") from None
        if name in found:
            raise RequestError(f"--assume gives '{name}' twice.")
        found[name] = number
    return found


def shares(text: str) -> dict[int, float]:
    """{1: 0.798, 64: 0.867} of "1=0.798,64=0.867". Raises RequestError for anything else."""
    from trilaw.core.errors import RequestError

    try:
        pairs = [(int(k), float(share)) for k, share in (pair.split("=") for pair in text.split(","))]
    except ValueError:
        raise RequestError(f"--curve is '{text}': give k=share pairs, such as 1=0.798,64=0.867.") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(f"--curve is '{text}': it gives a k twice.")
    return found


def day_of(text: str | None) -> date:
    """The day of `--date`, today without one. Raises RequestError for what is no date."""
    from datetime import date

    from trilaw.core.errors import RequestError

    try:
        return date.today() if text is None else date.fromisoformat(text)
    except ValueError:
        raise RequestError(f"--date is '{text}': write it as 2025-01-27.") from None


def show(
    data: dict[str, Any],
    text: Callable[[], list[str]],
    sheet: Sheet,
    json_: bool,
    explain: bool,
    picture: Path | None = None,
) -> None:
    """Print a plan: as JSON, or as text with its arithmetic if asked for, and where its picture lies."""
    if json_:
        say(json.dumps(data, indent=2))
        return
    lines = text()
    if explain:
        from trilaw.cli.plan_tables import explained

        lines += ["", *explained(sheet)]
    say("\n".join(lines))
    if picture is not None:
        say(f"Picture: {picture}")
