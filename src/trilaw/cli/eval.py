"""`trilaw eval`: accuracy of a model on a task, with intervals, what it cost, and where the samples lie.

Results go to stdout, progress to stderr. Samples are kept, by default under runs/eval in a folder named by model, task, split and a
digest of all settings: the same command goes on from a stopped or killed one, and with more --samples or a larger --limit it draws
only what is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli import sampling
from trilaw.cli.options import task_spec
from trilaw.reports import words

if TYPE_CHECKING:
    from trilaw.evals.run import EvalResult

STORES = Path("runs") / "eval"


def eval_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A catalogue name, a folder, a .gguf file, a run folder, or owner/name on the hub."
        ),
    ],
    task: Annotated[
        str, typer.Option(metavar="TASK", help="A kind of task (`trilaw tasks list`), or your own .jsonl or .py file.")
    ],
    split: Annotated[str, typer.Option(metavar="NAME", help="Which problems of the task.")] = "test",
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="The task's data file (JSON lines).")] = None,
    task_option: Annotated[
        list[str] | None, typer.Option("--task-option", metavar="KEY=VALUE", help="An option of the task. Repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Completions for each problem.")] = 1,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many problems.  [default: the whole split, or 256 of an endless one]"
        ),
    ] = None,
    temperature: sampling.Temperature = 1.0,
    top_p: sampling.TopP = 1.0,
    top_k: sampling.TopK = 0,
    min_p: sampling.MinP = 0.0,
    max_tokens: sampling.MaxTokens = 512,
    seed: sampling.Seed = 0,
    stop: sampling.Stop = None,
    quantization: sampling.Quantization = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PLACE", help="Where to keep the samples: a folder or a .jsonl file.  [default: in runs/eval]"
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure a model on a task, with 95% intervals.

    It prints pass@k and maj@k, the length of the answers and the cost, and keeps every sample: the same command goes on where it was
    stopped.
    """
    # in here: these bring in torch, which `trilaw --help` should not wait for
    from trilaw.api.evaluate import evaluate
    from trilaw.pipeline.progress import watch
    from trilaw.pipeline.stopping import stop_on_signals

    spec = task_spec(task, task_option or [], data)
    params = sampling.params(temperature, top_p, top_k, min_p, max_tokens, stop)
    with stop_on_signals() as should_stop, watch([]) as progress:
        result = evaluate(
            model,
            spec,
            split=split,
            limit=limit,
            samples=samples,
            params=params,
            seed=seed,
            store=out,
            stores=None if out else STORES,
            quantization=quantization,
            progress=progress,
            should_stop=should_stop,
        )
    if json_:
        typer.echo(json.dumps(as_json(model, result), indent=2))
    else:
        show(result)


def as_json(model: str, result: EvalResult) -> dict[str, Any]:
    """The results as plain data; a public contract, like report.json."""
    first = result.evaluations[0]
    return {
        "version": 1,
        "model": model,
        "task": first.task,
        "split": first.split,
        "evaluations": [row.row() for row in result.evaluations],
        "usage": {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.tokens,
            "seconds": result.seconds,
            "tokens_per_second": result.totals.tokens_per_second,
            "flops": result.flops,
        },
        "errors": result.errors,
        "samples": str(result.path) if result.path else None,
    }


def show(result: EvalResult) -> None:
    """The table, the cost, and where the samples lie."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)  # a pipe has no width: do not fold the table at 80
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "value", "95% interval", "problems", "method"):
        table.add_column(name, justify="left" if name in ("metric", "method") else "right", no_wrap=True)
    for row in result.evaluations:
        e, form = row.estimate, "{:.1f}" if row.metric == "mean_tokens" else "{:.3f}"
        interval = f"[{form.format(e.low)}, {form.format(e.high)}]"
        table.add_row(words.clean(row.metric), form.format(e.value), interval.replace("[", r"\["), str(e.n), e.method)
    console.print(table)
    console.print(f"\ncost     {result.totals}", markup=False)
    if result.errors:
        console.print(f"errors   {result.errors} samples could not be verified; they count as wrong", markup=False)
    if result.path:
        console.print(f"samples  {words.clean(str(result.path))}", markup=False, soft_wrap=True)
