"""Measured points in CSV files.

A file's header says what it holds; the first set of columns below that it covers decides. Columns that are not listed are refused, unless
they are named in `ignore`, or `columns` says which of the file's columns stand for ours: then the others are passed over, and so are lines
in which a needed cell is empty. `columns` may divide: {"value": "eval_acc/100"}. `where` keeps the lines with these cells.

| kind     | columns                     | optional               |
|----------|-----------------------------|------------------------|
| losses   | parameters, loss, and tokens or flops (6 N D) | accuracy, group |
| curve    | compute, value              | questions, run         |
| counts   | problem, samples, correct   | votes, model           |
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trilaw.core.errors import RequestError, nearest
from trilaw.laws.points import CurvePoint, LossPoint, ProblemCounts

_KINDS = {
    "losses": (("parameters", "loss"), ("tokens", "flops", "accuracy", "group")),
    "curve": (("compute", "value"), ("questions", "run")),
    "counts": (("problem", "samples", "correct"), ("votes", "model")),
}
COLUMNS = tuple(dict.fromkeys(name for needed, optional in _KINDS.values() for name in (*needed, *optional)))


@dataclass(frozen=True)
class Reading:
    """How to read a table: columns to pass over, ours -> the file's (with "/NUMBER" behind it to divide), and lines to keep."""

    ignore: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises RequestError for a column that is none of ours."""
        for name in self.columns:
            if name not in COLUMNS:
                raise RequestError(f"'{name}' is no column of a law's table{nearest(name, COLUMNS)}.")


PLAIN = Reading()


@dataclass(frozen=True)
class Table:
    """A file's lines as our columns: (line number, cells)."""

    path: Path
    kind: str
    lines: tuple[tuple[int, Mapping[str, str]], ...]


def read(path: Path, reading: Reading = PLAIN) -> Table:
    """A CSV file as a table of one kind. Raises RequestError for one that is none, or has a broken line (it is named)."""
    rows = _rows(path)
    header = [cell.strip() for cell in rows[0]]
    names = {cell.lower(): cell for cell in header}
    source: dict[str, str] = {}  # ours -> the file's, in lower case
    divisor: dict[str, float] = {}
    for ours, theirs in reading.columns.items():
        column, divisor[ours] = _divided(theirs)
        if column.lower() not in names:
            raise RequestError(f"{path} has no column '{column}'{nearest(column, header)}.")
        source[ours] = column.lower()
    for name in reading.where:
        if name.lower() not in names:
            raise RequestError(f"{path} has no column '{name}'{nearest(name, header)}.")
    mapped = bool(source)
    for name in names:
        if name in COLUMNS and name not in source and name not in reading.ignore:
            source[name] = name
    kind = _kind(set(source), header, path)
    needed, optional = _KINDS[kind]
    for name in [] if mapped else names:
        if name not in (*needed, *optional) and name not in {n.lower() for n in (*reading.ignore, *reading.where)}:
            raise RequestError(f"{path}: the column '{name}' is not known{nearest(name, (*needed, *optional))}.")
    lines: list[tuple[int, Mapping[str, str]]] = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise RequestError(f"{path}, line {number}: {len(row)} cells where the header has {len(header)}.")
        cells = {name.lower(): cell.strip() for name, cell in zip(header, row)}
        if any(cells[name.lower()] != value for name, value in reading.where.items()):
            continue
        ours_cells = {name: cells[column] for name, column in source.items() if name in (*needed, *optional)}
        if mapped and any(not ours_cells[name] for name in needed):
            continue
        for name, by in divisor.items():
            if by != 1.0 and ours_cells.get(name):
                ours_cells[name] = repr(_number(ours_cells, name, path, number) / by)
        lines.append((number, ours_cells))
    if not lines:
        raise RequestError(
            f"{path} has no line{' that is asked for' if reading.where or mapped else ''} below its header."
        )
    return Table(path, kind, tuple(lines))


