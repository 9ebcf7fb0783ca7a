"""Plurality vote (maj@k) against the number of votes, and where it levels off.

Up to the n samples drawn it is exact (`core.estimators`). Beyond them: as k grows the vote elects the likeliest answer, so the plateau is
the share of problems whose likeliest answer is right. What the votes of a problem say about its answers is a posterior, with these rules:
- the share of the right answer: its posterior under the distribution of success over all the problems (`coverage_mixture`), so that a
  problem with few votes borrows from the others;
- the wrong answers among themselves: a Dirichlet process (Ferguson 1973), that is Dirichlet with the votes of the answers seen and the
  concentration theta for all that were not. theta says how wrong answers scatter; it is fitted to all problems (Ewens 1972).
  A wrong answer with two votes among many that scatter is thereby not taken for a strong rival;
- silent samples (no answer) among the wrong: Beta with the counts; several right answers among themselves: Dirichlet with the votes.
The curve beyond n is the exact one at n plus what this model adds from n to k, so it does not jump at n.

Intervals are bootstraps over problems, for new problems of the same kind. What is not in them is the uncertainty of the distribution
of success itself: where all problems are near a tie (shares of .55 against .45, say), the plateau is less certain than stated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import expit

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import maj_at_k
from trilaw.core.types import Estimate
from trilaw.laws import fitting
from trilaw.laws.coverage_mixture import Mixture, Pairs, fit_rows
from trilaw.laws.coverage_models import FAMILIES, nodes
from trilaw.laws.fitting import BOOTSTRAPS, Floats, few_enough, generator, over_problems, problem_means
from trilaw.laws.joint_vote import fit_diversity
from trilaw.laws.points import ProblemCounts
from trilaw.laws.testtime import check_counts

MOST_SAMPLES = 512  # of a problem: the exact vote costs their square, for each problem and k
FARTHEST = 10**6  # k of a vote that is simulated
NEAR = 0.01  # share of problems: a vote that may still gain less has levelled off
_SIMULATED = 20_000  # answers' distributions drawn from the posteriors, over all problems
_LEAST_SIMULATED = 32  # for one problem
_DOUBLINGS = 17  # of the number of votes, until a curve that still moves is given up
_UNSEEN = 12  # wrong answers not seen that are told apart; what is left scatters and wins no vote


@dataclass(frozen=True, slots=True)
class _Answers:
    """Draws from the posterior of one problem: the shares of its answers, the right ones first, [draws, answers]. What is left to 1 is
    silent, or scatters over answers that nobody votes for twice."""

    shares_BA: Floats
    right: int

    def limit(self) -> float:
        """Probability that the likeliest answer is right."""
        right_B = self.shares_BA[:, : self.right].max(axis=1)
        return float(((right_B > 0) & (right_B >= self.shares_BA.max(axis=1))).mean())

    def vote(self, k: int, stream: np.random.Generator) -> float:
        """Probability that a plurality of k is right, ties broken evenly: one vote of k for each draw."""
        rest_B1 = np.maximum(0.0, 1.0 - self.shares_BA.sum(axis=1, keepdims=True))
        shares = np.concatenate([self.shares_BA, rest_B1], axis=1)
        votes_BA = stream.multinomial(k, shares / shares.sum(axis=1, keepdims=True))[:, :-1]
        most_B1 = votes_BA.max(axis=1, keepdims=True)
        tied_BA = (votes_BA == most_B1) & (most_B1 > 0)
        return float((tied_BA[:, : self.right].sum(axis=1) / np.maximum(tied_BA.sum(axis=1), 1)).mean())


@dataclass(frozen=True)
class VoteFit:
    """What plurality voting comes to. `plateau` is its limit; `saturates_at` the least power of two from which it stays within one point of
    the plateau (None: above 131,072); `scatter` is theta, the concentration of the wrong answers: near 0 they agree with each other.
    `draws_SP` holds the plateau of each bootstrap draw."""

    plateau: Estimate
    saturates_at: int | None
    scatter: float
    points: tuple[ProblemCounts, ...]
    notes: tuple[str, ...]
    draws_SP: Floats = field(repr=False, compare=False)
    _answers: tuple[_Answers, ...] = field(repr=False, compare=False)
    _offset_P: Floats = field(repr=False, compare=False)  # the exact vote of all samples less what the model says of it
    _weights_SP: Floats = field(repr=False, compare=False)
    _seed: int = field(repr=False, compare=False)

    def predict(self, k: float) -> Estimate:
        """maj@k with its 90% interval: exact for the problems with at least k samples, modelled beyond. Infinite k: the plateau.

        Raises RequestError unless k is a whole number from 1 to a million, or infinite.
        """
        if k == math.inf:
            return self.plateau
        if not (1 <= k <= FARTHEST and k == int(k)):
            raise RequestError(f"k is {k}, it must be a whole number of votes from 1 to {FARTHEST}, or infinite.")
        return over_problems(self._values(int(k)), self._weights_SP)

    def _values(self, k: int) -> Floats:
        """maj@k of each problem; beyond its samples it may leave [0, 1] by noise, the mean over problems is what counts."""
        stream = generator(self._seed, "vote", k)
        values = [
            _exact(p, k) if k <= p.samples else answers.vote(k, stream) + offset
            for p, answers, offset in zip(self.points, self._answers, self._offset_P)
        ]
        return np.array(values)

    def reach(self, k: float) -> float:
        """k over the samples drawn (of the problem with the fewest)."""
        return k / min(p.samples for p in self.points)

    def caution(self, k: float) -> str | None:
        """A sentence where k is over ten times the samples drawn."""
        return fitting.caution(self.reach(k), "samples a problem")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields; `points` is their count, `samples` the fewest and the most of a problem."""
        samples = [p.samples for p in self.points]
        return {
            "law": "maj@k: exact up to the samples, modelled beyond",
            "plateau": asdict(self.plateau),
            "saturates_at": self.saturates_at,
            "scatter": self.scatter,
            "points": len(self.points),
            "samples": [min(samples), max(samples)],
            "notes": list(self.notes),
        }


