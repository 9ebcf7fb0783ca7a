"""The table of results in the terminal: one row an estimate, shares in percent, the interval beside the value."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from trilaw.core.types import Evaluation
from trilaw.reports import words


def essential(rows: Iterable[Evaluation]) -> list[Evaluation]:
    """`rows` without the middle of each curve: of the pass@k and the maj@k of a model on a split, pass@1 and the largest k stay."""
    kept: list[Evaluation] = []
    rows = list(rows)
    largest: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        family, k = _at_k(row.metric)
        place = (row.stage, row.task, row.split, family)
        largest[place] = max(k, largest.get(place, 0))
    for row in rows:
        family, k = _at_k(row.metric)
        if not k or row.metric == "pass@1" or (k > 1 and k == largest[row.stage, row.task, row.split, family]):
            kept.append(row)
    return kept


def _at_k(metric: str) -> tuple[str, int]:
    """("pass", 16) of "pass@16"; (metric, 0) of any other."""
    match = re.fullmatch(r"(.+)@(\d{1,6})", metric)
    return (match[1], int(match[2])) if match else (metric, 0)


def evaluations_table(rows: Iterable[Evaluation], title: str | None = None) -> Table:
    """A rich table of `rows`, in their order. Names come from outside, so markup in them is not obeyed."""
    table = Table(
        title=None if title is None else Text(title), header_style="bold", title_justify="left", title_style="bold"
    )
    for heading in ("model", "task", "split", "metric"):
        table.add_column(heading, overflow="fold")
    for heading in ("value", "interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    before: tuple[str, str, str] | None = None
    for row in rows:
        place = (row.stage, row.task, row.split)
        if before is not None and place != before:
            table.add_section()
        names = place if place != before else ("", "", "")  # a block of rows names its model once
        before = place
        estimate = row.estimate
        cells = (
            *names,
            row.metric,
            words.value(row.metric, estimate.value),
            words.interval(row.metric, estimate),
            f"{estimate.n:,}",
        )
        table.add_row(*(Text(words.line(cell, 200)) for cell in cells))
    return table
