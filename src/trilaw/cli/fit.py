"""`trilaw fit SOURCE...`: the three laws of a run or a table, with intervals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilaw.cli.terminal import say
from trilaw.reports import words

if TYPE_CHECKING:
    from trilaw.core.types import Estimate
    from trilaw.laws.findings import Findings
    from trilaw.laws.tables import Reading

MOST_TEXT = 2_000  # characters of a line
Json = Annotated[bool, typer.Option("--json", help="Print plain data instead of text.")]
Seed = Annotated[int, typer.Option("--seed", help="Decides the bootstrap draws.")]


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
    seed: Seed = 0,
    json_: Json = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Also draw the laws, as .svg or .png.", show_default=False),
    ] = None,
) -> None:
    """Fit the three scaling laws, each with its 90% intervals, and say which of them the data does not carry."""
    from trilaw.api.laws import fit
    from trilaw.reports.contract import finite

    if picture is not None:
        from trilaw.reports.style import check_picture

        check_picture(picture)  # now: a fit may take minutes
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
    say(json.dumps(finite(data), indent=2) if json_ else printed(told(found)))
    if picture is not None:
        from trilaw.reports.law_charts import picture as draw

        draw(data, picture)
        if not json_:
            say(f"Picture: {picture}")


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


def told(found: Findings) -> list[str]:
    """The fits as text: a table each, what it predicts, and what has to be known about it."""
    lines: list[str] = []
    if found.pretrain is not None:
        lines += _pretrain(found)
    if found.link is not None:
        link = found.link
        rows = [("eps", link.eps), ("k", link.k), ("gamma", link.gamma)]
        lines += ["", "Loss to accuracy: 1 - accuracy = eps - k exp(-gamma loss)", *_table(rows), *notes(link.notes)]
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
        lines += notes(fit.notes)
    names = [name for name, fit in found.posttrain.items() if len(fit.draws_SP)]
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
            f"  {key:<22}{number(e['value'])}  [{number(e['low'])}, {number(e['high'])}]" for key, e in shown.items()
        ]
        lines += notes(found.joint.notes)
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
            f"  at {best.flops:.3g} FLOPs: N {interval(best.parameters)}, D {interval(best.tokens)}, loss {interval(best.loss)}"
        )
    if found.material.entropy is not None:
        inside = fit.E.low <= found.material.entropy <= fit.E.high
        lines.append(
            f"  known entropy of the text: {found.material.entropy:.4f} nats a token, {'inside' if inside else 'OUTSIDE'} the interval of E"
        )
        known = found.known_entropy
        if known is not None:
            lines.append(
                f"  with E fixed to it: alpha {interval(known.alpha)}, beta {interval(known.beta)}, spread {known.spread:.2g}"
            )
    return [*lines, f"  spread of one model around the law: {100 * fit.spread:.2g} % of the loss", *notes(fit.notes)]


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
            f"  pass@{k:<6} {interval(coverage.predict(k))}{'' if k <= samples else '  extrapolated'}" for k in ks
        ]
    if votes is not None:
        lines += [f"  maj@{k:<7} {interval(votes.predict(k))}{'' if k <= samples else '  extrapolated'}" for k in ks]
        lines.append(f"  plateau of the vote: {interval(votes.plateau)}")
    return lines + notes([*(coverage.notes if coverage else ()), *(votes.notes if votes else ())])


def printed(texts: Sequence[str]) -> str:
    """One line each: a name in them may come from anywhere and hold line breaks, or a megabyte."""
    return "\n".join(words.line(text, MOST_TEXT) for text in texts)


def _table(rows: list[tuple[str, Estimate]]) -> list[str]:
    return [f"  {name:<14}{number(e.value):>10}  [{number(e.low)}, {number(e.high)}]" for name, e in rows]


def interval(e: Estimate) -> str:
    return f"{number(e.value)} [{number(e.low)}, {number(e.high)}]"


def number(x: float) -> str:
    return f"{x:.4g}"


def notes(notes: Any) -> list[str]:
    return [f"  note: {note}" for note in dict.fromkeys(notes)]
