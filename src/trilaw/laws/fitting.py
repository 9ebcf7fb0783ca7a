"""What all laws share: the level of confidence, intervals from bootstrap draws, random streams, and the caution beyond the data."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trilaw.core.errors import LawError
from trilaw.core.seeds import derive
from trilaw.core.types import Estimate

Floats = NDArray[np.float64]
CONFIDENCE = (
    0.90  # the level at which laws are reported: published fits are, and tails of few points are not to be trusted
)
BOOTSTRAPS = 1000
NO_BOOTSTRAP = "no bootstrap"
OVER_PROBLEMS = "bootstrap over problems"
_LEVERAGE = 0.75  # beyond it a weight is mostly nought, and the draw without that point says nothing
FAR = 10.0  # times beyond the largest point from which a prediction carries a caution


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A private stream, named by what it is for."""
    return np.random.Generator(np.random.PCG64(derive(seed, *purpose)))


def interval(value: float, draws_S: Floats, n: int, method: str) -> Estimate:
    """The percentile interval of the draws around the fitted value, widened to hold it. `n` units were resampled.

    Draws that are not finite are left out; without any, the interval is the point and the method says so.
    """
    kept = draws_S[np.isfinite(draws_S)] if len(draws_S) else draws_S
    if not len(kept):
        return Estimate(value, value, value, n, NO_BOOTSTRAP)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = (float(q) for q in np.quantile(kept, [tail, 1.0 - tail]))
    return Estimate(value, min(low, value), max(high, value), n, f"{method}, {CONFIDENCE:.0%}")


def few_enough(count: int, most: int, what: str, instead: str = "take a part of them") -> None:
    """Raises LawError for more than `most`, which is what a fit takes in minutes and in a gigabyte."""
    if count > most:
        raise LawError(f"There are {count:,} {what}: at most {most:,} are fitted, so {instead}.")


def caution(reach: float, what: str = "compute") -> str | None:
    """A sentence for a prediction `reach` times beyond the largest point, None where it is near enough."""
    if not math.isfinite(reach) or reach <= FAR:
        return None
    return f"{reach:.3g}x beyond the data in {what}: an extrapolation this far is a guess, whatever its interval says."


def leverage_weights(draws: np.random.Generator, slope_MP: Floats, rows: int) -> Floats:
    """[rows, M] bootstrap weights: gamma variates of mean 1 and variance 1 / (1 - leverage), for the slopes of a fit at its points."""
    scaled_MP = slope_MP / np.maximum(np.linalg.norm(slope_MP, axis=0), 1e-300)
    leverage_M = (np.linalg.qr(scaled_MP)[0] ** 2).sum(axis=1)
    shape_M = 1.0 - np.minimum(leverage_M, _LEVERAGE)
    weights: Floats = draws.standard_gamma(shape_M, (rows, len(shape_M))) / shape_M
    return weights


def problem_means(values_P: Floats, weights_SP: Floats) -> Floats:
    """[S] means over problems, a share each, for the numbers of times that each bootstrap draw took a problem."""
    means: Floats = np.clip(weights_SP @ values_P / len(values_P), 0.0, 1.0)
    return means


def over_problems(values_P: Floats, weights_SP: Floats) -> Estimate:
    """The mean of one share a problem, with its interval."""
    value = float(np.clip(values_P.mean(), 0.0, 1.0))
    return interval(value, problem_means(values_P, weights_SP), len(values_P), OVER_PROBLEMS)
