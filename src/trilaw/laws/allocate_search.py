"""The best split of a budget under the joint law, by a search that cannot be caught in a local maximum of its own making.

Accuracy is smooth but not concave in a split: RL pays nothing, then much, then nothing. So every shape of split (the base as it is, trained
longer, or new; with RL or without) is laid out on a grid over the logarithm of the size, the share of RL in what samples leave over, and
whole numbers of samples; then a lattice around the best grid point is refined by halves. All bootstrap draws are searched at once.

A split spends the whole budget, except where nothing that is left to buy helps: then the rest stays.

Suffixes: S the main fit and the draws, G grid points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trilaw.laws.costs import PRETRAINING, RL, SAMPLES, Scene, Split
from trilaw.laws.fitting import Floats
from trilaw.laws.joint_draws import How, Inner

SHARE_ENDS = 9.0  # logits of the share of RL: from about 1e-4 of what is left to all but 1e-4
SMALLER, LARGER = 10.0, 1000.0  # new bases from a tenth of the smallest measured one to a thousand times the largest
FEWEST_TOKENS = 1.0  # tokens a parameter that a new base gets at least


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched. `free` names the options that may change; the others stay as in `start`."""

    scene: Scene
    start: Split
    sizes: tuple[float, float]  # least and greatest number of parameters measured
    free: Collection[str]
    how: How
    most_samples: int


