"""Law 3: the coverage pass@k of many samples, from how success is spread over the problems.

-log pass@k looks like a power of k (Large Language Monkeys, arXiv 2407.21787) because the problems' success p is spread, with a density
~ p^(a-1) near zero (arXiv 2502.17578). So the spread is fitted and not the curve; the power law is fitted beside it, to compare.

The n samples of a problem do not show what p is like far below 1/n, and it is there that pass@k for k >> n is decided. One family of
distributions would hide that: its interval would hold only if the family did. So the prediction is averaged over families that differ
below 1/n (`coverage_models`), in the way that `coverage_mixture` tells. Among them are the beta-binomial (arXiv 2510.05197), the
same with a mass of problems that cannot be solved, and the scaled Beta.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import pass_at_k, powers
from trilaw.core.types import Estimate
from trilaw.laws import fitting
from trilaw.laws.coverage_mixture import Mixture, Pairs, Rows, draw, fit_rows
from trilaw.laws.coverage_models import FAMILIES, FARTHEST, Family, Ints, nodes
from trilaw.laws.fitting import BOOTSTRAPS, OVER_PROBLEMS, Floats, few_enough, generator, interval
from trilaw.laws.points import ProblemCounts

Population = Literal["these", "new"]
METHOD = "families averaged, bootstrap over problems"
COLUMNS = ("family", "first", "second", "body a", "body b", "body share", "zero mass", "ceiling")  # of draws_SP
LEAST_PROBLEMS, MOST_PROBLEMS = 10, 20_000
LEAST_SAMPLES, MOST_SAMPLES = 4, 20_000
ZERO_MASS_FROM = 100  # samples of a problem: with fewer, a zero mass and a heavy tail look alike
UNSOLVABLE = 1000  # times the samples drawn: a problem that they do not solve counts as one that cannot be solved
SURPRISING = 0.01  # probability of the counts under the fit below which a note says so
_BETA = Family("beta")
_BETA_DRAWS = 200  # the least that the intervals of alpha and beta rest on


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """-log pass@k = A k^-B: least squares on both logarithms, at the powers of two up to the samples drawn, and there."""

    A: Estimate
    B: Estimate
    draws_SP: Floats = field(repr=False, compare=False)

    def predict(self, k: float) -> Estimate:
        value = math.exp(-self.A.value * k**-self.B.value)
        draws_S = np.exp(-self.draws_SP[:, 0] * k ** -self.draws_SP[:, 1])
        return interval(value, draws_S, self.A.n, OVER_PROBLEMS)


@dataclass(frozen=True)
class TesttimeFit:
    """What was fitted. `families` holds the weight of each. `alpha` and `beta` are those of the Beta with or without a zero mass,
    whatever its weight. `zero_mass` is the share of such problems that 1,000 times the samples would not solve, all families averaged; where
    `zero_mass_known` is false (fewer than 100 samples of a problem, or ends more than a factor of two apart) only its ends mean anything.
    `draws_SP` has the columns `COLUMNS`: the family's place in `FAMILIES`, its theta (NaN where it has fewer), zero mass, ceiling.
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
    _fitted: Mixture = field(repr=False, compare=False)
    _drawn: Mixture | None = field(repr=False, compare=False)
    _source_S: Ints = field(repr=False, compare=False)  # the fitted row that each draw started from
    _noise_S: Floats = field(repr=False, compare=False)

    def predict(self, k: float, *, population: Population = "these") -> Estimate:
        """pass@k with its 90% interval, from a mixture of families.

        "these": the mean over these problems of 1 - (1 - p)^k, which the unbiased pass@k comes to as one goes on sampling them (a
        measurement with k samples a problem scatters about it). "new": the same for a large set of new problems of this kind.
        `k` may be infinite: the share that can be solved at all. Raises RequestError for k below 1 or above 1e9, and for another
        population.
        """
        if not (1 <= k <= FARTHEST or k == math.inf):
            raise RequestError(f"k is {k}, it must be a number of samples from 1 to {FARTHEST:.0e}, or infinite.")
        if population not in ("these", "new"):
            raise RequestError(f"population is '{population}', it must be 'these' or 'new'.")
        these = population == "these"
        value = self._fitted.mean(k, these=these)
        if self._drawn is None:
            return interval(value, np.empty(0), len(self.points), METHOD)
        draws_S = self._drawn.pass_at_k(k, these=these)
        if these:
            # Given the distribution, each problem's p is still uncertain; the mean over problems then scatters almost normally.
            noise_S = self._fitted.deviation(k)[self._source_S] * self._noise_S
            draws_S = np.clip(draws_S + noise_S, 0.0, 1.0)
        return interval(value, draws_S, len(self.points), METHOD)

    def measured(self, k: int) -> Estimate:
        """The unbiased pass@k of the samples themselves (Chen et al. 2021); its interval is for new problems.

        Raises RequestError unless k lies between 1 and the fewest samples of a problem.
        """
        fewest = min(p.samples for p in self.points)
        if not 1 <= k <= fewest:
            raise RequestError(f"k is {k}, pass@k can be measured from 1 to {fewest} samples a problem; use predict.")
        values_P = np.array([pass_at_k(p.samples, p.correct, k) for p in self.points])
        picks_SP = generator(0, "measured", len(values_P)).integers(0, len(values_P), (BOOTSTRAPS, len(values_P)))
        return interval(float(values_P.mean()), values_P[picks_SP].mean(axis=1), len(values_P), OVER_PROBLEMS)

    def reach(self, k: float) -> float:
        """k over the samples drawn (of the problem with the fewest)."""
        return k / min(p.samples for p in self.points)

    def caution(self, k: float) -> str | None:
        """A sentence where k is over ten times the samples drawn."""
        return fitting.caution(self.reach(k), "samples a problem")

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields; `points` is their count, `samples` the fewest and the most of a problem. A zero
        mass that is not known has a null for its value."""
        zero = asdict(self.zero_mass)
        if not self.zero_mass_known:
            zero["value"] = None
        samples = [p.samples for p in self.points]
        law = self.power_law
        return {
            "law": "pass@k = 1 - integral (1 - p)^k dG(p), averaged over families of G",
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
    """1 - B(a, b + k) / B(a, b): pass@k where p is Beta(a, b) over the problems (arXiv 2510.05197). For large k the rest falls as
    Gamma(a + b) / Gamma(b) k^-a."""
    lg = math.lgamma
    return -math.expm1(lg(beta + k) - lg(alpha + beta + k) + lg(alpha + beta) - lg(beta))


def pass_pow_k(samples: int, correct: int, k: int) -> float:
    """C(c, k) / C(n, k), "pass^k": the probability that k of n samples are all right. Raises ValueError unless 1 <= k <= n, 0 <= c <= n."""
    if not (1 <= k <= samples and 0 <= correct <= samples):
        raise ValueError(f"k = {k} and {correct} right ones do not fit {samples} samples.")
    return math.comb(correct, k) / math.comb(samples, k)


def check_counts(counts: Sequence[ProblemCounts]) -> tuple[ProblemCounts, ...]:
    """The counts, if they can be and are enough. Raises LawError with fewer than 10 problems or more than 20,000, fewer than 4 samples of
    one of them or more than 20,000, for a count that is not possible, and for a problem that is there twice."""
    points = tuple(counts)
    few_enough(len(points), MOST_PROBLEMS, "problems")
    few_enough(max((p.samples for p in points), default=0), MOST_SAMPLES, "samples of a problem")
    if len(points) < LEAST_PROBLEMS:
        raise LawError(f"There are {len(points)} problems with counts: the law needs at least {LEAST_PROBLEMS}.")
    for p in points:
        votes = (*p.right_votes, *p.wrong_votes)
        if not 0 <= p.correct <= p.samples:
            raise LawError(f"Problem '{p.problem}' has {p.correct} right samples of {p.samples}, which cannot be.")
        if min(votes, default=0) < 0 or sum(p.right_votes) > p.correct or sum(votes) > p.samples:
            raise LawError(f"Problem '{p.problem}' has votes that do not fit {p.correct} right samples of {p.samples}.")
        if p.samples < LEAST_SAMPLES:
            raise LawError(
                f"Problem '{p.problem}' has {p.samples} samples: the law needs at least {LEAST_SAMPLES} of every problem."
            )
    name, times = Counter(p.problem for p in points).most_common(1)[0]
    if times > 1:
        raise LawError(f"Problem '{name}' is there {times} times: fit the counts of one model at a time.")
    return points


def fit_testtime(counts: Sequence[ProblemCounts], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> TesttimeFit:
    """Fit how success is spread over the problems. The numbers of samples may differ.

    Raises LawError for counts that `check_counts` refuses and where no sample, or every one, is right; RequestError for negative
    bootstraps.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    points = check_counts(counts)
    _refuse_extremes(points)
    found = sorted(Counter((p.samples, p.correct) for p in points).items())
    samples_H = np.array([n for (n, _), _ in found], dtype=np.int64)
    correct_H = np.array([c for (_, c), _ in found], dtype=np.int64)
    problems_H = np.array([times for _, times in found], dtype=np.float64)
    pairs = Pairs(samples_H, correct_H, problems_H, nodes(int(samples_H.max())))
    rows, alone = fit_rows(pairs)
    stream = generator(seed, "testtime", len(points), bootstraps)
    drawn, source_S = draw(pairs, rows, bootstraps, stream)
    beta_rows = alone[_BETA]
    beta_drawn = draw(pairs, beta_rows, max(_BETA_DRAWS, bootstraps) if bootstraps else 0, stream)[0]
    alpha, beta = (
        interval(float(np.exp(beta_rows.weight_R @ beta_rows.theta_RP[:, i])), draws_S, len(points), OVER_PROBLEMS)
        for i, draws_S in enumerate(np.exp(beta_drawn.theta_RP[:, :2]).T)
    )
    fewest = int(samples_H.min())
    fitted, resampled = Mixture(pairs, rows), Mixture(pairs, drawn) if bootstraps else None
    # Problems far below 1/n are a zero mass by another name (a tail with a near 0 holds some): what counts is what stays unsolved.
    k = float(min(FARTHEST, UNSOLVABLE * samples_H.max()))
    unsolved_S = np.empty(0) if resampled is None else 1.0 - resampled.pass_at_k(k, these=False)
    zero_mass = interval(1.0 - fitted.mean(k, these=False), unsolved_S, len(points), METHOD)
    fit = TesttimeFit(
        alpha=alpha,
        beta=beta,
        zero_mass=zero_mass,
        zero_mass_known=fewest >= ZERO_MASS_FROM and zero_mass.high <= 2.0 * zero_mass.low,
        families={f.name: float(rows.weight_R[rows.place_R == i].sum()) for i, f in enumerate(FAMILIES)},
        power_law=_power_law(points, fewest, bootstraps, stream),
        points=points,
        notes=(),
        draws_SP=_table(drawn),
        _fitted=fitted,
        _drawn=resampled,
        _source_S=source_S,
        _noise_S=stream.standard_normal(bootstraps),
    )
    return replace(fit, notes=_notes(fit))


