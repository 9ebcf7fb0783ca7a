"""What a run showed, in sentences computed from its estimates: gain, no clear gain, or degradation, and never more than that.

A trained model is compared with the nearest model it was trained from that was evaluated too. A difference counts only when the two
intervals are apart. That is stricter than a test of the difference, so "no clear gain" does not say "equal". Nothing is selected: models
come in the order of the recipe, splits in the order in which they were evaluated (`test` first).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trilaw.core.types import Estimate, Evaluation
from trilaw.reports import words
from trilaw.reports.read import Run

Outcome = Literal["gain", "none", "loss", "alone"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One model on one split by one metric, with what it came from (`baseline` is None when that was not evaluated)."""

    stage: str
    baseline: str | None
    task: str
    split: str
    metric: str
    outcome: Outcome
    sentence: str


def evaluated(run: Run) -> list[str]:
    """Names of the evaluated models, those of the run in the order of the recipe, models from outside first."""
    names = list(dict.fromkeys(row.stage for row in run.shown))
    order = [stage.name for stage in run.stages]
    return sorted(names, key=lambda name: order.index(name) if name in order else -1)


def splits(run: Run) -> list[tuple[str, str]]:
    """(task, split) pairs in the order of evaluation, splits named "test" before the others."""
    places = list(dict.fromkeys((row.task, row.split) for row in run.shown))
    return sorted(places, key=lambda place: place[1] != "test")


def verdicts(run: Run) -> list[Verdict]:
    """The comparisons by pass@1, and by pass@k of the largest k where that alone was lost; the headline is the first."""
    found: list[Verdict] = []
    names = evaluated(run)
    for task, split in splits(run):
        table = {(row.stage, row.metric): row for row in run.shown if (row.task, row.split) == (task, split)}
        for name in names:
            base = next((a for a in run.ancestors(name) if (a, "pass@1") in table), None)
            row = table.get((name, "pass@1"))
            if row is None or (base is None and _is_baseline(run, name, names)):
                continue
            first = _verdict(row, table.get((base, "pass@1")) if base else None)
            found.append(first)
            wide = max(
                (m for s, m in table if s == name and re.fullmatch(r"pass@\d{1,6}", m)), key=lambda m: int(m[5:])
            )
            if base and wide != "pass@1" and (base, wide) in table and first.outcome != "loss":
                other = _verdict(table[name, wide], table[base, wide])
                if other.outcome == "loss":  # more often right, and yet fewer problems within reach: that must be said
                    found.append(other)
    return found


def headline(run: Run) -> str:
    """The result in one sentence."""
    found = verdicts(run)
    if found:
        return found[0].sentence
    if not run.complete:
        return "This run has no result yet: its evaluation has not finished."
    return "This run evaluated no model by pass@1, so it makes no claim about accuracy."


def _is_baseline(run: Run, name: str, names: list[str]) -> bool:
    return any(name in run.ancestors(other) for other in names)


def _verdict(row: Evaluation, base: Evaluation | None) -> Verdict:
    new = row.estimate
    where = "held-out problems" if row.split == "test" else f"problems of the split '{row.split}'"
    if row.metric == "pass@1":
        said = f"{row.stage} solves {_estimate(new)} of {where}"
    else:
        said = f"with {row.metric[5:]} tries a problem, {row.stage} solves {_estimate(new)} of {where}"
    if base is None:
        return Verdict(row.stage, None, row.task, row.split, row.metric, "alone", f"{said}.")
    old = base.estimate
    said += f", {base.stage} {_estimate(old)}"
    difference = abs(new.value - old.value)
    points = f"{100 * difference:.0f}" if difference >= 0.095 else f"{100 * difference:.1f}"
    outcome: Outcome
    if new.low > old.high:
        outcome, end = "gain", f": a gain of {points} points."
    elif new.high < old.low:
        outcome, end = "loss", f": a degradation, {points} points lost."
    else:
        outcome, end = "none", ". The intervals overlap: no clear gain."
    return Verdict(row.stage, base.stage, row.task, row.split, row.metric, outcome, said + end)


def _estimate(estimate: Estimate) -> str:
    return f"{words.percent(estimate.value)} {words.interval('pass@1', estimate).removesuffix(' %')}"
