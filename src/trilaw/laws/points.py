"""What the laws are fitted to: measured points, and the CSV files that carry them.

A file's header says what it holds; the first set of columns below that it covers decides. Columns that are not listed are refused,
unless the caller names them in `ignore`. Numbers are plain decimals; an empty cell is allowed only where the column is optional.

| kind     | columns                                                                  | optional                              |
|----------|--------------------------------------------------------------------------|---------------------------------------|
| losses   | parameters, tokens, loss                                                 | flops, accuracy, group                |
| curve    | compute, value                                                           | questions, run                        |
| counts   | problem, samples, correct                                                | votes, model                          |
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trilaw.core.errors import LawError, RequestError, nearest


@dataclass(frozen=True, slots=True)
class LossPoint:
    """One model at the annealed end of its pre-training. `loss` in nats a token; `group` names tokenizer and validation text: only
    points of one group can be compared. `accuracy` (share in [0, 1]) serves the link from loss to accuracy."""

    parameters: float
    tokens: float
    loss: float
    flops: float | None = None  # 6 N D where it is not given
    accuracy: float | None = None
    group: str = ""

    @property
    def compute(self) -> float:
        """FLOPs spent on it: as given, else 6 N D (Kaplan et al. 2020, arXiv 2001.08361)."""
        return 6.0 * self.parameters * self.tokens if self.flops is None else self.flops


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a post-training run: the share solved (`value` in [0, 1]) after `compute` (FLOPs, or any one unit) over
    `questions` problems (0: unknown)."""

    compute: float
    value: float
    questions: int = 0


