"""What shape a post-training run has, before a law is fitted to it: a sigmoid describes a run that rises, and no other.

The rule. All tests together call a run non-monotone that is monotone in truth in at most ALPHA of the cases.

1. Noise. With `questions` known a point has the binomial variance p (1 - p) / questions at the p of the isotonic fit, raised to the noise
   that the points show where that is greater, but never beyond a standard deviation of REPEATABLE. Without `questions` the noise is what
   the points show: of binomial form too (shares close to 0 scatter less), its size from the median of |y_i - (y_(i-1) + y_(i+1)) / 2|,
   a median because one fall must not hide itself. That estimate has (n - 2) / 4 + 2 degrees of freedom: simulated for n of 6 to 250,
   its lower quantiles, which decide about false alarms, are those of a chi-square with that many or more. On a coarse grid of values
   more than half of the differences can be zero only if the noise is below about half a step: it is taken to be at least that.
2. Non-monotone, by one of three tests, each at ALPHA / 3, and only if the fall or the swing exceeds REPEATABLE:
   a fall: the mean over a window less that over a later one of equal width (1, 2, 4, ... points), the greatest z of each width
   corrected for the number of pairs and of widths (Bonferroni: it holds under any dependence, and a rising curve only lowers z);
   a decline: Kendall's tau of the points after the highest one (they are exchangeable if the rest is noise, however large it is);
   a swing: the residual of isotonic regression against chi-square with n - 1 degrees of freedom. It is at most that of the best
   constant if the truth is constant, and less if it rises.
   "collapse": its last quarter lies below a tenth of the peak (an order of magnitude), or below half of where it started (more of
   the model is lost than is left). "decay": otherwise, where rise then fall (unimodal regression) leaves a residual within the noise.
   "erratic": where it does not.
3. "flat": neither the first test, mirrored, nor Kendall's tau of the whole run finds a rise at ALPHA (half for each). If the same tests,
   mirrored, find a fall, it is "decay".
4. "plateau": the same tests find no rise in the second half of the points, or one below REPEATABLE, and the upper end of the 90%
   interval of what the last quarter has over the one before is below a quarter of the whole rise (a curve that still rises evenly
   gains a quarter of it there).
5. "rising": the rest: sigmoid-like, still rising or bending.

REPEATABLE is not a matter of noise within a run: independent runs of one recipe end up to 0.02 apart (ScaleRL, arXiv 2510.13786), so a
smaller fall says nothing against the law however well it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import chi2, f, kendalltau, norm

from trilaw.core.errors import LawError
from trilaw.laws.fitting import Floats, few_enough
from trilaw.laws.points import CurvePoint

Shape = Literal["rising", "plateau", "decay", "collapse", "erratic", "flat"]
MOST = 2_000  # points
LEAST = 6  # distinct computes: four parameters and something to judge them by; and six points in order are 1 in 720 by chance
ALPHA = 0.05
REPEATABLE = 0.02
_WINDOWS = 500  # windows shorter than this share of the run are not compared, so that long runs stay affordable


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`sentence` gives the reason in words; `since` is the compute at which a fall or a plateau begins (None for other shapes)."""

    shape: Shape
    sentence: str
    since: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in order of compute, those of equal compute pooled. `questions_P` is None where they are not known."""

    compute_P: Floats
    value_P: Floats
    questions_P: Floats | None


@dataclass(frozen=True, slots=True)
class _Noise:
    variance_P: Floats
    freedom: float  # degrees of freedom of its estimate; infinite where the questions are known


def curve(points: Sequence[CurvePoint]) -> Curve:
    """The points as arrays. Raises LawError for values that are no shares, computes below 0, questions given for only some points, or
    fewer than 6 distinct computes, or more than 2,000 points."""
    few_enough(len(points), MOST, "points of the curve", "average neighbouring ones")
    for number, point in enumerate(points, 1):
        if not (math.isfinite(point.value) and 0.0 <= point.value <= 1.0):
            raise LawError(
                f"Point {number} of the curve has the value {point.value:g}, which is no share: give values between 0 and 1."
            )
        if not (math.isfinite(point.compute) and point.compute >= 0.0):
            raise LawError(
                f"Point {number} of the curve has the compute {point.compute:g}: it must be 0 or a positive number."
            )
        if point.questions < 0:
            raise LawError(
                f"Point {number} of the curve has {point.questions} questions: give their number, or 0 if unknown."
            )
    known = sum(point.questions > 0 for point in points)
    if 0 < known < len(points):
        raise LawError(
            f"{known} of {len(points)} points of the curve say how many questions they stand on: give it for all or for none."
        )
    compute_P, place_P = np.unique([point.compute for point in points], return_inverse=True)
    if len(compute_P) < LEAST:
        raise LawError(
            f"The curve has {len(compute_P)} distinct computes with a value: at least {LEAST} are needed, spread over its rise."
        )
    weight_P = np.array([point.questions or 1 for point in points], dtype=np.float64)
    total_P: Floats = np.bincount(place_P, weight_P).astype(np.float64)
    value_P = np.bincount(place_P, weight_P * np.array([point.value for point in points])) / total_P
    return Curve(compute_P.astype(np.float64), value_P, total_P if known else None)


def diagnose(points: Sequence[CurvePoint]) -> Diagnosis:
    """The shape of a run, by the rule at the head of this file. Raises LawError for points that are no curve (see `curve`)."""
    run = curve(points)
    y_P, n = run.value_P, len(run.value_P)
    weights_P = np.ones(n) if run.questions_P is None else run.questions_P
    rise_P = isotonic_regression(y_P, weights=weights_P).x
    noise = _noise(run, rise_P)
    typical = math.sqrt(float(np.mean(noise.variance_P)))
    noise_text = f"noise of a point {typical:.2g}"

    peak, hill_P = _unimodal(y_P, weights_P)
    swing_P = y_P - rise_P
    tests = (
        _falls(y_P, noise),
        _declines(y_P[int(y_P.argmax()) + 1 :]),
        _swings(swing_P, noise),
    )
    fall = float(hill_P[peak] - hill_P[-1])
    material = max(fall, math.sqrt(float(np.mean(swing_P**2)))) >= REPEATABLE
    since = float(run.compute_P[peak])
    if min(tests) <= ALPHA / len(tests) and material:
        end = float(np.mean(y_P[-max(3, n // 4) :]))
        path = f"not monotone since compute {since:g}: it went from {y_P[0]:.3f} to {y_P[peak]:.3f}, and in its last quarter to {end:.3f}"
        if end <= y_P[peak] / 10.0 or end < y_P[0] / 2.0:
            return Diagnosis("collapse", f"{path}; it collapsed ({noise_text})", since)
        if _swings(y_P - hill_P, noise) > ALPHA:
            return Diagnosis("decay", f"{path}; it decays ({noise_text})", since)
        return Diagnosis("erratic", f"{path}; it swings more than noise explains ({noise_text})", since)

    risen = float(rise_P[-1] - rise_P[0])
    if not _rises(y_P, noise):
        start, end = float(np.mean(y_P[: max(3, n // 4)])), float(np.mean(y_P[-max(3, n // 4) :]))
        if _rises(-y_P, noise) and start - end >= REPEATABLE:
            return Diagnosis(
                "decay", f"it never rose beyond noise and fell from {start:.3f} to {end:.3f} ({noise_text})", since
            )
        return Diagnosis("flat", f"no change beyond noise over {n} points around {y_P.mean():.3f} ({noise_text})", None)
    half = n // 2
    late = _Noise(noise.variance_P[half:], noise.freedom)
    still = _rises(y_P[half:], late) and rise_P[-1] - rise_P[half] >= REPEATABLE
    gain, error = _last_gain(y_P, noise)
    if not still and gain + norm.ppf(1.0 - ALPHA) * error < risen / 4.0:
        since = float(run.compute_P[_settled(rise_P, noise)])
        return Diagnosis(
            "plateau",
            f"it rose from {rise_P[0]:.3f} to {rise_P[-1]:.3f} and stays there since compute {since:g} ({noise_text})",
            since,
        )
    return Diagnosis("rising", f"it rises from {rise_P[0]:.3f} to {rise_P[-1]:.3f} ({noise_text})", None)


def _noise(run: Curve, rise_P: Floats) -> _Noise:
    y_P, n = run.value_P, len(run.value_P)
    p_P = (n * rise_P + 0.5) / (n + 1.0)  # the isotonic fit is least certain at its ends, and would say "no noise" at 0
    form_P = p_P * (1.0 - p_P)
    bends_P = np.abs(y_P[1:-1] - (y_P[:-2] + y_P[2:]) / 2.0) / np.sqrt(form_P[1:-1] + (form_P[:-2] + form_P[2:]) / 4.0)
    step = math.gcd(*(round(1e6 * abs(float(value) - float(y_P[0]))) for value in y_P)) / 1e6
    shown_P = np.maximum(1.4826 * float(np.median(bends_P)) * np.sqrt(form_P), max(step / 2.0, 1e-9))
    if run.questions_P is None:
        return _Noise(shown_P**2, (n - 2) / 4.0 + 2.0)
    p_P = (run.questions_P * rise_P + 1.0) / (run.questions_P + 2.0)
    return _Noise(np.maximum(p_P * (1.0 - p_P) / run.questions_P, np.minimum(shown_P, REPEATABLE) ** 2), math.inf)


def _falls(y_P: Floats, noise: _Noise) -> float:
    """p of the greatest fall from a window to a later one of equal width, over all widths."""
    n = len(y_P)
    total_P = np.concatenate([[0.0], np.cumsum(y_P)])
    variance_P = np.concatenate([[0.0], np.cumsum(noise.variance_P)])
    widths = [2**k for k in range(n.bit_length()) if n / _WINDOWS <= 2**k <= n // 2]
    least = 1.0
    for width in widths:
        starts_W = np.unique(np.append(np.arange(0, n - width + 1, max(1, width // 2)), n - width))
        mean_W = (total_P[starts_W + width] - total_P[starts_W]) / width
        error_W = (variance_P[starts_W + width] - variance_P[starts_W]) / width**2
        later_WW = starts_W[None, :] >= starts_W[:, None] + width
        z_WW = (mean_W[:, None] - mean_W[None, :]) / np.sqrt(error_W[:, None] + error_W[None, :])
        pairs = int(later_WW.sum())
        least = min(least, _tail(float(z_WW[later_WW].max()), pairs * len(widths), noise.freedom))
    return least


def _tail(z: float, tests: int, freedom: float) -> float:
    """Bound of P(one of `tests` normal variates exceeds z times the estimated noise): Bonferroni given the estimate, averaged over it."""
    if math.isinf(freedom):
        return min(1.0, tests * float(norm.sf(z)))
    return float(np.minimum(1.0, tests * norm.sf(z * _ratios(freedom))).mean())


@lru_cache(maxsize=64)
def _ratios(freedom: float) -> Floats:
    """2,000 equally likely values of the estimated noise over the true one."""
    ratios: Floats = np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, freedom) / freedom)
    return ratios


def _declines(y_P: Floats) -> float:
    """p of Kendall's tau against a downward trend."""
    if len(y_P) < 2 or (y_P == y_P[0]).all():
        return 1.0
    return float(kendalltau(np.arange(len(y_P)), y_P, alternative="less").pvalue)


