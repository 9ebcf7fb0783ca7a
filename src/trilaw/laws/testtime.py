"""Law 3: the coverage pass@k of many samples, from how success is spread over the problems.

-log pass@k looks like a power of k (Large Language Monkeys, arXiv 2407.21787) because the problems' success p is spread, with a density
~ p^(a-1) near zero (arXiv 2502.17578). So the spread is fitted and not the curve; the power law is fitted beside it, to compare.

The n samples of a problem do not show what p is like far below 1/n, and it is there that pass@k for k >> n is decided. One family of
distributions would hide that: its interval would hold only if the family did. Here the prediction is averaged over families
(`coverage_models`: three tails, with and without a second component for the body, and a Beta with a ceiling), so that the
interval spans what the data cannot tell apart:

- Within a family the third parameter is integrated over: a mass of unsolvable problems, all values from none to the share of problems that
  were never solved alike; or a ceiling on p, all values up to 1 alike. Such a mass has its maximum at zero for many samples in which
  it is not zero, so neither its maximum nor a bootstrap of the maximum says how large it can be.
- The other parameters are those of greatest likelihood, with a bootstrap over problems.
- Families weigh as exp(log likelihood - number of parameters that were maximised) (Akaike weights; Buckland, Burnham and
  Augustin 1997), the log likelihood taken as its mean, as a likelihood, over the third parameter.

The interval is that of the mixture of all draws. Predictions are either for THESE problems, which uses the posterior of each problem's p
given its counts (empirical Bayes with resampled parameters, Laird and Louis 1987), or for NEW problems of the same kind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import pass_at_k, powers
from trilaw.core.types import Estimate
from trilaw.laws import fitting
from trilaw.laws.coverage_models import FAMILIES, FARTHEST, Ascent, Family, Ints, Nodes, climb, likelihood, nodes
from trilaw.laws.fitting import BOOTSTRAPS, Floats, generator, interval
from trilaw.laws.points import ProblemCounts

Population = Literal["these", "new"]
METHOD = "families averaged, bootstrap over problems"
METHOD_CURVE = "bootstrap over problems"
PARAMETERS = (
    "family",
    "first",
    "second",
    "body a",
    "body b",
    "body share",
    "zero mass",
    "ceiling",
)  # columns of draws_SP
LEAST_PROBLEMS = 10
LEAST_SAMPLES = 4
ZERO_MASS_FROM = (
    100  # samples a problem below which a zero mass and a heavy tail look alike: only its interval is reported
)
_ZEROS = 41  # values of the zero mass that are averaged over
_CEILINGS = np.arange(1, 21) / 20.0
_LEAST_WEIGHT = 1e-4  # of a family at one third parameter: below it, it is left out
_BETA_DRAWS = 200  # the least that the intervals of alpha and beta rest on


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """-log pass@k = A k^-B, least squares on both logarithms at the powers of two up to the samples drawn."""

    A: Estimate
    B: Estimate
    draws_SP: Floats = field(repr=False, compare=False)

    def predict(self, k: float) -> Estimate:
        """pass@k by the power law."""
        value = math.exp(-self.A.value * k**-self.B.value)
        return interval(value, np.exp(-self.draws_SP[:, 0] * k ** -self.draws_SP[:, 1]), self.A.n, METHOD_CURVE)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Distributions of one family at one ceiling: as they are, and as the mean posterior of these problems."""

    weight_S: Floats
    prior_SG: Floats
    posterior_SG: Floats
    ceiling: float
    pairs_HG: Floats | None = None  # likelihood of the pairs, kept where the spread of single problems is wanted
    deviation_S: Ints | None = None  # for draws: the row of the main fit that tells the spread


