"""`trilaw fit SOURCE...`: the three laws of a run or a table, with intervals. `trilaw allocate RUN`: where the next budget should go."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli.terminal import say

if TYPE_CHECKING:
    from trilaw.core.types import Estimate
    from trilaw.laws.allocate import Allocation
    from trilaw.laws.findings import Findings
    from trilaw.laws.tables import Reading

_Json = Annotated[bool, typer.Option("--json", help="Print plain data instead of text.")]
_Seed = Annotated[int, typer.Option("--seed", help="Decides the bootstrap draws.")]


def fit_command(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Run folders, or CSV files (columns: docs/laws.md).", show_default=False
        ),
    ],
    law: Annotated[
        list[str] | None,
        typer.Option(
            "--law", metavar="LAW", help="pretrain, posttrain, testtime or joint; may be repeated.  [default: all]"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Of the evaluations.  [default: the first of each run]", show_default=False),
    ] = None,
    entropy: Annotated[
        float | None,
        typer.Option(
            "--entropy", metavar="NATS", help="The known irreducible loss, in nats a token.", show_default=False
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help="A CSV column by our name, such as value=eval_acc/100; may be repeated.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only CSV lines with this cell; may be repeated."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="A CSV column to pass over; may be repeated.")
    ] = None,
    bootstraps: Annotated[
        int, typer.Option("--bootstraps", help="Draws behind the intervals; 0: none.", min=0, max=100_000)
    ] = 1000,
    seed: _Seed = 0,
    json_: _Json = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Also draw the laws, as .svg or .png.", show_default=False),
    ] = None,
) -> None:
    """Fit the three scaling laws, each with its 90% intervals, and say which of them the data does not carry."""
    from trilaw.api.laws import fit

    found = fit(
        *sources,
        laws=law or None,
        split=split,
        entropy=entropy,
        reading=reading(map_ or [], where or [], ignore or []),
        bootstraps=bootstraps,
        seed=seed,
    )
    data = found.to_json()
    if picture is not None:
        from trilaw.reports.law_charts import picture as draw

        draw(data, picture)
    say(json.dumps(data, indent=2) if json_ else "\n".join(told(found)))
    if picture is not None and not json_:
        say(f"Picture: {picture}")


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
    seed: _Seed = 0,
    json_: _Json = False,
) -> None:
    """Split the next budget among a larger or longer-trained base, more RL, and more samples a question."""
    from trilaw.api.laws import allocate

    amount, unit = parse_budget(budget)
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
        say(json.dumps(data, indent=2, default=float))
    else:
        say("\n".join(advice(plan, commands)))


def reading(columns: list[str], where: list[str], ignore: list[str]) -> Reading:
    """How to read a CSV file, from the options. Raises RequestError for one that is not NAME=VALUE."""
    from trilaw.core.errors import RequestError
    from trilaw.laws.tables import Reading

    pairs: list[dict[str, str]] = []
    for option, given in (("--map", columns), ("--where", where)):
        pairs.append({})
        for text in given:
            name, mark, value = text.partition("=")
            if not mark or not name.strip():
                raise RequestError(f"{option} is '{text}': write it as NAME=VALUE.")
            pairs[-1][name.strip()] = value.strip()
    return Reading(tuple(ignore), pairs[0], pairs[1])


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


def told(found: Findings) -> list[str]:
    """The fits as text: a table each, what it predicts, and what has to be known about it."""
    lines: list[str] = []
    if found.pretrain is not None:
        lines += _pretrain(found)
    for name, fit in found.posttrain.items():
        source = found.material.sources.get(name)
        title = f"Law 2, post-training: {name or 'run'}{f' ({source})' if source else ''}"
        rows = [("R0", fit.R0), ("A, asymptote", fit.A), ("B, steepness", fit.B), ("C_mid", fit.C_mid)]
        lines += [
            "",
            title,
            "  R0 + (A - R0) / (1 + (C_mid / C)^B)",
            *_table(rows),
            f"  shape: {fit.diagnosis.sentence}",
        ]
        if fit.holdout is not None:
            lines.append(f"  check: {fit.holdout.sentence}")
        lines += _notes(fit.notes)
    names = list(found.posttrain)
    if len(names) > 1:
        from trilaw.laws.posttrain import compare

        for a, b in itertools.pairwise(names):
            lines += ["", f"  {a} against {b}: {compare(found.posttrain[a], found.posttrain[b]).sentence}"]
    for name in found.material.counts:
        lines += _testtime(found, name)
    if found.joint is not None:
        lines += [
            "",
            f"Joint law: {found.joint.task}, {found.joint.questions} questions, {len(found.joint.points)} models",
        ]
        lines += [f"  {name}: {part.sentence}" for name, part in found.joint.parts.items()]
        shown = found.joint.to_json()["parameters"]
        lines += [
            f"  {key:<22}{_number(e['value'])}  [{_number(e['low'])}, {_number(e['high'])}]" for key, e in shown.items()
        ]
        lines += _notes(found.joint.notes)
    if found.refused:
        lines += ["", "Not fitted"]
        lines += [f"  {law}: {reason}" for law, reason in found.refused.items()]
    return lines[1:] if lines[:1] == [""] else lines


def _pretrain(found: Findings) -> list[str]:
    from trilaw.laws.optimum import optimum

    fit = found.pretrain
    assert fit is not None
    rows = [(name, getattr(fit, name)) for name in ("E", "A", "B", "alpha", "beta", "allocation")]
    lines = [
        "",
        f"Law 1, pre-training: {len(fit.points)} points",
        "  loss = E + A / N^alpha + B / D^beta",
        *_table(rows),
    ]
    largest = max(point.compute for point in fit.points)
    for factor in (1.0, 10.0):
        best = optimum(fit, factor * largest)
        lines.append(
            f"  at {best.flops:.3g} FLOPs: N {_interval(best.parameters)}, D {_interval(best.tokens)}, loss {_interval(best.loss)}"
        )
    if found.material.entropy is not None:
        inside = fit.E.low <= found.material.entropy <= fit.E.high
        lines.append(
            f"  known entropy of the text: {found.material.entropy:.4f} nats a token, {'inside' if inside else 'OUTSIDE'} the interval of E"
        )
        known = found.known_entropy
        if known is not None:
            lines.append(
                f"  with E fixed to it: alpha {_interval(known.alpha)}, beta {_interval(known.beta)}, spread {known.spread:.2g}"
            )
    return [*lines, f"  spread of one model around the law: {100 * fit.spread:.2g} % of the loss", *_notes(fit.notes)]


def _testtime(found: Findings, name: str) -> list[str]:
    coverage, votes = found.testtime.get(name), found.votes.get(name)
    if coverage is None and votes is None:
        return []
    rows = found.material.counts[name]
    samples = min(row.samples for row in rows)
    lines = ["", f"Law 3, test time: {name or 'samples'}, {len(rows)} problems x {samples} samples"]
    ks = [1, samples, 10 * samples]
    if coverage is not None:
        lines += [
            f"  pass@{k:<6} {_interval(coverage.predict(k))}{'' if k <= samples else '  extrapolated'}" for k in ks
        ]
    if votes is not None:
        lines += [f"  maj@{k:<7} {_interval(votes.predict(k))}{'' if k <= samples else '  extrapolated'}" for k in ks]
        lines.append(f"  plateau of the vote: {_interval(votes.plateau)}")
    return lines + _notes([*(coverage.notes if coverage else ()), *(votes.notes if votes else ())])


def advice(plan: Allocation, commands: Sequence[str | None] = ()) -> list[str]:
    """The allocation as text: the verdict first, then what it rests on."""
    lines = [plan.verdict, ""]
    best = plan.best
    lines.append(
        f"Best split of {plan.budget:.3g} {'FLOPs' if plan.unit == 'flops' else 'dollars'}, {plan.queries:.3g} questions: "
        f"accuracy {_interval(plan.accuracy)} (start {_interval(plan.start_accuracy)})"
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
        f"  {rival.name:<22}accuracy {_interval(rival.accuracy)}, behind {_interval(rival.behind)}"
        for rival in plan.rivals
    ]
    if plan.target is not None:
        least = (
            "no budget up to a hundred times this one does"
            if plan.target.budget is None
            else f"{_interval(plan.target.budget)} does"
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
    return lines + _notes(plan.notes)


def _table(rows: list[tuple[str, Estimate]]) -> list[str]:
    return [f"  {name:<14}{_number(e.value):>10}  [{_number(e.low)}, {_number(e.high)}]" for name, e in rows]


def _interval(e: Estimate) -> str:
    return f"{_number(e.value)} [{_number(e.low)}, {_number(e.high)}]"


def _number(x: float) -> str:
    return f"{x:.4g}"


def _notes(notes: Any) -> list[str]:
    return [f"  note: {note}" for note in dict.fromkeys(notes)]