def _refuse_extremes(points: Sequence[ProblemCounts]) -> None:
    """Neither no success nor no failure has a spread. What they do bound: a share of problems that none of P showed (rule of three)."""
    bound, fewest = 1.0 - 0.05 ** (1.0 / len(points)), min(p.samples for p in points)
    if not any(p.correct for p in points):
        raise LawError(
            f"None of the {len(points)} problems was solved once, so nothing tells how coverage grows: all that is known is that pass@{fewest} "
            f"is at most {bound:.1%} (rule of three, 95%); sample more, or take easier problems."
        )
    if all(p.correct == p.samples for p in points):
        raise LawError(
            f"Every sample of the {len(points)} problems is right, so nothing is left to gain: all that is known is that at most {bound:.1%} "
            f"of such problems fail within {fewest} samples (rule of three, 95%); take harder problems."
        )


def _table(rows: Rows) -> Floats:
    return np.column_stack([rows.place_R.astype(np.float64), rows.theta_RP, rows.zero_R, rows.ceiling_R])


def _power_law(
    points: Sequence[ProblemCounts], fewest: int, bootstraps: int, stream: np.random.Generator
) -> PowerLaw | None:
    """None where fewer than two of the k's have a pass@k between 0 and 1."""
    ks = powers(fewest)
    curve_PK = np.array([[pass_at_k(p.samples, p.correct, k) for k in ks] for p in points])
    mean_K = curve_PK.mean(axis=0)
    used = (mean_K > 0) & (mean_K < 1)
    if used.sum() < 2:
        return None
    x_K = np.log(np.array(ks, dtype=np.float64)[used])
    weights_SP = stream.multinomial(len(points), np.full(len(points), 1.0 / len(points)), size=bootstraps)
    curves_SK = np.concatenate([mean_K[None], weights_SP @ curve_PK / len(points)])[:, used]
    inside = (curves_SK > 0) & (curves_SK < 1)
    y_SK = np.log(-np.log(np.where(inside, curves_SK, 0.5)))
    centred_K = x_K - x_K.mean()
    slope_S = y_SK @ centred_K / (centred_K @ centred_K)
    parameters_SP = np.column_stack([np.exp(y_SK.mean(axis=1) - slope_S * x_K.mean()), -slope_S])
    parameters_SP[~inside.all(axis=1)] = np.nan
    draws_SP = parameters_SP[1:]
    a, b = (interval(float(parameters_SP[0, i]), draws_SP[:, i], len(points), OVER_PROBLEMS) for i in (0, 1))
    return PowerLaw(a, b, draws_SP)