@dataclass(frozen=True)
class TesttimeFit:
    """What was fitted. `alpha` and `beta` are those of the Beta with a zero mass, whatever its weight; `families` holds the weights.

    `zero_mass` is averaged over all families; where `zero_mass_known` is false (fewer than 100 samples a problem) only its ends mean anything.
    `draws_SP` has the columns `PARAMETERS`: the family's place in `FAMILIES`, its theta (NaN where it has fewer), zero mass, ceiling.
    """

    alpha: Estimate
    beta: Estimate
    zero_mass: Estimate
    zero_mass_known: bool
    families: Mapping[str, float]
    power_law: PowerLaw | None
    points: tuple[ProblemCounts, ...]
    notes: tuple[str, ...]
    draws_SP: Floats = field(repr=False, compare=False)
    _main: tuple[_Rows, ...] = field(repr=False, compare=False)
    _draws: tuple[_Rows, ...] = field(repr=False, compare=False)
    _noise_S: Floats = field(repr=False, compare=False)
    _pairs_H: Floats = field(repr=False, compare=False)  # problems of each distinct (n, c)

    def predict(self, k: float, *, population: Population = "these") -> Estimate:
        """pass@k with its 90% interval.

        "these": the mean over these problems of 1 - (1 - p)^k, which is what the unbiased pass@k comes to when one goes on sampling
        them. "new": the same for a large set of new problems of the same kind. `k` may be infinite: the share that can be solved at all.
        Raises RequestError for k below 1 or above 1e9, and for another population.
        """
        if not (1 <= k <= FARTHEST or k == math.inf):
            raise RequestError(f"k is {k}, it must lie between 1 and {FARTHEST:.0e} samples, or be infinite.")
        if population not in ("these", "new"):
            raise RequestError(f"population is '{population}', it must be 'these' or 'new'.")
        these, problems = population == "these", len(self.points)
        values = [(rows, _solved(rows, k, these)) for rows in self._main]
        value = float(sum(rows.weight_S @ v for rows, v in values))
        if not self._draws:
            return interval(value, np.empty(0), problems, METHOD)
        draws_S = np.concatenate([_solved(rows, k, these) for rows in self._draws])
        if these:
            # Given the parameters, each problem's p is still uncertain: their mean scatters almost normally.
            spread = np.concatenate([self._spread(rows, k) for rows in self._main])
            which = np.concatenate([rows.deviation_S for rows in self._draws if rows.deviation_S is not None])
            draws_S = np.clip(draws_S + spread[which] * self._noise_S, 0.0, 1.0)
        return interval(value, draws_S, problems, METHOD)

    def _spread(self, rows: _Rows, k: float) -> Floats:
        """Standard deviation of the mean of 1 - (1 - p)^k over these problems, each p by its posterior."""
        assert rows.pairs_HG is not None
        solved_G = _solved_at(rows, k)
        m_SH = np.maximum(rows.prior_SG @ rows.pairs_HG.T, 1e-300)
        mean_SH = (rows.prior_SG * solved_G) @ rows.pairs_HG.T / m_SH
        total = float(self._pairs_H.sum())
        variance_S = rows.posterior_SG @ solved_G**2 - mean_SH**2 @ self._pairs_H / total
        result: Floats = np.sqrt(np.maximum(variance_S, 0.0) / total)
        return result

    def measured(self, k: int) -> Estimate:
        """The unbiased pass@k of the samples themselves (Chen et al. 2021), k up to the fewest samples of a problem; its interval is for new problems.

        Raises RequestError beyond.
        """
        fewest = min(p.samples for p in self.points)
        if not 1 <= k <= fewest:
            raise RequestError(f"k is {k}, pass@k can be measured from 1 to {fewest} samples a problem; use predict.")
        values_P = np.array([pass_at_k(p.samples, p.correct, k) for p in self.points])
        picks_SP = generator(0, "measured", len(values_P)).integers(0, len(values_P), (BOOTSTRAPS, len(values_P)))
        return interval(float(values_P.mean()), values_P[picks_SP].mean(axis=1), len(values_P), METHOD_CURVE)

    def reach(self, k: float) -> float:
        """k over the samples drawn (of the problem with the fewest)."""
        return k / min(p.samples for p in self.points)

    def caution(self, k: float) -> str | None:
        """A sentence where k is over ten times the samples drawn."""
        return fitting.caution(self.reach(k), "samples a problem")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields; `points` and `samples` count. A zero mass that is not known has no value."""
        zero = asdict(self.zero_mass)
        if not self.zero_mass_known:
            zero["value"] = None
        samples = [p.samples for p in self.points]
        law = self.power_law
        return {
            "law": "pass@k = 1 - integral (1 - p)^k dG(p), families of G averaged",
            "alpha": asdict(self.alpha),
            "beta": asdict(self.beta),
            "zero_mass": zero,
            "families": dict(self.families),
            "power_law": None if law is None else {"A": asdict(law.A), "B": asdict(law.B)},
            "points": len(self.points),
            "samples": [min(samples), max(samples)],
            "notes": list(self.notes),
        }


def beta_pass_at_k(alpha: float, beta: float, k: float) -> float:
    """1 - B(a, b + k) / B(a, b): pass@k when p is Beta(a, b) over problems (arXiv 2510.05197)."""
    lg = math.lgamma
    return -math.expm1(lg(beta + k) - lg(alpha + beta + k) + lg(alpha + beta) - lg(beta))


def pass_hat_k(samples: int, correct: int, k: int) -> float:
    """C(c, k) / C(n, k): the probability that all k of n samples are right ("pass^k"). Raises ValueError for k outside 1 to n."""
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"k is {k} and {correct} are right: both must fit {samples} samples.")
    return math.comb(correct, k) / math.comb(samples, k)


def fit_testtime(counts: Sequence[ProblemCounts], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> TesttimeFit:
    """Fit the spread of success over the problems. The numbers of samples may differ.

    Raises LawError with fewer than 10 problems or 4 samples of a problem, counts that cannot be, a problem given twice, and where no
    sample or every sample is right; RequestError for negative bootstraps.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    points = check_counts(counts)
    if not any(p.correct for p in points) or all(p.correct == p.samples for p in points):
        _refuse_extremes(points)
    pairs = sorted(Counter((p.samples, p.correct) for p in points).items())
    n_H, c_H = (np.array([pair[i] for pair, _ in pairs], dtype=np.int64) for i in (0, 1))
    pairs_H = np.array([count for _, count in pairs], dtype=np.float64)
    data = _Data(n_H, c_H, pairs_H, nodes(int(n_H.max())))
    profiles = _profiles(data)
    shares = _weigh(profiles)
    main = [_rows(data, p, weight_J) for p, weight_J in zip(profiles, shares)]
    ...