def losses(table: Table) -> tuple[LossPoint, ...]:
    """Raises RequestError for a broken cell (line and column are named). Tokens are flops / (6 parameters) where they are not given."""
    points = []
    for line, row in table.lines:
        n = _number(row, "parameters", table.path, line, above=0)
        flops = _number(row, "flops", table.path, line, above=0) if row.get("flops") else None
        if row.get("tokens"):
            tokens = _number(row, "tokens", table.path, line, above=0)
        elif flops is not None:
            tokens = flops / (6.0 * n)
        else:
            raise RequestError(f"{table.path}, line {line}: there are neither tokens nor flops.")
        points.append(
            LossPoint(
                n,
                tokens,
                _number(row, "loss", table.path, line, above=0),
                flops,
                _number(row, "accuracy", table.path, line, least=0, most=1) if row.get("accuracy") else None,
                row.get("group") or "",
            )
        )
    return tuple(points)


def curves(table: Table) -> dict[str, tuple[CurvePoint, ...]]:
    """One curve a value of `run` (the empty name without that column), each in order of compute. Raises RequestError for a broken cell."""
    found: dict[str, list[CurvePoint]] = {}
    for line, row in table.lines:
        point = CurvePoint(
            _number(row, "compute", table.path, line, least=0),
            _number(row, "value", table.path, line, least=0, most=1),
            int(_number(row, "questions", table.path, line, least=0)) if row.get("questions") else 0,
        )
        found.setdefault(row.get("run") or "", []).append(point)
    return {run: tuple(sorted(points, key=lambda p: p.compute)) for run, points in found.items()}


def counts(table: Table) -> dict[str, tuple[ProblemCounts, ...]]:
    """One set of problems a value of `model`. `votes` reads "12/3 4 1": right answers before the stroke, wrong ones after it.

    Raises RequestError for a broken cell.
    """
    found: dict[str, list[ProblemCounts]] = {}
    for line, row in table.lines:
        samples = _number(row, "samples", table.path, line, least=1)
        correct = _number(row, "correct", table.path, line, least=0, most=samples)
        if samples % 1 or correct % 1:
            raise RequestError(f"{table.path}, line {line}: samples and correct are counts and must be whole numbers.")
        right, wrong = _votes(row.get("votes") or "", table.path, line)
        if sum(right) > correct or sum(right) + sum(wrong) > samples:
            raise RequestError(f"{table.path}, line {line}: there are more votes than samples.")
        made = ProblemCounts(row["problem"], int(samples), int(correct), right, wrong)
        found.setdefault(row.get("model") or "", []).append(made)
    return {model: tuple(rows) for model, rows in found.items()}


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path} cannot be read as a table: {getattr(error, 'strerror', None) or error}.") from None
    if not rows:
        raise RequestError(f"{path} is empty: it needs a header line and one line a point.")
    return rows


def _kind(ours: set[str], header: list[str], path: Path) -> str:
    for name, (needed, _) in _KINDS.items():
        if ours >= set(needed):
            return name
    needs = "; ".join(f"{name}: {', '.join(needed)}" for name, (needed, _) in _KINDS.items())
    raise RequestError(
        f"{path}: the columns {', '.join(header)} are those of no law ({needs}); say which is which with --map OURS=THEIRS."
    )


def _divided(text: str) -> tuple[str, float]:
    """("eval_acc", 100.0) of "eval_acc/100"."""
    column, stroke, by = text.rpartition("/")
    if stroke and re.fullmatch(r"[0-9.]+(e[0-9]+)?", by) and float(by) > 0:
        return column.strip(), float(by)
    return text.strip(), 1.0


def _number(
    row: Mapping[str, str],
    key: str,
    path: Path,
    line: int,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> float:
    text = row[key]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    fits = math.isfinite(value) and (above is None or value > above)
    fits = fits and (least is None or value >= least) and (most is None or value <= most)
    if not fits:
        bounds = [f"above {above:g}"] if above is not None else [f"at least {least:g}"] if least is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        raise RequestError(
            f"{path}, line {line}: {key} is '{text}', it must be a number {' and '.join(bounds)}.".replace(" .", ".")
        )
    return value


def _votes(text: str, path: Path, line: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not text:
        return (), ()
    right, stroke, wrong = text.partition("/")
    try:
        if not stroke:
            raise ValueError
        sides = tuple(int(n) for n in right.split()), tuple(int(n) for n in wrong.split())
        if min((*sides[0], *sides[1]), default=0) < 0:
            raise ValueError
    except ValueError:
        raise RequestError(
            f"{path}, line {line}: votes is '{text}', it must read like '12/3 4 1': votes of right answers, a stroke, votes of wrong ones."
        ) from None
    return sides
