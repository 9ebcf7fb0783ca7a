"""The commands of `trilaw plan` beside the plans themselves: one chip, several chips, a datacentre, this machine, the tables, the validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trilaw.cli.plan_options import (
    Assume,
    Curve,
    Day,
    Explain,
    Json,
    amount,
    assumed,
    day_of,
    shares,
    show,
)
from trilaw.cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the commands to the group."""
    app.command("chip")(chip_command)
    app.command("compare")(compare_command)
    app.command("datacentre")(datacentre_command)
    app.command("calibrate")(calibrate_command)
    app.command("models")(models_command)
    app.command("hardware")(hardware_command)
    app.command("validate")(validate_command)


def chip_command(
    name: Annotated[
        str,
        typer.Argument(metavar="CHIP", help="A name of `trilaw plan hardware`, or a .toml file.", show_default=False),
    ],
    date: Day = None,
    json_: Json = False,
    explain: Explain = False,
) -> None:
    """Show a chip, and its export class.

    Its numbers with their sources, its prices, and its class under the export rules of the United States on a day.
    """
    from trilaw.api.plan import chip_of
    from trilaw.cli.plan_lists import chip_text
    from trilaw.planner.export import classify
    from trilaw.planner.prices import of_chip

    found = chip_of(name)
    export, prices = classify(found, day_of(date)), of_chip(found)
    data = found.to_json() | {
        "prices": [{"provider": entry.provider, **entry.usd_per_hour.to_json()} for entry in prices],
        "export": export.to_json(),
    }
    show(data, lambda: chip_text(found, prices, export), export.sheet, json_, explain)


def compare_command(
    hardware: Annotated[
        str,
        typer.Option("--hardware", metavar="CHIP,...", help="Names of `trilaw plan hardware`, or .toml files."),
    ] = "h800,h100,h20,4090,cpu",
    target: Annotated[
        str,
        typer.Option(
            "--target", metavar="NAME", help="r1-pipeline: R1's training from nothing; answers: R1 answering questions."
        ),
    ] = "r1-pipeline",
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", help="Chips of each.  [default: 2048 to train, 512 to answer]"),
    ] = None,
    rl_count: Annotated[
        int | None,
        typer.Option("--rl-count", metavar="N", help="Of them for reinforcement learning.  [default: 512]"),
    ] = None,
    answers: Annotated[
        str | None, typer.Option("--answers", metavar="N", help="Questions to answer.  [default: 1e9]")
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option("--accuracy", metavar="SHARE", help="The share to solve.  [default: the cheapest a solved one]"),
    ] = None,
    curve: Curve = None,
    prompt: Annotated[
        int | None, typer.Option("--prompt", metavar="P", help="Tokens of a question.  [default: 200]")
    ] = None,
    response: Annotated[
        int | None,
        typer.Option(
            "--response", metavar="R", help="Tokens of an answer.  [default: 8793, R1's on a contest of 2024]"
        ),
    ] = None,
    date: Day = None,
    assume: Assume = None,
    json_: Json = False,
) -> None:
    """Compare chips for one goal.

    Hours, money, energy, what binds, and who may be sold them.
    """
    from trilaw.cli.plan_lists import compare_text
    from trilaw.core.errors import RequestError
    from trilaw.planner import compare as room
    from trilaw.planner.datacentre import THINKING

    others: dict[str, dict[str, object]] = {
        "answers": {"--rl-count": rl_count},
        "r1-pipeline": {
            "--answers": answers,
            "--accuracy": accuracy,
            "--curve": curve,
            "--prompt": prompt,
            "--response": response,
        },
    }
    for option, value in others.get(target, {}).items():
        if value is not None:
            raise RequestError(f"{option} does not go with --target {target}.")
    rows = room.compare(
        [name.strip() for name in hardware.split(",") if name.strip()],
        target=target,
        count=count,
        rl_count=room.RL_COUNT if rl_count is None else rl_count,
        answers=1e9 if answers is None else amount(answers, "--answers"),
        curve=room.R1_VOTES if curve is None else shares(curve),
        accuracy=accuracy,
        prompt=200 if prompt is None else prompt,
        response=THINKING if response is None else response,
        on=day_of(date),
        assume=assumed(assume),
    )
    say(json.dumps([row.to_json() for row in rows], indent=2) if json_ else "\n".join(compare_text(rows)))