@dataclass(frozen=True, slots=True)
class ProblemCounts:
    """Samples of one problem: how many, how many of them right, and the votes for each distinct answer (right ones apart) if known."""

    problem: str
    samples: int
    correct: int
    right_votes: tuple[int, ...] = ()
    wrong_votes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model of a run on one set of questions: what the joint law is fitted to.

    `parameters` and `tokens` are of the pre-training that the model descends from, `loss` its annealed loss, `pretrain_flops` and
    `rl_flops` what was spent on either, `prompt_tokens` and `completion_tokens` the mean of one sample. `run` and `model` name it;
    measurements of different `task`s do not mix.
    """

    run: str
    model: str
    task: str
    parameters: float
    tokens: float
    pretrain_flops: float
    rl_flops: float
    loss: float | None
    prompt_tokens: float
    completion_tokens: float
    counts: tuple[ProblemCounts, ...]


@dataclass(frozen=True)
class Material:
    """What was measured. Keys of `curves` and `counts` name stages or models; `entropy` is the known irreducible loss, if any."""

    losses: Sequence[LossPoint] = ()
    entropy: float | None = None
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # of each curve: what was measured
    counts: Mapping[str, Sequence[ProblemCounts]] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()


_LOSSES = ("parameters", "tokens", "loss"), ("flops", "accuracy", "group")
_CURVE = ("compute", "value"), ("questions", "run")
_COUNTS = ("problem", "samples", "correct"), ("votes", "model")
_KINDS = {"losses": _LOSSES, "curve": _CURVE, "counts": _COUNTS}


def kind_of(path: Path) -> str:
    """ "losses", "curve" or "counts", by the header. Raises RequestError for a file that is none of them."""
    return _kind(_rows(path)[0], path)


def read_losses(path: Path, *, ignore: Iterable[str] = ()) -> tuple[LossPoint, ...]:
    """Raises RequestError for a broken file (line and column are named)."""
    points = []
    for line, row in _table(path, "losses", ignore):
        flops, accuracy = row.get("flops") or None, row.get("accuracy") or None
        points.append(
            LossPoint(
                _number(row, "parameters", path, line, above=0),
                _number(row, "tokens", path, line, above=0),
                _number(row, "loss", path, line, above=0),
                None if flops is None else _number(row, "flops", path, line, above=0),
                None if accuracy is None else _number(row, "accuracy", path, line, least=0, most=1),
                row.get("group") or "",
            )
        )
    return tuple(points)


def read_curves(path: Path, *, ignore: Iterable[str] = ()) -> dict[str, tuple[CurvePoint, ...]]:
    """One curve a value of `run` (the empty name without that column), each in order of compute. Raises RequestError for a broken file."""
    curves: dict[str, list[CurvePoint]] = {}
    for line, row in _table(path, "curve", ignore):
        point = CurvePoint(
            _number(row, "compute", path, line, least=0),
            _number(row, "value", path, line, least=0, most=1),
            int(_number(row, "questions", path, line, least=0)) if row.get("questions") else 0,
        )
        curves.setdefault(row.get("run") or "", []).append(point)
    return {run: tuple(sorted(points, key=lambda p: p.compute)) for run, points in curves.items()}


def read_counts(path: Path, *, ignore: Iterable[str] = ()) -> dict[str, tuple[ProblemCounts, ...]]:
    """One set of problems a value of `model`. `votes` reads "12/3 4 1": right answers before the stroke, wrong ones after it.

    Raises RequestError for a broken file.
    """
    sets: dict[str, list[ProblemCounts]] = {}
    for line, row in _table(path, "counts", ignore):
        samples = _number(row, "samples", path, line, least=1)
        correct = _number(row, "correct", path, line, least=0, most=samples)
        if samples % 1 or correct % 1:
            raise RequestError(f"{path}, line {line}: samples and correct are counts and must be whole numbers.")
        right, wrong = _votes(row.get("votes") or "", path, line)
        if sum(right) > correct or sum(right) + sum(wrong) > samples:
            raise RequestError(f"{path}, line {line}: there are more votes than samples.")
        sets.setdefault(row.get("model") or "", []).append(
            ProblemCounts(row["problem"], int(samples), int(correct), right, wrong)
        )
    return {model: tuple(rows) for model, rows in sets.items()}


def one_group(points: Sequence[LossPoint]) -> None:
    """Raises LawError if points of different tokenizers or validation texts are mixed."""
    groups = sorted({point.group for point in points})
    if len(groups) > 1:
        raise LawError(
            f"The points come from {len(groups)} groups ({', '.join(repr(g) for g in groups)}), whose losses cannot be compared: "
            "fit one group at a time."
        )


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path} cannot be read as a table: {getattr(error, 'strerror', None) or error}.") from None
    if not rows:
        raise RequestError(f"{path} is empty: it needs a header line and one line a point.")
    return rows


def _kind(rows: Sequence[str], path: Path) -> str:
    header = {cell.strip().lower() for cell in rows}
    for name, (needed, _) in _KINDS.items():
        if header >= set(needed):
            return name
    needs = "; ".join(f"{name}: {', '.join(needed)}" for name, (needed, _) in _KINDS.items())
    raise RequestError(f"{path}: the columns {', '.join(sorted(header))} are those of no law ({needs}).")


def _table(path: Path, kind: str, ignore: Iterable[str]) -> list[tuple[int, Mapping[str, str]]]:
    rows = _rows(path)
    found = _kind(rows[0], path)
    if found != kind:
        raise RequestError(f"{path} holds {found}, where {kind} were asked for.")
    header = [cell.strip().lower() for cell in rows[0]]
    known = {*_KINDS[kind][0], *_KINDS[kind][1]}
    for name in header:
        if name not in known and name not in ignore:
            raise RequestError(f"{path}: the column '{name}' is not known{nearest(name, known)}.")
    table: list[tuple[int, Mapping[str, str]]] = []
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise RequestError(f"{path}, line {line}: {len(row)} cells where the header has {len(header)}.")
        table.append((line, {name: cell.strip() for name, cell in zip(header, row)}))
    if not table:
        raise RequestError(f"{path} has a header and no points.")
    return table


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