def _swings(residual_P: Floats, noise: _Noise) -> float:
    """p of the residual of a shape-constrained fit: chi-square with n - 1 degrees of freedom bounds it (F where the noise is estimated)."""
    statistic, free = float(np.sum(residual_P**2 / noise.variance_P)), len(residual_P) - 1
    if math.isinf(noise.freedom):
        return float(chi2.sf(statistic, free))
    return float(f.sf(statistic / free, free, noise.freedom))


def _rises(y_P: Floats, noise: _Noise) -> bool:
    return min(_falls(-y_P, noise), _declines(-y_P)) <= ALPHA / 2.0


def _last_gain(y_P: Floats, noise: _Noise) -> tuple[float, float]:
    """Mean of the last quarter of the points less that of the quarter before, and its standard error."""
    n = len(y_P)
    quarter = max(2, n // 4)
    last, before = slice(n - quarter, n), slice(n - 2 * quarter, n - quarter)
    variance = (noise.variance_P[last].sum() + noise.variance_P[before].sum()) / quarter**2
    return float(y_P[last].mean() - y_P[before].mean()), math.sqrt(float(variance))


def _settled(rise_P: Floats, noise: _Noise) -> int:
    """The first point whose isotonic fit lies within one noise of the last one's."""
    return int(np.argmax(rise_P >= rise_P[-1] - np.sqrt(noise.variance_P[-1])))


def _unimodal(y_P: Floats, weights_P: Floats) -> tuple[int, Floats]:
    """Least-squares fit that rises to a peak and falls after it, and the peak's index."""
    n = len(y_P)

    def fit(part: slice, increasing: bool) -> Floats:
        x: Floats = isotonic_regression(y_P[part], weights=weights_P[part], increasing=increasing).x
        return x

    def cost(part: slice, increasing: bool) -> float:
        return float(np.sum(weights_P[part] * (y_P[part] - fit(part, increasing)) ** 2))

    # The part before k rises, the part from k on falls; the best k needs no further constraint.
    costs: NDArray[np.float64] = np.array(
        [(cost(slice(0, k), True) if k else 0.0) + cost(slice(k, n), False) for k in range(n)]
    )
    k = int(costs.argmin())
    hill_P = np.concatenate([fit(slice(0, k), True) if k else np.empty(0), fit(slice(k, n), False)])
    return int(hill_P.argmax()), hill_P