def datacentre_command(
    capex: Annotated[
        str | None, typer.Option("--capex", metavar="USD", help="Money to build and fill it, such as 500e9.")
    ] = None,
    gw: Annotated[
        float | None, typer.Option("--gw", metavar="X", help="Or its power, in gigawatts of --definition.")
    ] = None,
    definition: Annotated[
        str | None,
        typer.Option(
            "--definition",
            metavar="NAME",
            help="Of the power: IT, facility or utility.  [default: IT, facility with a claim]",
        ),
    ] = None,
    racks: Annotated[
        float | None, typer.Option("--racks", metavar="N", help="Claimed racks of 72 GPUs: can the power run them?")
    ] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", metavar="N", help="Or claimed GPUs.")] = None,
    hardware: Annotated[
        str, typer.Option("--hardware", metavar="CHIP", help="A name of `trilaw plan hardware`, or a .toml file.")
    ] = "gb200",
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Which model answers.")] = "deepseek-r1",
    prompt: Annotated[int, typer.Option("--prompt", metavar="P", help="Tokens of a question.")] = 200,
    response: Annotated[int, typer.Option("--response", metavar="R", help="Tokens of an answer.")] = 8793,
    latency: Annotated[float, typer.Option("--latency", metavar="S", help="The most seconds per output token.")] = 0.05,
    assume: Assume = None,
    json_: Json = False,
    explain: Explain = False,
) -> None:
    """Plan a datacentre, judge a claim.

    From its money or its power: chips, trainings and answers, beside published figures. With --racks or --gpus: whether the power runs them.
    """
    from trilaw.api.plan import numbers_of
    from trilaw.cli.plan_lists import datacentre_text
    from trilaw.planner.datacentre import check_claim, plan_datacentre

    claimed = racks is not None or gpus is not None
    chosen = definition if definition is not None else "facility" if claimed else "IT"
    overrides = assumed(assume)
    plan = plan_datacentre(
        capex=None if capex is None else amount(capex, "--capex"),
        gw=gw,
        chip=hardware,
        definition=chosen,  # type: ignore[arg-type]
        numbers=numbers_of(model),
        prompt=prompt,
        response=response,
        target_latency=latency,
        assume=overrides,
    )
    data, claim = plan.to_json(), None
    if claimed:
        claim = check_claim(
            power=plan.watts[chosen],
            racks=racks,
            gpus=gpus,
            chip=hardware,
            definition=chosen,  # type: ignore[arg-type]
            assume=overrides,
        )
        data["claim"] = claim.to_json()
    show(data, lambda: datacentre_text(plan, claim), plan.sheet, json_, explain)


def calibrate_command(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write it, as .toml; it then is a CHIP.  [default: stdout]"
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it.")] = "this-machine",
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="How long to measure.")] = 10.0,
    json_: Json = False,
) -> None:
    """Measure this machine as a chip.

    The speed of matrix products, of memory, and how much there is. Leave the machine idle meanwhile.
    """
    from trilaw.core.errors import RequestError
    from trilaw.planner.calibrate import calibrate, save, to_toml

    if out is not None and out.suffix != ".toml":
        raise RequestError(f"--out {out}: give a name that ends in .toml, by which it is known as a chip.")
    found = calibrate(seconds, name=name)
    if out is not None:
        save(found, out)
    if json_:
        say(json.dumps(found.to_json(), indent=2))
    elif out is None:
        say(to_toml(found).rstrip())
    else:
        say(f"Written, a chip for --hardware: {out}")


def models_command(json_: Json = False) -> None:
    """List models that can be planned.

    By name, that is; a folder with a config.json does as well.
    """
    from trilaw.cli.plan_lists import model_rows, models_text

    rows = model_rows()
    say(json.dumps(rows, indent=2) if json_ else "\n".join(models_text(rows)))


def hardware_command(json_: Json = False) -> None:
    """List chips that can be planned.

    `trilaw plan chip` shows the sources of one.
    """
    from trilaw.cli.plan_lists import hardware_rows, hardware_text

    rows = hardware_rows()
    say(json.dumps(rows, indent=2) if json_ else "\n".join(hardware_text(rows)))


def validate_command(
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Also the rows that the assumptions were chosen on.")
    ] = False,
    json_: Json = False,
) -> None:
    """Hold the planner to measurements.

    Published ones: theirs, ours, the error; over 15 % with the reason.
    """
    from trilaw.cli.plan_lists import validation_text
    from trilaw.planner import validation, validation_serve

    training = validation.rows()
    tests = {
        "training": [row for row in training if not row.arithmetic],
        "serving": validation_serve.rows(),
        "sums and formulas of training": [row for row in training if row.arithmetic],
    }
    chosen = {"training": validation.calibration(), "serving": validation_serve.calibration()} if calibration else {}
    if json_:
        data = {
            part: [{"room": room, **row.to_json()} for room, rows in found.items() for row in rows]
            for part, found in (("rows", tests), ("calibration", chosen))
        }
        say(json.dumps(data, indent=2))
        return
    say("\n".join(validation_text(tests, chosen)))
