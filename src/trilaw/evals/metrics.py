"""From the outcomes of samples to the table of results: one value a problem and metric, then a mean over problems with its interval.

    pass@k       at least one of k samples is right (for k = 1: the share of right samples)
    maj@k        the plurality vote of k samples is right
    mean_score   the mean value of a sample; only where a task gives partial credit
    mean_tokens  tokens of a completion      truncated    share of samples cut off at max_tokens
    answered     share of samples with an answer in them

A sample is right when its value is 1. The estimators are exact over all subsets of the samples (core.estimators).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from trilaw.core.estimators import maj_at_k, pass_at_k, powers
from trilaw.core.intervals import bootstrap
from trilaw.core.types import Evaluation
from trilaw.evals.store import Outcome

Values = dict[str, tuple[float, ...]]  # metric -> one value a problem, in the order of the problems


def votes(outcomes: Sequence[Outcome]) -> tuple[list[int], list[int]]:
    """How many samples gave each right answer, and each wrong one; samples without an answer are in neither."""
    counts = Counter(o.extracted for o in outcomes if o.extracted is not None)
    right = {o.extracted for o in outcomes if o.value >= 1.0}
    return [n for a, n in counts.items() if a in right], [n for a, n in counts.items() if a not in right]


def measure(groups: Sequence[Sequence[Outcome]]) -> Values:
    """One value a problem for each metric; `groups` holds the samples of each problem, equally many for each."""
    n = len(groups[0])
    rows: dict[str, list[float]] = {}
    partial = any(0.0 < o.value < 1.0 for outcomes in groups for o in outcomes)
    for outcomes in groups:
        correct = sum(o.value >= 1.0 for o in outcomes)
        right, wrong = votes(outcomes)
        row = {f"pass@{k}": pass_at_k(n, correct, k) for k in powers(n)}
        row |= {f"maj@{k}": maj_at_k(n, right, wrong, k) for k in powers(n)}
        if partial:
            row["mean_score"] = sum(o.value for o in outcomes) / n
        row["mean_tokens"] = sum(o.usage.completion_tokens for o in outcomes) / n
        row["truncated"] = sum(o.stop == "length" for o in outcomes) / n
        row["answered"] = sum(o.extracted is not None for o in outcomes) / n
        for metric, value in row.items():
            rows.setdefault(metric, []).append(value)
    return {metric: tuple(values) for metric, values in rows.items()}


def estimate(
    values: Mapping[str, Sequence[float]], *, stage: str, task: str, split: str, max_tokens: int
) -> tuple[Evaluation, ...]:
    """The means over problems, with 95% intervals. The same values give the same intervals."""
    table = []
    for metric, row in values.items():
        greatest = max(max_tokens, *row) if metric == "mean_tokens" else 1.0
        table.append(Evaluation(stage, task, split, metric, bootstrap(row, bounds=(0.0, float(greatest)))))
    return tuple(table)