def _notes(fit: TesttimeFit) -> tuple[str, ...]:
    """The sentences that a reader must see beside the numbers."""
    samples = [p.samples for p in fit.points]
    fewest, alpha, zero = min(samples), fit.alpha, fit.zero_mass
    notes = [
        f"By the Beta, what k samples still miss of the problems that can be solved falls as k^-{alpha.value:.3g} in the end "
        f"(alpha from {alpha.low:.3g} to {alpha.high:.3g}): ten times the samples leave {10**-alpha.value:.0%} of it."
    ]
    name, weight = max(fit.families.items(), key=lambda item: item[1])
    if weight < 0.9:
        notes.append(
            f"The counts do not settle the shape below 1/{fewest}: the likeliest family ({name}) has {weight:.0%} of the weight, and "
            "predictions average over all."
        )
    chance = fit._fitted.surprise()
    if chance is not None and chance < SURPRISING:
        notes.append(
            f"The counts lie off every family (chi-square, p = {chance:.1g}), as when problems come in a few distinct levels of difficulty: "
            "beyond the samples the intervals are too narrow."
        )
    if fit.zero_mass_known:
        notes.append(
            f"{zero.value:.1%} of such problems would not be solved by {UNSOLVABLE} times the samples ({zero.low:.1%} to {zero.high:.1%})."
        )
    else:
        notes.append(
            f"With {fewest} samples a problem, one that cannot be solved looks like one that is very hard: their share lies "
            f"anywhere between {zero.low:.1%} and {zero.high:.1%}, and no single number is given."
        )
    if max(samples) > fewest:
        notes.append(
            f"Problems have {fewest} to {max(samples)} samples; how far a prediction reaches is counted from the fewest."
        )
    if fit.power_law is not None:
        far = 10 * fewest
        law, own = fit.power_law.predict(far), fit.predict(far, population="new")
        notes.append(
            f"The power law -log pass@k = A k^-B through the measured curve would say {law.value:.3f} at k = {far}, the spread over "
            f"problems {own.value:.3f} ({own.low:.3f} to {own.high:.3f})."
        )
    return tuple(notes)
