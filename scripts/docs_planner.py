"""The generated parts of docs/planner.md: `python scripts/docs_planner.py` after a change of an assumption, a model of time, or a measurement.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of the page is written by hand. A test compares the page with what this
script would write.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trilaw.planner import validation, validation_here, validation_serve
from trilaw.planner.economics import economics
from trilaw.planner.hardware import chip
from trilaw.planner.models import model
from trilaw.planner.r1_zero import r1_zero
from trilaw.planner.sheet import assumptions
from trilaw.planner.validation_row import ValidationRow

DOCS = Path(__file__).parent.parent / "docs"
PAGE, MEASURED = DOCS / "planner.md", DOCS / "planner_measured.toml"
BLOCK = re.compile(r"<!-- generated: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
OFF = 0.15  # an error from which the reason stands in the page


def update(text: str) -> str:
    """The page with every generated part written anew. Raises KeyError for a part that there is not."""

    def part(block: re.Match[str]) -> str:
        return "\n".join([f"<!-- generated: {block['name']} -->", *PARTS[block["name"]](), "<!-- end -->"])

    return BLOCK.sub(part, text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    aligned = set(right)
    rule = ["---:" if i in aligned else "---" for i in range(len(head))]
    lines = [head, rule, *([cell.replace("|", r"\|").replace("<", r"\<") for cell in row] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _number(x: float) -> str:
    if abs(x) >= 1e9:
        return f"{x:.3g}"
    return f"{x:,.0f}" if abs(x) >= 1000 or x == int(x) else f"{x:.3g}"


def _percent(x: float) -> str:
    return f"{100 * x:+.1f} %"


def _assumptions() -> list[str]:
    rows = [
        (f"`{a.name}`", f"{a.value:g}", f"{a.low:g} to {a.high:g}", a.unit, a.about, a.source)
        for a in assumptions().values()
    ]
    return _table(("name", "value", "range", "unit", "what it is", "source, and on what it was calibrated"), rows, (1,))


def _summary(rows: Sequence[ValidationRow]) -> str:
    within = sum(abs(row.error) <= OFF for row in rows)
    sizes = sorted(abs(row.error) for row in rows)
    return (
        f"{within} of {len(rows)} rows within 15 %; half of the errors are below {100 * sizes[len(sizes) // 2]:.2g} %, the largest is "
        f"{100 * sizes[-1]:.0f} %."
    )


def _rows(rows: Sequence[ValidationRow], *, calibration: bool = False) -> list[str]:
    """A summary, the table, the reasons, the sources."""
    sources: dict[str, int] = {}
    chosen: dict[str, int] = {}
    table, reasons = [], []
    for row in rows:
        mark = sources.setdefault(row.source, len(sources) + 1)
        peers = "; ".join(f"{name} {_percent(error)}" for name, error in row.peer_errors.items())
        cells = [
            row.what,
            _number(row.measured),
            _number(row.predicted),
            row.unit,
            _percent(row.error),
            peers,
            f"[{mark}]",
        ]
        if not calibration:
            letter = chosen.setdefault(row.calibrated_on, len(chosen))
            cells.append("abcdefghij"[letter])
        table.append(cells)
        if abs(row.error) > OFF and row.why:
            reasons.append(f"- {row.what} ({_percent(row.error)}): {row.why}.")
    head = [
        "what",
        "measured",
        "planned",
        "unit",
        "error",
        "peers' error",
        "source",
        *([] if calibration else ["chosen on"]),
    ]
    lines = [_summary(rows), "", *_table(head, table, (1, 2, 4))]
    if reasons:
        lines += ["", "Off by more than 15 %, and why:", "", *reasons]
    lines += ["", "Sources: " + "; ".join(f"[{mark}] {source}" for source, mark in sources.items()) + "."]
    if not calibration:
        letters = (f"({'abcdefghij'[letter]}) {what}" for what, letter in chosen.items())
        lines += ["", "The assumptions behind a row were chosen on: " + "; ".join(letters) + "."]
    return lines


def machine_rows() -> list[ValidationRow]:
    """Trilaw's own work on one machine beside its plan; benchmarks/plan_here.py measures it."""
    data: dict[str, Any] = tomllib.loads(MEASURED.read_text(encoding="utf-8"))
    return validation_here.rows(data, chip(data["chip"]))


def _day() -> list[str]:
    day = economics()
    published = day.published
    rows = [
        ("cost of the day", f"${published['cost']:,.0f}", f"${day.usd_cost:,.0f}", _percent(day.usd_cost / published["cost"] - 1)),
        ("revenue at list prices", f"${published['revenue']:,.0f}", f"${day.usd_revenue:,.0f}", f"{100 * (day.usd_revenue / published['revenue'] - 1):+.3f} %"),
        ("profit over cost", f"{100 * published['margin']:.0f} %", f"{100 * day.margin:.1f} %", ""),
    ]  # fmt: skip
    return [*_table(("DeepSeek's day", "published", "the same sum here", "error"), rows, (1, 2, 3)), "", day.note]


def _r1_zero() -> list[str]:
    found = r1_zero(model("deepseek-v3"), chip("h800"))
    return [
        f"R1-Zero on 512 H800: planned {found.plan.hours:.0f} h, published about {found.published_hours:.0f} h ({_percent(found.error)}). {found.why}"
    ]


PARTS: dict[str, Callable[[], list[str]]] = {
    "assumptions": _assumptions,
    "training": lambda: _rows([row for row in validation.rows() if not row.arithmetic]),
    "sums": lambda: _rows([row for row in validation.rows() if row.arithmetic]),
    "training-calibration": lambda: _rows(validation.calibration(), calibration=True),
    "serving": lambda: _rows(validation_serve.rows()),
    "serving-calibration": lambda: _rows(validation_serve.calibration(), calibration=True),
    "machine": lambda: _rows(machine_rows()),
    "day": _day,
    "r1-zero": _r1_zero,
}


if __name__ == "__main__":
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
