"""The plurality vote against the number of samples: exact within the samples drawn, extrapolated beyond them, and where it ends.

Within the n samples of a problem maj@k is the exact U-statistic (`core.estimators.maj_at_k`). Beyond them the vote needs the chance of each
answer, not only of the right one: the answers seen get a Dirichlet posterior (Jeffreys' 1/2 an answer, the same for "no answer" and for all
that was never seen together, which is taken to scatter and never to win), k votes are drawn from each posterior draw, and the winner counts.
As k grows the vote elects the most likely answer, so the plateau is the share of problems whose most likely answer is right: more votes
never solve the others. Intervals are over problems and over the posterior, 90%.

Axes: P problems, S draws, A answers (right ones first, then wrong ones, then everything that does not vote or scatters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import maj_at_k
from trilaw.core.types import Estimate
from trilaw.laws.fitting import BOOTSTRAPS, Floats, caution, generator, interval
from trilaw.laws.points import ProblemCounts

LEAST_PROBLEMS, LEAST_SAMPLES = 10, 4
METHOD = "bootstrap over problems and the posterior of their answers"
_PRIOR = 0.5  # Jeffreys
_SETTLED = 0.01  # of accuracy from the plateau: more votes bring less than a point


@dataclass(frozen=True, slots=True)
class VoteFit:
    """The vote of these problems. `plateau` is its limit, `saturates_at` the least power of two of samples within a point of it."""

    plateau: Estimate
    saturates_at: int | None
    samples: int  # the least that any problem has: the curve is exact up to here
    points: tuple[ProblemCounts, ...]
    notes: tuple[str, ...]
    chances_SPA: Floats = field(repr=False, compare=False)  # posterior draws; the last answer never wins
    right_PA: Floats = field(repr=False, compare=False)  # 1 for right answers
    chosen_SP: Any = field(repr=False, compare=False)  # problems of each bootstrap draw
    seed: int = 0

    def predict(self, k: int) -> Estimate:
        """maj@k of these problems. Raises RequestError unless k is a whole number of at least 1."""
        if k != int(k) or k < 1:
            raise RequestError(f"A vote needs a whole number of samples of at least 1, not {k:g}.")
        if k <= self.samples:
            values_P = np.array([maj_at_k(p.samples, p.right_votes, p.wrong_votes, int(k)) for p in self.points])
            return interval(float(values_P.mean()), values_P[self.chosen_SP].mean(axis=1), len(self.points), METHOD)
        draw = generator(self.seed, "votes", int(k))
        votes_SPA = draw.multinomial(int(k), self.chances_SPA)
        return self._estimate(_winners(votes_SPA[..., :-1], self.right_PA[:, :-1]))

    def reach(self, k: float) -> float:
        """k over the samples drawn."""
        return k / self.samples

    def caution(self, k: float) -> str | None:
        return caution(self.reach(k), "samples a problem")

    def to_json(self) -> dict[str, Any]:
        """plateau, saturates_at, samples, problems, notes."""
        return {
            "plateau": asdict(self.plateau),
            "saturates_at": self.saturates_at,
            "samples": self.samples,
            "problems": len(self.points),
            "notes": list(self.notes),
        }

    def _estimate(self, wins_SP: Floats) -> Estimate:
        picked_S = np.take_along_axis(wins_SP, self.chosen_SP, axis=1).mean(axis=1)
        return interval(float(wins_SP.mean()), picked_S, len(self.points), METHOD)


def fit_votes(counts: Sequence[ProblemCounts], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> VoteFit:
    """The vote of problems whose answers were recorded.

    Raises LawError for fewer than 10 problems, fewer than 4 samples of one, or answers that were not recorded.
    """
    points = tuple(counts)
    if len(points) < LEAST_PROBLEMS:
        raise LawError(f"The law of the vote needs at least {LEAST_PROBLEMS} problems, there are {len(points)}.")
    samples = min(p.samples for p in points)
    if samples < LEAST_SAMPLES:
        raise LawError(
            f"The law of the vote needs at least {LEAST_SAMPLES} samples of each problem, one has {samples}."
        )
    if not any(p.right_votes or p.wrong_votes for p in points):
        raise LawError(
            "The law of the vote needs the answers of the samples, and none was recorded: store them, or leave the vote out."
        )
    draws = max(1, min(bootstraps, 400))
    widest = max(len(p.right_votes) + len(p.wrong_votes) for p in points)
    weights_PA, right_PA = np.zeros((len(points), widest + 1)), np.zeros((len(points), widest + 1))
    for row, p in enumerate(points):
        votes = [*p.right_votes, *p.wrong_votes]
        weights_PA[row, : len(votes)] = [n + _PRIOR for n in votes]
        weights_PA[row, -1] = p.samples - sum(votes) + _PRIOR
        right_PA[row, : len(p.right_votes)] = 1.0
    draw = generator(seed, "votes", len(points))
    gamma_SPA = draw.standard_gamma(np.broadcast_to(weights_PA, (draws, *weights_PA.shape)))
    chances_SPA = gamma_SPA / gamma_SPA.sum(axis=2, keepdims=True)
    chosen_SP = draw.integers(0, len(points), size=(draws, len(points)))
    blank = Estimate(math.nan, math.nan, math.nan, len(points), METHOD)
    fit = VoteFit(blank, None, samples, points, (), chances_SPA, right_PA, chosen_SP, seed)
    plateau = fit._estimate(_winners(chances_SPA[..., :-1], right_PA[:, :-1]))
    settled = None
    for power in range(0, 15):
        if abs(fit.predict(2**power).value - plateau.value) < _SETTLED:
            settled = 2**power
            break
    notes = () if settled is not None else ("The vote has not settled by 16,384 samples: some problems are near ties.",)
    return VoteFit(plateau, settled, samples, points, notes, chances_SPA, right_PA, chosen_SP, seed)


def _winners(votes_SPA: Floats, right_PA: Floats) -> Floats:
    """[S, P]: share of the plurality that right answers hold (ties broken evenly); 0 where nobody voted."""
    most_SP1 = votes_SPA.max(axis=2, keepdims=True)
    top_SPA = (votes_SPA == most_SP1) & (most_SP1 > 0)
    winners_SP = top_SPA.sum(axis=2)
    share: Floats = (top_SPA * right_PA[None]).sum(axis=2) / np.maximum(winners_SP, 1)
    return share
