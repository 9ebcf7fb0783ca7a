"""`trilaw plan`: what training, serving and reinforcement learning take on chips that you name, and do not have to have.

Every command prints a table; `--json` prints plain data instead, `--explain` adds the arithmetic line by line with each assumption, its range and its
source. Nothing here loads torch, numpy or a network: matplotlib comes with `--picture`, numpy with `calibrate`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from trilaw.cli import plan_more
from trilaw.cli.plan_options import (
    Assume,
    Cache,
    Count,
    Curve,
    Explain,
    Hardware,
    Json,
    Latency,
    Model,
    Picture,
    Price,
    Prompt,
    Response,
    Weights,
    amount,
    assumed,
    shares,
    show,
)

app = typer.Typer(
    no_args_is_help=True, help="Plan compute: train, serve, rl, chip, compare, datacentre.", rich_markup_mode=None
)


@app.command("train")
def train_command(
    model: Model,
    hardware: Hardware,
    count: Count,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", metavar="D", help="Training tokens, such as 14.8T.  [default: 20 for each active weight]"
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", metavar="L", help="Tokens of a sequence.  [default: 4096, or the model's most if less]"
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="B", help="Tokens of a step.  [default: by the law of arXiv 2401.02954]"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="bf16-mixed, fp8-mixed, fp8-v3, pure-bf16 or fp32.  [default: the model's own, else bf16-mixed, fp32 on a chip without bf16]",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", metavar="KEY=VALUE,...", help="Such as tp=8,pp=4,dp=64.  [default: the fastest that fits]"
        ),
    ] = None,
    mtp: Annotated[
        bool, typer.Option("--no-mtp", help="Leave out multi-token-prediction modules of a model that has them.")
    ] = False,
    price: Price = None,
    assume: Assume = None,
    json_: Json = False,
    explain: Explain = False,
    picture: Picture = None,
) -> None:
    """Plan a training run.

    Time, chip-hours, money, energy, utilisation, layout, memory by part, and what binds.
    """
    from trilaw.api.plan import plan_train

    plan = plan_train(
        model,
        hardware,
        count,
        tokens=None if tokens is None else amount(tokens, "--tokens"),
        context=context,
        batch=None if batch is None else amount(batch, "--batch"),
        precision=precision,
        layout=layout,
        mtp=False if mtp else None,
        price=price,
        assume=assumed(assume),
    )
    data = plan.to_json()
    if picture is not None:
        from trilaw.reports.plan_charts import train_picture

        train_picture(data, picture)
    from trilaw.cli.plan_tables import train_text

    show(data, lambda: train_text(plan), plan.sheet, json_, explain, picture)


@app.command("serve")
def serve_command(
    model: Model,
    hardware: Hardware,
    count: Count,
    prompt: Prompt = 1000,
    response: Response = 1000,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Responses to a prompt.")] = 1,
    context: Annotated[
        float | None,
        typer.Option(
            "--context", metavar="L", help="Cached tokens that a step attends, on average.  [default: P + R / 2]"
        ),
    ] = None,
    cached: Annotated[
        float, typer.Option("--cached", metavar="SHARE", help="Of the prompts' tokens, read before and still cached.")
    ] = 0.0,
    batch: Annotated[
        float | None,
        typer.Option("--batch", metavar="N", help="Sequences in flight on all chips.  [default: as many as fit]"),
    ] = None,
    latency: Latency = None,
    weight_bits: Weights = None,
    kv_bits: Cache = 16,
    apart: Annotated[bool, typer.Option("--apart", help="Chips of their own read the prompts.")] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="KEY=VALUE,...",
            help="Such as tensor=1,expert=64,redundant=64.  [default: the best found]",
        ),
    ] = None,
    curve: Curve = None,
    price: Price = None,
    assume: Assume = None,
    json_: Json = False,
    explain: Explain = False,
    picture: Picture = None,
) -> None:
    """Plan serving a model.

    What fits, tokens a second, what a user waits, money and energy; with --curve, what a solved problem costs.
    """
    from trilaw.api.plan import plan_serve

    plan = plan_serve(
        model,
        hardware,
        count,
        prompt=prompt,
        response=response,
        samples=samples,
        context=context,
        cached=cached,
        batch=batch,
        latency=latency,
        weight_bits=weight_bits,
        kv_bits=kv_bits,
        apart=apart,
        layout=layout,
        price=price,
        assume=assumed(assume),
    )
    data, rows = plan.to_json(), []
    if curve is not None:
        from trilaw.planner.answers import cost_per_solved

        points = shares(curve)
        rows = cost_per_solved(plan, points, points)
        data["answers"] = [row.to_json() for row in rows]
    if picture is not None:
        from trilaw.reports.plan_charts import serve_picture

        serve_picture(data, picture)
    from trilaw.cli.plan_tables import serve_text

    show(data, lambda: serve_text(plan, rows), plan.sheet, json_, explain, picture)


@app.command("rl")
def rl_command(
    model: Model,
    hardware: Hardware,
    count: Count,
    problems: Annotated[int, typer.Option("--problems", metavar="N", help="Of an update.")] = 32,
    samples: Annotated[int, typer.Option("--samples", metavar="K", help="Responses to a problem.")] = 16,
    prompt: Prompt = 200,
    response: Response = 4000,
    longest: Annotated[
        int | None,
        typer.Option(
            "--longest", metavar="R", help="Tokens of the longest response.  [default: R x rl_longest_over_mean]"
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Updates.")] = 1000,
    rollout_steps: Annotated[
        int, typer.Option("--rollout-steps", metavar="N", help="Updates that one rollout feeds.")
    ] = 1,
    score_passes: Annotated[
        int, typer.Option("--score-passes", metavar="N", help="Forward passes beside the update; 1 without reference.")
    ] = 2,
    placement: Annotated[
        str, typer.Option("--placement", metavar="NAME", help="colocated (all chips do all in turn) or split.")
    ] = "colocated",
    weight_bits: Weights = None,
    kv_bits: Cache = 16,
    layout: Annotated[
        str | None,
        typer.Option("--layout", metavar="KEY=VALUE,...", help="Of the writing engine.  [default: the best found]"),
    ] = None,
    price: Price = None,
    assume: Assume = None,
    json_: Json = False,
    explain: Explain = False,
) -> None:
    """Plan reinforcement learning.

    Writing, waiting for the longest response, scoring, updating; time, money, idle chips.
    """
    from trilaw.api.plan import plan_rl
    from trilaw.cli.plan_tables import rl_text

    plan = plan_rl(
        model,
        hardware,
        count,
        problems=problems,
        samples=samples,
        prompt=prompt,
        response=response,
        longest=longest,
        steps=steps,
        rollout_steps=rollout_steps,
        score_passes=score_passes,
        placement=placement,  # type: ignore[arg-type]
        weight_bits=weight_bits,
        kv_bits=kv_bits,
        layout=layout,
        price=price,
        assume=assumed(assume),
    )
    show(plan.to_json(), lambda: rl_text(plan), plan.sheet, json_, explain)


plan_more.register(app)
