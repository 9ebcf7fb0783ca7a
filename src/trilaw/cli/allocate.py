"""`trilaw allocate RUN`: where the next budget should go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli.fit import Json, Seed, interval, notes, printed
from trilaw.cli.terminal import say

if TYPE_CHECKING:
    from trilaw.laws.allocation import Allocation


def allocate_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder that measured bases, RL and samples.", show_default=False),
    ],
    budget: Annotated[
        str,
        typer.Option(
            "--budget", metavar="N", help="FLOPs such as 1e18, or dollars such as 500USD.", show_default=False
        ),
    ],
    queries: Annotated[float, typer.Option("--queries", help="Questions that the model answers in its life.")] = 1e6,
    price: Annotated[
        str | None,
        typer.Option(
            "--price",
            metavar="USD/H,FLOP/S,SHARE",
            help="Rent of a chip an hour, its peak, and the share of it that is used: 2,989e12,0.35.",
            show_default=False,
        ),
    ] = None,
    how: Annotated[
        str, typer.Option("--how", help="pass: a verifier picks the answer; vote: the plurality does.")
    ] = "pass",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A measured model that is owned already.  [default: all is bought]", show_default=False
        ),
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option("--accuracy", help="Also say what this accuracy takes.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of the evaluations.", show_default=False)] = None,
    bootstraps: Annotated[
        int, typer.Option("--bootstraps", help="Draws behind the intervals.", min=20, max=10_000)
    ] = 200,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Split the next budget among a larger or longer-trained base, more RL, and more samples a question."""
    from trilaw.api.laws import allocate
    from trilaw.core.errors import RequestError
    from trilaw.reports.contract import finite

    amount, unit = parse_budget(budget)
    if unit == "usd" and price is None:
        raise RequestError(
            f"--budget is '{budget}', dollars: say with --price what a FLOP costs, such as --price 2,989e12,0.35."
        )
    plan = allocate(
        run,
        amount,
        unit=unit,  # type: ignore[arg-type]
        queries=queries,
        how=how,  # type: ignore[arg-type]
        price=None if price is None else parse_price(price),
        model=model,
        split=split,
        accuracy=accuracy,
        bootstraps=bootstraps,
        seed=seed,
    )
    from trilaw.reports.commands import command
    from trilaw.reports.read import read_run

    measured = read_run(run)
    commands = [command(measured, experiment.recipe_set) for experiment in plan.experiments]
    if json_:
        data = plan.to_json()
        for experiment, typed in zip(data["experiments"], commands):
            experiment["command"] = typed
        say(json.dumps(finite(data), indent=2))
    else:
        say(printed(advice(plan, commands)))


def parse_budget(text: str) -> tuple[float, str]:
    """(1e18, "flops") of "1e18" or "1e18 FLOPs", (500, "usd") of "500USD" or "$500". Raises RequestError for what is neither."""
    from trilaw.core.errors import RequestError

    plain = text.strip().lower().replace("_", "")
    unit = "flops"
    if plain.startswith("$"):
        plain, unit = plain[1:], "usd"
    for ending, meant in (("usd", "usd"), ("flops", "flops"), ("flop", "flops")):
        if plain.endswith(ending):
            plain, unit = plain.removesuffix(ending), meant
            break
    try:
        amount = float(plain)
    except ValueError:
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise RequestError(f"--budget is '{text}': give FLOPs such as 1e18, or dollars such as 500USD.")
    return amount, unit


def parse_price(text: str) -> Any:
    """A StagePrice of "2,989e12,0.35". Raises RequestError for anything else."""
    from trilaw.core.errors import RequestError
    from trilaw.laws.costs import StagePrice

    try:
        hour, peak, share = (float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(
            f"--price is '{text}': give dollars an hour, peak FLOP/s and the share used, such as 2,989e12,0.35."
        ) from None
    return StagePrice.by_the_hour(hour, peak, share)


def advice(plan: Allocation, commands: Sequence[str | None] = ()) -> list[str]:
    """The allocation as text: the verdict first, then what it rests on."""
    lines = [plan.verdict, ""]
    best = plan.best
    lines.append(
        f"Best split of {plan.budget:.3g} {'FLOPs' if plan.unit == 'flops' else 'dollars'}, {plan.queries:.3g} questions: "
        f"accuracy {interval(plan.accuracy)} (start {interval(plan.start_accuracy)})"
    )
    lines.append(
        f"  N {float(best.parameters):.3g}, D {float(best.tokens):.3g}, RL {float(best.rl_flops):.3g} FLOPs, {float(best.samples):.3g} samples a question"
    )
    lines += [f"  {name:<13}{share:.3g}" for name, share in plan.spent.items()]
    lines += ["", "A tenth of the budget more into one option"]
    for option in plan.options:
        gain = (
            "not known"
            if option.gain is None
            else f"{100 * option.gain.value:+.2f} points [{100 * option.gain.low:+.2f}, {100 * option.gain.high:+.2f}]"
        )
        lines.append(f"  {option.name:<13}{gain}{'' if option.gain is not None else f': {option.sentence}'}")
    lines += ["", "Rivals (how far they stay behind)"]
    lines += [
        f"  {rival.name:<22}accuracy {interval(rival.accuracy)}, behind {interval(rival.behind)}"
        for rival in plan.rivals
    ]
    if plan.target is not None:
        least = (
            "no budget up to a hundred times this one does"
            if plan.target.budget is None
            else f"{interval(plan.target.budget)} does"
        )
        lines += [
            "",
            f"Accuracy {plan.target.accuracy:.3g}: reached in {100 * plan.target.reached:.0f} % of the draws; {least}.",
        ]
    if plan.experiments:
        lines += ["", "Cheapest experiments that would tell"]
        for index, experiment in enumerate(plan.experiments):
            lines.append(f"  {experiment.sentence}")
            if index < len(commands) and commands[index]:
                lines.append(f"    {commands[index]}")
    return lines + notes(plan.notes)
