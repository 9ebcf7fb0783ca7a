"""`trilaw tasks`: which tasks there are, what one looks like, and whether its verifier can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli.options import task_spec
from trilaw.cli.terminal import say
from trilaw.core.errors import ConfigError, SourceError, TaskError

if TYPE_CHECKING:
    from trilaw.core.protocols import Task
    from trilaw.core.types import Problem

# The registry is imported where it is used: it brings in pydantic, which takes longer than some commands.

app = typer.Typer(help="The tasks: list them, show one, prove a verifier.", no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="A JSONL file of problems; it is used whole, as the split test."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "--task-option", metavar="KEY=VALUE", help="An option of the task. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_tasks(as_json: Json = False) -> None:
    """List the kinds of tasks."""
    from trilaw.tasks.registry import KINDS

    if as_json:
        typer.echo(json.dumps([{"kind": kind, "description": text} for kind, text in KINDS.items()], indent=2))
        return
    for kind, text in KINDS.items():
        say(f"{kind:<12} {text}")


@app.command()
def show(
    kind: Annotated[str, typer.Argument(metavar="TASK", help="A kind of task, or a .jsonl or .py file.")],
    data: Data = None,
    option: Options = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="The split to show problems of (default: the first).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a task's options and three of its problems.

    Each problem comes with a right completion and the verdict on it.
    """
    from trilaw.tasks.registry import KINDS, build

    spec = task_spec(kind, option or [], data)
    options = _options(spec.kind)
    task: Task | None = None
    problems: list[dict[str, Any]] = []
    note = ""
    try:
        task = build(spec)
        problems = _shown(task, split or task.splits[0])
    except (ConfigError, SourceError) as error:
        if spec.options:
            raise
        note = f"No problems are shown: {error}"  # of a task that needs a file, the options can be shown without
    if as_json:
        splits = list(task.splits) if task else []
        shown = {"kind": spec.kind, "splits": splits, "options": options, "problems": problems, "note": note}
        typer.echo(json.dumps(shown, indent=2))
        return
    say(f"{spec.kind}: {KINDS[spec.kind] if task is None else task.description}")
    if task is not None:
        say(f"splits: {', '.join(task.splits)}")
    say("options:")
    for row in options:
        say(f"  {row['name']:<16} {row['type']} = {row['default']}")
    for problem in problems:
        say(
            f"\n[{problem['id']}]\n{problem['prompt']}\n--- a right completion (verdict {problem['verdict']:g}):\n{problem['completion']}"
        )
    if note:
        say(f"\n{note}")


@app.command()
def check(
    kind: Annotated[str, typer.Argument(metavar="TASK", help="A kind of task, or a .jsonl or .py file.")],
    data: Data = None,
    option: Options = None,
    as_json: Json = False,
) -> None:
    """Prove a task's verifier.

    Every gold answer must be accepted and a corrupted one refused; exit status 1 if not.
    """
    from trilaw.tasks.registry import build

    complaints = build(task_spec(kind, option or [], data)).validate()
    if as_json:
        typer.echo(json.dumps({"kind": kind, "sound": not complaints, "complaints": complaints}, indent=2))
    else:
        for complaint in complaints:
            say(complaint, err=True)
        if not complaints:
            say(f"{kind}: sound. Gold answers are accepted and corrupted ones refused.")
    if complaints:
        raise typer.Exit(1)


def _options(kind: str) -> list[dict[str, Any]]:
    from trilaw.tasks.registry import config_class

    fields = config_class(kind).model_fields
    return [
        {
            "name": name,
            "type": _type(field.annotation),
            "default": json.dumps(field.get_default(call_default_factory=True), default=str),
        }
        for name, field in fields.items()
    ]


def _type(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not hasattr(annotation, "__args__")
        else str(annotation).replace("typing.", "")
    )


def _shown(task: Task, split: str) -> list[dict[str, Any]]:
    from trilaw.core.protocols import TeachingTask

    problems = task.problems(split, limit=3)
    completions: dict[str, str] = {}
    if isinstance(task, TeachingTask):
        try:
            worked = task.examples(split, limit=3)
        except TaskError:
            worked = []  # a custom task without worked solutions
        completions = {json.dumps(example.messages): example.completion for example in worked}
    return [
        _row(task, problem, completions.get(json.dumps(problem.messages), f"Answer: {problem.answer}"))
        for problem in problems
    ]


def _row(task: Task, problem: Problem, completion: str) -> dict[str, Any]:
    return {
        "id": problem.id,
        "prompt": "\n".join(message["content"] for message in problem.messages),
        "answer": problem.answer,
        "completion": completion,
        "verdict": task.verify(problem, completion).value,
    }
