"""Measured points in CSV files.

A file's header says what it holds; the first set of columns below that it covers decides. Columns that are not listed are refused, unless
they are named in `ignore`, or `columns` says which of the file's columns stand for ours: then the others are passed over, and so are lines
in which a needed cell is empty. `columns` may divide: {"value": "eval_acc/100"}. `where` keeps the lines with these cells.

UTF-8 with or without a byte-order mark; commas, or where the header has none semicolons or tabs. A file comes from anywhere, so what is read
of it is bounded: its size, the lines that are kept, and every number (a fit of 1e300 would only overflow somewhere further on).

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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trilaw.core.errors import RequestError, nearest
from trilaw.laws.points import CurvePoint, LossPoint, ProblemCounts

_KINDS = {
    "losses": (("parameters", "loss"), ("tokens", "flops", "accuracy", "group")),
    "curve": (("compute", "value"), ("questions", "run")),
    "counts": (("problem", "samples", "correct"), ("votes", "model")),
}
MOST_BYTES = 256 << 20
MOST_LINES = 200_000  # that are kept; a fit takes fewer (`fitting.few_enough`)
MOST_SAMPLES = 1_000_000  # of a problem: fits take fewer
LARGEST = 1e60  # of a number, and one over the smallest
_SEPARATORS = ",;\t"
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
    header = next(rows, (0, []))[1]
    if not header:
        raise RequestError(f"{path} is empty: it needs a header line and one line a point.")
    source, divisor = _columns(header, path, reading)
    kind = _kind(set(source), header, path)
    needed, optional = _KINDS[kind]
    mapped = bool(reading.columns)
    passed = {name.lower() for name in (*reading.ignore, *reading.where)}
    for name in [] if mapped else header:
        if name not in (*needed, *optional) and name not in passed:
            raise RequestError(f"{path}: the column '{_clip(name)}' is not known{nearest(name, (*needed, *optional))}.")
    wanted = {name: column for name, column in source.items() if name in (*needed, *optional)}
    _once([*wanted.values(), *(name.lower() for name in reading.where)], header, path)
    lines: list[tuple[int, Mapping[str, str]]] = []
    for number, row in rows:
        if len(row) != len(header):
            raise RequestError(f"{path}, line {number}: {len(row)} cells where the header has {len(header)}.")
        cells = dict(zip(header, row))
        if any(cells[name.lower()] != value for name, value in reading.where.items()):
            continue
        ours = {name: cells[column] for name, column in wanted.items()}
        if mapped and any(not ours[name] for name in needed):
            continue
        for name, by in divisor.items():
            if by != 1.0 and ours.get(name):
                ours[name] = repr(_number(ours, name, path, number) / by)
        if len(lines) == MOST_LINES:
            raise RequestError(
                f"{path} has more than {MOST_LINES:,} lines to read: choose some with --where, or thin it out."
            )
        lines.append((number, ours))
    if not lines:
        raise RequestError(
            f"{path} has no line{' that is asked for' if reading.where or mapped else ''} below its header."
        )
    return Table(path, kind, tuple(lines))


def _columns(header: Sequence[str], path: Path, reading: Reading) -> tuple[dict[str, str], dict[str, float]]:
    """Ours -> the file's, and what to divide by. Raises RequestError for a column that the file does not have."""
    source: dict[str, str] = {}
    divisor: dict[str, float] = {}
    for ours, theirs in reading.columns.items():
        column, divisor[ours] = _divided(theirs)
        source[ours] = column.lower()
    for name in (*(_divided(theirs)[0] for theirs in reading.columns.values()), *reading.where):
        if name.lower() not in header:
            raise RequestError(f"{path} has no column '{_clip(name)}'{nearest(name.lower(), map(_clip, header))}.")
    ignored = {name.lower() for name in reading.ignore}
    for name in header:
        if name in COLUMNS and name not in source and name not in ignored:
            source[name] = name
    return source, divisor


