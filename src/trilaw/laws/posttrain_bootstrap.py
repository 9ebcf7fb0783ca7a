"""The sigmoid of post-training fitted to the points of one run, with its bootstrap and the curves that the likelihood supports.

- Least squares (see `sigmoid`), weighted by the binomial variance at the fitted curve where the questions are known (Fisher scoring: its
  fixed point is the maximum of the binomial likelihood), and equally where not. Every draw is fitted globally, like the data.
- Bootstrap. Questions known: parametric, binomial at the fitted curve, its deviations widened where the residuals are overdispersed
  (chi-square test at 5%). Not known: residuals, scaled by sqrt(n / (n - 4)).
- Serial correlation. If the lag-1 correlation of the residuals exceeds that of 99% of the refitted draws, the draws are made anew as an
  autoregression of order one that resamples its innovations (Buehlmann 1997). Sampling alone is independent, so with questions known
  this is asked only of overdispersed points. Simulated with 41 points and correlation 0.6, nominal 90% intervals of A and of the curve at
  twice the compute cover in 83% of the runs; drawing blocks of n^(1/3) residuals instead, in 71% and 66%.
- Likelihood: the curves, the best for each A, whose chi-square exceeds the least by no more than the 90% quantile of chi-square with 1
  degree of freedom, or of F(1, n - 4) where the noise is estimated, times (1 + r) / (1 - r) for a correlation r.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, f

from trilaw.laws.fitting import CONFIDENCE, NO_BOOTSTRAP, Floats, generator
from trilaw.laws.points import CurvePoint
from trilaw.laws.sigmoid import PARAMETERS, evaluate, solve, supported

EXACT = 1e-9  # points without noise are weighted as if they had this standard deviation
_ROUNDS = 4  # of reweighting
_CHUNK = 64  # draws fitted at a time, to stay in the cache


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """`deviation`: the noise of a point, in units of its binomial noise where the questions are known, else as a standard deviation."""

    theta_P: Floats  # R0, A, B, C_mid
    draws_SP: Floats
    supported_KP: Floats
    deviation: float
    correlation: float  # of neighbouring points
    method: str
    notes: list[str]


def fit_sigmoid(points: Sequence[CurvePoint], bootstraps: int, seed: int) -> Bootstrapped:
    """The fit to points of distinct, ascending compute, at least 5, with `questions` for all of them or for none. Equal arguments give an
    equal result; without bootstraps there are no draws, and the correlation of neighbours is not looked for."""
    compute_P = np.array([point.compute for point in points])
    value_P = np.array([point.value for point in points])
    questions_P = np.array([point.questions for point in points], dtype=np.int64)
    known, n, free = bool(questions_P.all()), len(points), len(points) - PARAMETERS
    deviation, fitted_P = EXACT, value_P
    for _ in range(_ROUNDS):
        if known:
            p_P = (questions_P * fitted_P + 1.0) / (questions_P + 2.0)  # never 0 or 1: the weight would be infinite
            weight_P = questions_P / (p_P * (1.0 - p_P))
        else:
            weight_P = np.full(n, 1.0 / deviation**2)
        theta_P = solve(compute_P, weight_P, value_P[None], 100, None)[0]
        fitted_P = evaluate(theta_P[None], compute_P)[0]
        residual_P = value_P - fitted_P
        deviation = max(EXACT, math.sqrt(float(np.sum(residual_P**2)) / free))
    z_P = residual_P * np.sqrt(weight_P)
    square, notes = float(np.sum(z_P**2)), []
    excess = known and float(chi2.sf(square, free)) <= 0.05
    scale = math.sqrt(square / free) if excess else 1.0  # of the noise, over that of the weights
    r, method, draws_SP, kept_KP = 0.0, NO_BOOTSTRAP, np.empty((0, PARAMETERS)), np.empty((0, PARAMETERS))
    if bootstraps:
        data = " ".join(
            f"{c!r} {v!r} {q}" for c, v, q in zip(compute_P.tolist(), value_P.tolist(), questions_P.tolist())
        )
        rng = generator(seed, "posttrain", data)

        def refit(noise_SP: Floats) -> Floats:
            chunks = (fitted_P + noise_SP[at : at + _CHUNK] for at in range(0, bootstraps, _CHUNK))
            return np.concatenate([solve(compute_P, weight_P, values_SP, 15, rng) for values_SP in chunks])

        if known:
            method, p_P = "parametric bootstrap, binomial", np.clip(fitted_P, 0.0, 1.0)
            noise_SP = (rng.binomial(questions_P, p_P, size=(bootstraps, n)) / questions_P - p_P) * scale
        else:
            method, noise_SP = "bootstrap over residuals", _resampled(z_P, 0.0, bootstraps, rng) / np.sqrt(weight_P)
        draws_SP = refit(noise_SP)
        if excess or not known:
            r = _correlation(z_P, (fitted_P + noise_SP - evaluate(draws_SP, compute_P)) * np.sqrt(weight_P))
        inflation = (1.0 + r) / (1.0 - r)  # n points with correlation r carry the information of n / inflation
        if r > 0.0:
            notes.append(f"Neighbouring points err alike (correlation {r:.2f}): the draws of the bootstrap do so, too.")
            method = "bootstrap over innovations of correlated residuals"
            scale = math.sqrt(square / max(n - PARAMETERS * inflation, n / 3.0))
            draws_SP = refit(_resampled(z_P, r, bootstraps, rng) * scale / np.sqrt(weight_P))
        one = float(chi2.ppf(CONFIDENCE, 1) if known and not excess else f.ppf(CONFIDENCE, 1, free))
        kept_KP = supported(compute_P, weight_P, value_P, theta_P, one * scale**2 * inflation)
    if excess:
        notes.append(
            f"The points scatter {scale:.2g} times as much as sampling explains: intervals are widened by that."
        )
    return Bootstrapped(theta_P, draws_SP, kept_KP, scale if known else scale * deviation, r, method, notes)


def _correlation(z_P: Floats, drawn_SP: Floats) -> float:
    """Lag-1 correlation of the noise behind the residuals; 0 unless it exceeds that of 99% of `drawn_SP`, residuals of fits to independent
    noise. Their mean is below 0 (a fit bends its residuals away from each other), and by that the result is corrected."""

    def lagged(residuals_SP: Floats) -> Floats:
        squares_S = np.maximum(np.sum(residuals_SP**2, axis=1), 1e-300)
        ratios: Floats = np.sum(residuals_SP[:, 1:] * residuals_SP[:, :-1], axis=1) / squares_S
        return ratios

    seen, chance_S = float(lagged(z_P[None])[0]), lagged(drawn_SP)
    bias = -float(chance_S.mean())
    return min((seen + bias) / (1.0 - bias), 0.9) if seen > max(0.0, np.quantile(chance_S, 0.99)) else 0.0


def _resampled(z_P: Floats, r: float, bootstraps: int, rng: np.random.Generator) -> Floats:
    """Noise of unit variance and correlation r [S, P], from the residuals, or from their innovations where r > 0."""
    pool = z_P - z_P.mean() if r == 0.0 else z_P[1:] - r * z_P[:-1]
    pool = pool - pool.mean()
    size = math.sqrt(float(np.mean(pool**2)))
    drawn_SP: Floats = pool[rng.integers(0, len(pool), size=(bootstraps, len(z_P)))]
    return correlate(drawn_SP / size if size > 1e-6 else drawn_SP, r)  # points without noise get none


def correlate(noise_SP: Floats, r: float) -> Floats:
    """Turns independent noise of unit variance into a stationary autoregression with correlation r and the same variance."""
    out_SP = noise_SP.copy()
    for at in range(1, out_SP.shape[1] if r > 0.0 else 0):
        out_SP[:, at] = r * out_SP[:, at - 1] + math.sqrt(1.0 - r * r) * noise_SP[:, at]
    return out_SP
