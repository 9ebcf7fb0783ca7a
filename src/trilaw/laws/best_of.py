"""Best of k by a score: the value of the sample that a scorer picks among k, and where it levels off.

Up to the n samples drawn it is exact (`core.estimators`). Beyond them: if the value of a sample were linear in the rank u of its score at the
top, v(u) = v - s (1 - u), the best of k would be worth v - s / (k + 1) exactly; so the curve beyond n is the line in 1/(k + 1) through the
exact values at n/2 and n. That looks at the top tail that n samples show and at no more: a scorer that is fooled by one sample in a
thousand shows it in none of them. Intervals are bootstraps over problems.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import best_of_k
from trilaw.core.types import Estimate
from trilaw.laws import fitting
from trilaw.laws.fitting import BOOTSTRAPS, Floats, generator, over_problems, problem_means
from trilaw.laws.testtime import LEAST_PROBLEMS, LEAST_SAMPLES

LEAST_FOR_TAIL = 8  # samples a problem for a plateau of best-of-k: its tail is the upper half
MOST_TIED = 0.1  # share of problems whose highest score may be shared


@dataclass(frozen=True, slots=True)
class ScoredSamples:
    """The samples of one problem: the scorer's score of each, and what each is worth (1 for right, 0 for wrong), in the same order."""

    problem: str
    scores: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class BestFit:
    """Best of k by a score. `plateau` is what the line in 1/(k + 1) through n/2 and n comes to, None where the samples cannot carry it: then
    `refusal` says why, and `predict` goes no further than the samples. `draws_SP` holds the plateau of each bootstrap draw."""

    plateau: Estimate | None
    refusal: str | None
    points: tuple[ScoredSamples, ...]
    notes: tuple[str, ...]
    draws_SP: Floats = field(repr=False, compare=False)
    _weights_SP: Floats = field(repr=False, compare=False)

    def predict(self, k: float) -> Estimate:
        """Mean value of the best of k with its 90% interval: exact up to the fewest samples of a problem, extrapolated beyond.

        Raises LawError where the samples carry no extrapolation, RequestError unless k is a whole number from 1, or infinite.
        """
        if k != math.inf and not (k >= 1 and k == int(k)):
            raise RequestError(f"k is {k}, it must be a whole number of samples from 1, or infinite.")
        n = self._fewest
        if k <= n:
            return over_problems(self._exact(int(k)), self._weights_SP)
        if self.refusal is not None:
            raise LawError(f"Best of {k:g} lies beyond the {n} samples: {self.refusal}")
        return over_problems(self._line(k), self._weights_SP)

    @property
    def _fewest(self) -> int:
        return min(len(p.scores) for p in self.points)

    def _exact(self, k: int) -> Floats:
        return np.array([best_of_k(p.scores, p.values, k) for p in self.points])

    def _line(self, k: float) -> Floats:
        """What each problem's line says; its mean over problems is what counts."""
        n, half = self._fewest, self._fewest // 2
        at_n, at_half = self._exact(n), self._exact(half)
        slope = (at_n - at_half) / (1.0 / (half + 1) - 1.0 / (n + 1))
        result: Floats = at_n + slope * (1.0 / (n + 1) - (0.0 if k == math.inf else 1.0 / (k + 1)))
        return result

    def reach(self, k: float) -> float:
        """k over the samples drawn (of the problem with the fewest)."""
        return k / self._fewest

    def caution(self, k: float) -> str | None:
        """A sentence where k is over ten times the samples drawn."""
        return fitting.caution(self.reach(k), "samples a problem")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields; `points` is their count, `samples` the fewest of a problem."""
        return {
            "law": "best of k: exact up to the samples, a line in 1/(k + 1) beyond",
            "plateau": None if self.plateau is None else asdict(self.plateau),
            "refusal": self.refusal,
            "points": len(self.points),
            "samples": self._fewest,
            "notes": list(self.notes),
        }


def fit_best(scored: Sequence[ScoredSamples], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> BestFit:
    """The curve of best of k. Values must lie in [0, 1].

    Raises LawError with fewer than 10 problems or 4 samples of a problem, unequal lengths, numbers out of range, or a problem given
    twice; RequestError for negative bootstraps.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    points = _check_scored(scored)
    n = min(len(p.scores) for p in points)
    tied = sum(p.scores.count(max(p.scores)) > 1 for p in points)
    refusal = None
    if n < LEAST_FOR_TAIL:
        refusal = f"a plateau needs at least {LEAST_FOR_TAIL} samples of every problem, one has {n}."
    elif tied > MOST_TIED * len(points):
        refusal = (
            f"on {tied} of {len(points)} problems several samples share the highest score, so the top has no order to follow; "
            "a finer score would carry it."
        )
    share = np.full(len(points), 1.0 / len(points))
    weights_SP = generator(seed, "best", len(points), bootstraps).multinomial(len(points), share, size=bootstraps)
    fit = BestFit(None, refusal, points, (), np.empty((0, 1)), weights_SP.astype(np.float64))
    if refusal is not None:
        return replace(fit, notes=(f"No plateau: {refusal}",))
    plateau_P = fit._line(math.inf)
    fit = replace(
        fit,
        plateau=over_problems(plateau_P, fit._weights_SP),
        draws_SP=problem_means(plateau_P, fit._weights_SP)[:, None],
    )
    note = f"Beyond {n} samples: a straight line through the value at the top of the scores; what is rarer than one sample in {n} is not in it."
    return replace(fit, notes=(note,))


def _check_scored(scored: Sequence[ScoredSamples]) -> tuple[ScoredSamples, ...]:
    points = tuple(scored)
    if len(points) < LEAST_PROBLEMS:
        raise LawError(f"There are {len(points)} problems with scores: the curve needs at least {LEAST_PROBLEMS}.")
    for p in points:
        if len(p.scores) != len(p.values):
            raise LawError(
                f"Problem '{p.problem}' has {len(p.scores)} scores and {len(p.values)} values: each sample needs both."
            )
        if len(p.scores) < LEAST_SAMPLES:
            raise LawError(
                f"Problem '{p.problem}' has {len(p.scores)} samples: the curve needs at least {LEAST_SAMPLES} of every problem."
            )
        if not all(math.isfinite(s) for s in p.scores) or not all(0.0 <= v <= 1.0 for v in p.values):
            raise LawError(f"Problem '{p.problem}' has a score that is no number or a value outside 0 to 1.")
    name, times = Counter(p.problem for p in points).most_common(1)[0]
    if times > 1:
        raise LawError(f"Problem '{name}' is there {times} times: fit the scores of one model at a time.")
    return points