def _once(columns: Sequence[str], header: Sequence[str], path: Path) -> None:
    """Raises RequestError where the header has one of the columns twice: which is meant cannot be known."""
    times = Counter(header)
    for name in columns:
        if times[name] > 1:
            raise RequestError(
                f"{path} has {times[name]} columns called '{_clip(name)}': rename or delete all but one."
            )


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
        if flops is not None and not 1e-3 < flops / (6.0 * n * tokens) < 1e3:
            raise RequestError(
                f"{table.path}, line {line}: flops is {flops:g}, but 6 times parameters times tokens is {6.0 * n * tokens:.3g}: give FLOPs, "
                "or leave the column out with --ignore flops."
            )
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
            int(_number(row, "questions", table.path, line, least=0, most=1e12)) if row.get("questions") else 0,
        )
        found.setdefault(row.get("run") or "", []).append(point)
    return {run: tuple(sorted(points, key=lambda p: p.compute)) for run, points in found.items()}


def counts(table: Table) -> dict[str, tuple[ProblemCounts, ...]]:
    """One set of problems a value of `model`. `votes` reads "12/3 4 1": right answers before the stroke, wrong ones after it.

    Raises RequestError for a broken cell.
    """
    found: dict[str, list[ProblemCounts]] = {}
    for line, row in table.lines:
        samples = _number(row, "samples", table.path, line, least=1, most=MOST_SAMPLES)
        correct = _number(row, "correct", table.path, line, least=0, most=samples)
        if samples % 1 or correct % 1:
            raise RequestError(f"{table.path}, line {line}: samples and correct are counts and must be whole numbers.")
        right, wrong = _votes(row.get("votes") or "", table.path, line)
        if sum(right) > correct or sum(right) + sum(wrong) > samples:
            raise RequestError(f"{table.path}, line {line}: there are more votes than samples.")
        made = ProblemCounts(row["problem"], int(samples), int(correct), right, wrong)
        found.setdefault(row.get("model") or "", []).append(made)
    return {model: tuple(rows) for model, rows in found.items()}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty (a cell may have lines in it: the last one), and its cells; the header's in lower case."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RequestError(
                f"{path} is larger than {MOST_BYTES >> 20} MB: keep the columns and lines that a law needs."
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            lines = csv.reader(file, delimiter=next((mark for mark in _SEPARATORS if mark in first), ","))
            head = True
            for row in lines:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield lines.line_num, [cell.lower() for cell in cells] if head else cells
                    head = False
    except UnicodeDecodeError:
        raise RequestError(f"{path} is no text in UTF-8: save it as such.") from None
    except (OSError, csv.Error) as error:
        raise RequestError(f"{path} cannot be read as a table: {getattr(error, 'strerror', None) or error}.") from None


def _kind(ours: set[str], header: Sequence[str], path: Path) -> str:
    for name, (needed, _) in _KINDS.items():
        if ours >= set(needed):
            return name
    needs = "; ".join(f"{name}: {', '.join(needed)}" for name, (needed, _) in _KINDS.items())
    more = f" and {len(header) - 12} more" if len(header) > 12 else ""
    raise RequestError(
        f"{path}: the columns {', '.join(map(_clip, header[:12]))}{more} are those of no law ({needs}); "
        "say which is which with --map OURS=THEIRS."
    )


def _clip(text: str) -> str:
    """A cell short enough for a sentence."""
    return text if len(text) <= 60 else text[:57] + "..."


def _divided(text: str) -> tuple[str, float]:
    """("eval_acc", 100.0) of "eval_acc/100"."""
    column, stroke, by = text.rpartition("/")
    if stroke and re.fullmatch(r"[0-9]+(\.[0-9]+)?(e[0-9]{1,2})?", by.strip()) and 0 < float(by) <= LARGEST:
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
    wild = abs(value) > LARGEST or 0 < abs(value) < 1 / LARGEST
    fits = not wild and math.isfinite(value) and (above is None or value > above)
    fits = fits and (least is None or value >= least) and (most is None or value <= most)
    if not fits:
        bounds = [f"above {above:g}"] if above is not None else [f"at least {least:g}"] if least is not None else []
        bounds += [f"at most {most:g}"] if most is not None else []
        bounds += [f"between {1 / LARGEST:g} and {LARGEST:g} in size"] if wild else []
        raise RequestError(
            f"{path}, line {line}: {key} is '{_clip(text)}', it must be a number{' ' * bool(bounds)}{' and '.join(bounds)}."
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
            f"{path}, line {line}: votes is '{_clip(text)}', it must read like '12/3 4 1': votes of right answers, a stroke, votes of wrong ones."
        ) from None
    return sides
