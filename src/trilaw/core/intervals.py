"""Intervals for a mean over problems, by resampling problems.

The problems are the units: samples of one problem are correlated, so resampling samples would make intervals too narrow.
`bootstrap` is the percentile bootstrap (Efron 1979). It has one blind spot: when all problems have the same value it returns a
point, which would claim certainty. Then the rule of three, in its exact form, speaks instead: n problems out of n showed the
value v, so a share p >= alpha^(1/n) of all problems shows it (a smaller share would show it n times with probability below alpha),
and the rest may lie anywhere within the bounds of the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from trilaw.core.seeds import derive
from trilaw.core.types import Estimate

CONFIDENCE = 0.95
RESAMPLES = 2000
BOOTSTRAP = "bootstrap over problems, 95%"
EQUAL = "all problems equal: rule of three, 95%"
PAIRED = "paired bootstrap over problems, 95%"
WILSON = "Wilson score, 95%"
_CHUNK = 4_000_000  # resampled values held at a time (32 MB)


def bootstrap(
    values: Sequence[float],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
    method: str = BOOTSTRAP,
) -> Estimate:
    """The mean of one value a problem, with its 95% interval.

    `bounds` are the least and the greatest value that a problem could have had. The same arguments give the same interval.
    Raises ValueError without values, with one that is no number, or with one outside the bounds.
    """
    values_P = np.asarray(values, dtype=np.float64)
    least, greatest = bounds
    if not len(values_P):
        raise ValueError("An interval needs at least one problem.")
    if not np.isfinite(values_P).all() or values_P.min() < least or values_P.max() > greatest:
        raise ValueError(f"The values must lie between {least} and {greatest}.")
    n = len(values_P)
    if (values_P == values_P[0]).all():
        value = float(values_P[0])
        share = (1.0 - CONFIDENCE) ** (1.0 / n)
        low, high = share * value + (1.0 - share) * least, share * value + (1.0 - share) * greatest
        return Estimate(value, min(low, value), max(high, value), n, EQUAL)
    mean = math.fsum(values_P) / n
    generator = np.random.Generator(np.random.PCG64(derive(seed, n, "bootstrap")))
    means: list[np.ndarray] = []
    done, rows = 0, max(1, _CHUNK // n)
    while done < resamples:
        count = min(rows, resamples - done)
        means.append(values_P[generator.integers(0, n, size=(count, n))].mean(axis=1))
        done += count
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return Estimate(mean, min(float(low), mean), max(float(high), mean), n, method)


def paired_difference(
    values_a: Sequence[float],
    values_b: Sequence[float],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean of a - b over the same problems in the same order, with its 95% interval: positive where a is greater.

    `bounds` are those of the values. Raises ValueError on unequal lengths.
    """
    if len(values_a) != len(values_b):
        raise ValueError(f"Pairs need the same problems: there are {len(values_a)} and {len(values_b)} values.")
    width = bounds[1] - bounds[0]
    differences = [a - b for a, b in zip(values_a, values_b)]
    return bootstrap(differences, bounds=(-width, width), seed=seed, resamples=resamples, method=PAIRED)


def wilson(successes: float, n: int) -> Estimate:
    """A share of n independent yes-or-no outcomes, with Wilson's score interval (1927). Raises ValueError unless 0 <= successes <= n, n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"There cannot be {successes} successes in {n} trials.")
    z2 = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n, WILSON)