@dataclass(frozen=True, slots=True)
class Found:
    """The best split of each row, and its accuracy there (-inf where nothing is affordable)."""

    values_S: Floats
    parameters_S: Floats
    tokens_S: Floats
    rl_S: Floats
    samples_S: Floats

    def split(self, row: int = 0) -> Split:
        return Split(
            float(self.parameters_S[row]), float(self.tokens_S[row]), float(self.rl_S[row]), float(self.samples_S[row])
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    base: str  # "same", "longer" or "new"
    rl: str  # "none", "all" (that is left), or "share"

    @property
    def axes(self) -> int:
        return (self.base == "new") + (self.rl == "share")


def search(inner: Inner, s: Search, budget: float, *, fine: bool) -> Found:
    """The best split for every row of `inner`. `fine`: a denser grid, more samples tried, and a longer refinement (meant for one row)."""
    start = s.start
    samples: Sequence[int] = [int(start.samples)]
    if SAMPLES.name in s.free:
        samples = ladder(s.most_samples, 1.2)
    rows = len(inner.theta_SP)
    best = Found(np.full(rows, -np.inf), *(np.full(rows, float(v)) for v in _numbers(start)))
    for shape in _shapes(s):
        best = _better(best, _search_shape(inner, s, shape, budget, samples, fine))
    if fine and len(samples) > 1 and np.isfinite(best.values_S[0]):
        # Between the rungs around the best one.
        at = samples.index(int(best.samples_S[0])) if int(best.samples_S[0]) in samples else 0
        ends = samples[max(at - 1, 0)], samples[min(at + 1, len(samples) - 1)]
        between = sorted({round(k) for k in np.linspace(*ends, 9)} - set(samples))
        for shape in _shapes(s) if between else ():
            best = _better(best, _search_shape(inner, s, shape, budget, between, fine))
    return best


def ladder(most: int, factor: float) -> list[int]:
    """1, 2, 3, ... by steps of one while they are smaller than the factor asks, then by the factor."""
    rungs = [1]
    while rungs[-1] < most:
        rungs.append(min(most, max(rungs[-1] + 1, round(rungs[-1] * factor))))
    return rungs


def _numbers(split: Split) -> tuple[float, ...]:
    return tuple(float(v) for v in (split.parameters, split.tokens, split.rl_flops, split.samples))


def _shapes(s: Search) -> list[_Shape]:
    bases = ["same"]
    if PRETRAINING.name in s.free:
        bases += ["longer"] * (s.scene.owned is not None) + ["new"]
    shapes = [_Shape(base, "none") for base in bases]
    if RL.name in s.free:
        shapes += [_Shape(base, "share") for base in bases] + [_Shape("same", "all")]
    return shapes


def _search_shape(inner: Inner, s: Search, shape: _Shape, budget: float, samples: Sequence[int], fine: bool) -> Found:
    low, high, counts = _grid(s, shape, budget, fine)
    if (high < low).any():
        return _nothing(len(inner.theta_SP), s.start)
    grids = [np.linspace(a, b, n) for a, b, n in zip(low, high, counts)]
    points_GA = np.array(list(itertools.product(*grids)), dtype=np.float64)
    # The least size that the shape knows, served with k samples, must be affordable.
    least = math.exp(low[0]) if shape.base == "new" else float(s.start.parameters)
    price = s.scene.price(SAMPLES)
    samples = [k for k in samples if float(SAMPLES.flops(Split(least, 1.0, 0.0, k), s.scene)) * price <= budget]
    if not samples:
        return _nothing(len(inner.theta_SP), s.start)
    tops, places = [], []
    for k in samples:
        values_SG, _ = _values(inner, s, shape, budget, k, points_GA)
        at = values_SG.argmax(axis=1)
        tops.append(values_SG[np.arange(len(at)), at])
        places.append(points_GA[at])
    tops_KS, places_KSA = np.array(tops), np.array(places)
    best = _nothing(len(inner.theta_SP), s.start)
    order = np.argsort(-tops_KS, axis=0, kind="stable")
    for rank in range(min(3 if fine else 1, len(samples))):
        for index in np.unique(order[rank]):
            rows = np.flatnonzero((order[rank] == index) & np.isfinite(tops_KS[index]))
            if len(rows):
                spacing = np.array([(b - a) / max(n - 1, 1) for a, b, n in zip(low, high, counts)])
                part = inner if len(rows) == len(best.values_S) else inner.take(rows)
                found = _refine(
                    part,
                    s,
                    shape,
                    budget,
                    samples[int(index)],
                    places_KSA[index][rows],
                    spacing,
                    (low, high),
                    18 if fine else 7,
                )
                best = _better(best, found, rows)
    return best


def _grid(s: Search, shape: _Shape, budget: float, fine: bool) -> tuple[Floats, Floats, list[int]]:
    low, high, counts = [], [], []
    if shape.base == "new":
        # The greatest size: one sample a question, FEWEST_TOKENS a parameter, a x^2 + b x = budget.
        a = 6.0 * FEWEST_TOKENS * s.scene.price(PRETRAINING)
        b = float(SAMPLES.flops(Split(1.0, 1.0, 0.0, 1.0), s.scene)) * s.scene.price(SAMPLES)
        most = 2.0 * budget / (b + math.sqrt(b * b + 4.0 * a * budget))
        low.append(math.log(s.sizes[0] / SMALLER))
        high.append(math.log(min(most, s.sizes[1] * LARGER)))
        counts.append(60 if fine else 24)
    if shape.rl == "share":
        low.append(-SHARE_ENDS)
        high.append(SHARE_ENDS)
        counts.append(31 if fine else 13)
    return np.array(low), np.array(high), counts


def _values(
    inner: Inner, s: Search, shape: _Shape, budget: float, k: int, points: Floats
) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """Accuracy (rows x G) at points (G, A) or (rows, G, A), -inf where the budget does not reach; and the splits there."""
    axes = iter(np.moveaxis(points, -1, 0))
    scene, start = s.scene, s.start
    n0, d0, c0, _ = _numbers(start)
    size = np.exp(next(axes)) if shape.base == "new" else np.full(points.shape[:-1], n0)
    share = {"none": 0.0, "all": 1.0}.get(shape.rl, 0.0) + np.zeros(points.shape[:-1])
    if shape.rl == "share":
        share = 1.0 / (1.0 + np.exp(-next(axes)))
    pretrain, rl = 6.0 * scene.price(PRETRAINING), scene.price(RL)
    left = budget - np.asarray(SAMPLES.flops(Split(size, 1.0, 0.0, k), scene)) * scene.price(SAMPLES)
    free = RL.name in s.free
    if shape.base == "same":
        kept = Split(n0, d0, c0, k)
        left = (
            left - float(PRETRAINING.flops(kept, scene)) * scene.price(PRETRAINING) - float(RL.flops(kept, scene)) * rl
        )
        tokens = np.full(size.shape, d0)
        compute = c0 + share * np.maximum(left, 0.0) / rl
        fits = left >= -1e-9 * budget
    else:
        if not free:
            left = left - c0 * rl  # the RL of the start is repeated on the new base
        compute = share * np.maximum(left, 0.0) / rl if free else np.full(size.shape, c0)
        tokens = (1.0 - share) * np.maximum(left, 0.0) / (pretrain * size)
        fits = left > 0.0
        if shape.base == "longer":
            tokens = tokens + d0
        else:
            fits = fits & (tokens >= FEWEST_TOKENS * size * (1.0 - 1e-9))
    safe = np.where(fits, tokens, 1.0 if shape.base != "same" else d0)
    values = inner.quick_accuracy(size, safe, np.maximum(compute, 0.0), k, s.how)
    return np.where(fits, values, -np.inf), (size, tokens, compute)


def _refine(
    inner: Inner,
    s: Search,
    shape: _Shape,
    budget: float,
    k: int,
    centre_SA: Floats,
    spacing_A: Floats,
    limits: tuple[Floats, Floats],
    halvings: int,
) -> Found:
    lattice_GA = np.array(list(itertools.product(np.linspace(-1.0, 1.0, 7), repeat=shape.axes)))
    rows = np.arange(len(centre_SA))
    centre, step = centre_SA, spacing_A
    for _ in range(halvings if shape.axes else 1):
        points_SGA = np.clip(centre[:, None, :] + lattice_GA[None] * step, *limits)
        values_SG, splits = _values(inner, s, shape, budget, k, points_SGA)
        at = values_SG.argmax(axis=1)
        centre, step = points_SGA[rows, at], step * 0.6
    size, tokens, compute = (v[rows, at] for v in splits)
    return Found(values_SG[rows, at], size, tokens, compute, np.full(len(rows), float(k)))


def _nothing(rows: int, start: Split) -> Found:
    return Found(np.full(rows, -np.inf), *(np.full(rows, v) for v in _numbers(start)))


def _better(a: Found, b: Found, rows: np.ndarray | None = None) -> Found:
    """Row by row the better of a and b, which holds the given rows of a. A tie stays with a, which is the simpler split."""
    rows = np.arange(len(a.values_S)) if rows is None else rows
    wins = b.values_S > a.values_S[rows] + 1e-12
    columns = []
    for name in Found.__slots__:
        column = getattr(a, name).copy()
        column[rows[wins]] = getattr(b, name)[wins]
        columns.append(column)
    return Found(*columns)