def fit_votes(counts: Sequence[ProblemCounts], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> VoteFit:
    """The curve of plurality voting from the votes of each problem. The numbers of samples may differ.

    Raises LawError for counts that `testtime.check_counts` refuses, more than 512 samples of a problem, none with votes, and where no
    vote, or every one, is right; RequestError for negative bootstraps.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    points = check_counts(counts)
    few_enough(
        max(p.samples for p in points), MOST_SAMPLES, "samples of a problem, whose votes are counted over all subsets"
    )
    _refuse_votes(points)
    votes_P = np.array([sum(p.wrong_votes) for p in points], dtype=np.int64)
    kinds_P = np.array([sum(1 for n in p.wrong_votes if n) for p in points], dtype=np.int64)
    scatter = float(fit_diversity(votes_P, kinds_P, np.ones((1, len(points))))[0])
    stream = generator(seed, "answers", len(points), bootstraps)
    draws = max(_LEAST_SIMULATED, -(-_SIMULATED // len(points)))
    success_PB = _success(points, draws, stream)
    answers = tuple(_answers(p, success_B, scatter, stream) for p, success_B in zip(points, success_PB))
    exact_P = np.array([_exact(p, p.samples) for p in points])
    offset_P = exact_P - np.array([a.vote(p.samples, stream) for p, a in zip(points, answers)])
    share = np.full(len(points), 1.0 / len(points))
    weights_SP = stream.multinomial(len(points), share, size=bootstraps).astype(np.float64)
    plateau_P = np.array([a.limit() for a in answers]) + offset_P
    fit = VoteFit(
        plateau=over_problems(plateau_P, weights_SP),
        saturates_at=None,
        scatter=scatter,
        points=points,
        notes=(),
        draws_SP=problem_means(plateau_P, weights_SP)[:, None],
        _answers=answers,
        _offset_P=offset_P,
        _weights_SP=weights_SP,
        _seed=seed,
    )
    fit = replace(fit, saturates_at=_saturation(fit))
    return replace(fit, notes=_vote_notes(fit, float(exact_P.mean())))


def _exact(p: ProblemCounts, k: int) -> float:
    """maj@k for k up to the samples; the vote of all of them needs no sum over subsets."""
    if k < p.samples:
        return maj_at_k(p.samples, p.right_votes, p.wrong_votes, k)
    votes = np.array([*p.right_votes, *p.wrong_votes, 0])
    tied = (votes == votes.max()) & (votes > 0)
    return float(tied[: len(p.right_votes)].sum() / max(1, tied.sum()))


def _refuse_votes(points: Sequence[ProblemCounts]) -> None:
    for p in points:
        if p.correct and not p.right_votes and not p.wrong_votes:
            raise LawError(f"Problem '{p.problem}' has no votes: a vote needs the number of samples for each answer.")
    bound, fewest = 1.0 - 0.05 ** (1.0 / len(points)), min(p.samples for p in points)
    if not any(sum(p.right_votes) for p in points):
        raise LawError(
            f"None of the {len(points)} problems has a vote for a right answer: at most {bound:.1%} of such problems have one among {fewest} "
            "samples (rule of three, 95%); sample more, or take easier problems."
        )
    if all(sum(p.right_votes) == p.samples for p in points):
        raise LawError(
            f"Every vote on the {len(points)} problems is for a right answer, so voting changes nothing: at most {bound:.1%} of such problems "
            f"have a wrong one among {fewest} samples (rule of three, 95%); take harder problems."
        )


def _success(points: Sequence[ProblemCounts], draws: int, stream: np.random.Generator) -> Floats:
    """[P, draws]: the share of samples that vote right, from each problem's posterior, families averaged."""
    keys = [(p.samples, sum(p.right_votes)) for p in points]
    found = sorted(Counter(keys).items())
    samples_H = np.array([n for (n, _), _ in found], dtype=np.int64)
    right_H = np.array([c for (_, c), _ in found], dtype=np.int64)
    pairs = Pairs(samples_H, right_H, np.array([float(t) for _, t in found]), nodes(int(samples_H.max())))
    rows, _ = fit_rows(pairs, [family for family in FAMILIES if not family.ceiling])
    cumulative_HG = np.cumsum(Mixture(pairs, rows).posteriors(), axis=1)
    place = {key: h for h, (key, _) in enumerate(found)}
    success = np.empty((len(points), draws))
    for i, key in enumerate(keys):
        row_G = cumulative_HG[place[key]]
        chosen = np.searchsorted(row_G, stream.random(draws) * row_G[-1], side="right")
        # A node stands for the step around it; the ends are 0 and 1 themselves.
        inner = np.clip(chosen - 1, 0, len(pairs.at.logit) - 1)
        logit = pairs.at.logit[inner] + pairs.at.step * (stream.random(draws) - 0.5)
        success[i] = np.where(chosen == 0, 0.0, np.where(chosen == len(row_G) - 1, 1.0, expit(logit)))
    return success


def _answers(p: ProblemCounts, success_B: Floats, scatter: float, stream: np.random.Generator) -> _Answers:
    """Draws of all shares by the rules at the head of the file."""
    draws = len(success_B)
    right = [n for n in p.right_votes if n] or [1]
    wrong = sorted((n for n in p.wrong_votes if n), reverse=True)
    silent = p.samples - sum(p.right_votes) - sum(wrong)
    right_BA = stream.dirichlet(right, size=draws) * success_B[:, None]
    if silent:
        quiet_B = stream.beta(silent, sum(wrong), size=draws) if wrong else np.ones(draws)
    else:
        quiet_B = np.zeros(draws)
    cast_B1 = ((1.0 - success_B) * (1.0 - quiet_B))[:, None]
    seen_BA = stream.dirichlet([*wrong, scatter], size=draws)
    # The answers not seen are a Dirichlet process again: sticks broken off what is left of them.
    sticks_BA = stream.beta(1.0, scatter, size=(draws, _UNSEEN))
    left_BA = np.cumprod(np.concatenate([np.ones((draws, 1)), 1.0 - sticks_BA[:, :-1]], axis=1), axis=1)
    unseen_BA = sticks_BA * left_BA * seen_BA[:, -1:]
    return _Answers(np.concatenate([right_BA, cast_B1 * seen_BA[:, :-1], cast_B1 * unseen_BA], axis=1), len(right))


def _saturation(fit: VoteFit) -> int | None:
    """The least power of two from which the curve stays near the plateau; it is taken to stay there once it did twice running."""

    def near(exponent: int) -> bool:
        return abs(float(fit._values(1 << exponent).mean()) - fit.plateau.value) < NEAR

    first = (
        min(p.samples for p in fit.points).bit_length() - 1
    )  # what is exact costs more than what is simulated: begin at its end
    if near(first) and near(first + 1):
        while first and near(first - 1):
            first -= 1
        return 1 << first
    for exponent in range(first + 1, _DOUBLINGS + 1):
        if near(exponent) and near(exponent + 1):
            return 1 << exponent
    return None


def _vote_notes(fit: VoteFit, measured: float) -> tuple[str, ...]:
    fewest, most = min(p.samples for p in fit.points), max(p.samples for p in fit.points)
    gain = fit.plateau.value - measured
    notes = [
        f"The vote of all samples drawn is right on {measured:.1%} of the problems; without end it would be on {fit.plateau.value:.1%} "
        f"({fit.plateau.low:.1%} to {fit.plateau.high:.1%}), {abs(gain):.1%} {'more' if gain >= 0 else 'less'}."
    ]
    if fit.saturates_at is None:
        notes.append(f"It is still more than {NEAR:.0%} from there at {2**_DOUBLINGS} samples.")
    else:
        notes.append(f"From {fit.saturates_at} samples a problem on, less than {NEAR:.0%} is left.")
    if most > fewest:
        notes.append(
            f"Problems have {fewest} to {most} samples; how far a prediction reaches is counted from the fewest."
        )
    return tuple(notes)
