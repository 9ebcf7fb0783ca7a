"""report.html: one file that says what a run did, with its numbers, pictures and samples, and loads nothing from anywhere.

All text from outside (model output, names, recipe) enters through jinja2's autoescaping as text; the only markup let through is our own
charts. The page has no script, and its content policy forbids any, as well as every request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from trilaw.core.rundir import write_text
from trilaw.reports import contract, words
from trilaw.reports.charts import Plan, charts, render
from trilaw.reports.law_charts import drawings
from trilaw.reports.law_file import read_laws
from trilaw.reports.read import Run, StoredSample, id_order, read_run
from trilaw.reports.table import essential
from trilaw.reports.verdicts import evaluated, headline, splits, verdicts

PROBLEMS = 3  # shown side by side: the first ones by id


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's first sample on a problem, ready to be shown."""

    stage: str
    text: str
    verdict: str  # "right", "wrong", or what failed
    right: bool
    extracted: str
    tokens: int
    cut: bool  # it ran into the token limit


@dataclass(frozen=True, slots=True)
class Side:
    """One problem with the answers of the models, base first."""

    problem: str
    prompt: str
    gold: str
    answers: tuple[Answer, ...]


def build(run_folder: Path) -> Path:
    """Write report.json and report.html into a run folder, finished or not; the path of the page.

    Raises RequestError if it is no run folder, RunError if its resolved.json is broken or the files cannot be written.
    """
    run = read_run(run_folder)
    report = contract.report(run)
    html = page(run, report)
    write_text(run_folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    path = run_folder / "report.html"
    write_text(path, html)
    return path


def page(run: Run, report: dict[str, Any]) -> str:
    """The HTML of a run's report."""
    files = resources.files("trilaw.reports")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = words.clean
    template = environment.from_string((files / "template.html").read_text(encoding="utf-8"))
    found = verdicts(run)
    place, sides = side_by_side(run)
    laws, laws_lost = read_laws(run)
    drawn = render([Plan(*drawing) for drawing in drawings(laws)], "l") if laws else []
    return template.render(
        run=run,
        report=report,
        style=Markup((files / "style.css").read_text(encoding="utf-8")),
        headline=headline(run),
        outcome=found[0].outcome if found else "alone",
        more=found[1:],
        pending=[stage.name for stage in run.stages if not stage.done],
        tables=[table(run, task, split) for task, split in splits(run)],
        charts=[(chart, Markup(chart.svg)) for chart in charts(run)],
        laws=laws,
        laws_lost=laws_lost,
        law_charts=[(chart, Markup(chart.svg)) for chart in drawn],
        place=place,
        sides=sides,
        words=words,
        facts=_facts(report["machine"]),
        resolved=json.dumps(contract.finite(run.resolved), indent=2),
        folder=run.folder.name or run.name,
    )


def table(run: Run, task: str, split: str) -> dict[str, Any]:
    """The essential estimates of one split: a row a metric, a column a model."""
    rows = essential(row for row in run.shown if (row.task, row.split) == (task, split))
    models = [name for name in evaluated(run) if any(row.stage == name for row in rows)]
    cells = {(row.metric, row.stage): row for row in rows}
    lines = []
    for metric in dict.fromkeys(row.metric for row in rows):
        estimates = [cells[metric, model].estimate if (metric, model) in cells else None for model in models]
        counts = sorted({estimate.n for estimate in estimates if estimate is not None})
        lines.append({"metric": metric, "estimates": estimates, "n": " / ".join(f"{n:,}" for n in counts)})
    methods = sorted({row.estimate.method for row in rows if row.estimate.method})
    return {"task": task, "split": split, "models": models, "lines": lines, "methods": "; ".join(methods)}


def side_by_side(run: Run) -> tuple[str, list[Side]]:
    """The first problems by id of the first evaluated split (`test` before others), sample 0 of each model of the headline.

    The rule knows nothing of the answers: what is shown is not selected.
    """
    compared = [verdict for verdict in verdicts(run) if verdict.baseline]
    wanted = [str(compared[0].baseline), compared[0].stage] if compared else evaluated(run)[:2]
    places = splits(run)
    if not places:  # the evaluation has not finished; what it stored is shown all the same
        wanted = list(dict.fromkeys(sample.stage for sample in run.samples))[:2]
        places = sorted(
            dict.fromkeys((sample.task, sample.split) for sample in run.samples), key=lambda place: place[1] != "test"
        )
    for task, split in places:
        store: dict[str, dict[str, StoredSample]] = {}
        for sample in run.samples:
            if sample.task in ("", task) and sample.split == split and sample.stage in wanted:
                store.setdefault(sample.problem, {}).setdefault(sample.stage, sample)
        sides = []
        for problem in sorted(store, key=id_order)[:PROBLEMS]:
            said = [store[problem][name] for name in wanted if name in store[problem]]
            sides.append(
                Side(
                    problem,
                    words.clean(said[0].prompt, words.MAX_TEXT),
                    words.clean(said[0].gold, 200),
                    tuple(map(_answer, said)),
                )
            )
        if sides:
            return f"{task} / {split}", sides
    return "", []


def _answer(sample: StoredSample) -> Answer:
    if sample.error:
        verdict = f"failed: {sample.error}"
    elif sample.value in (0.0, 1.0):
        verdict = "right" if sample.value else "wrong"
    else:
        verdict = f"partly right ({words.percent(sample.value)})"
    return Answer(
        stage=sample.stage,
        text=words.clean(sample.text, words.MAX_TEXT),
        verdict=words.clean(verdict, 80),
        right=sample.value >= 1.0,
        extracted="none" if sample.extracted is None else words.clean(sample.extracted, 200),
        tokens=sample.tokens,
        cut=sample.stop == "length",
    )


def _facts(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """Machine, date and versions, as far as the manifest knows them."""
    cores, memory = machine["cores"], machine["memory_bytes"]
    threads = f", {machine['threads']} threads used" if machine["threads"] else ""
    versions = [
        f"{name} {machine[key]}"
        for key, name in (("trilaw", "Trilaw"), ("torch", "torch"), ("numpy", "numpy"), ("python", "Python"))
        if machine[key]
    ]
    facts = {
        "Processor": machine["cpu"] and f"{machine['cpu']}{f' ({cores} cores{threads})' if cores else ''}",
        "Memory": memory and f"{memory / 2**30:.1f} GiB",
        "System": machine["platform"],
        "Versions": ", ".join(versions),
        "Commit": machine["git"],
        "Started": machine["started"],
        "Ended": machine["ended"],
        "Attempts": str(machine["attempts"]) if machine["attempts"] > 1 else "",
    }
    return [(name, str(fact)) for name, fact in facts.items() if fact]
