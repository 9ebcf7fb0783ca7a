"""Distributions of the success p of a problem, and their maximum likelihood on counts, for many weightings of the counts at once.

A problem with success p shows c right samples of n with binomial probability, so a distribution G of p over problems gives

    P(c | n) = C(n, c) * integral p^c (1 - p)^(n - c) dG(p),    pass@k = 1 - integral (1 - p)^k dG(p).

Three shapes, each with and without a mass z of problems that cannot be solved (p = 0), and the Beta also with a ceiling s (p = s x):

- Beta: density ~ p^(a-1) (1-p)^(b-1). 1 - pass@k falls as k^-a (arXiv 2502.17578; as a beta-binomial of the counts 2510.05197).
- Kumaraswamy: P(p < x) = 1 - (1 - x^a)^b. The same law k^-a in the end, but approached far more slowly (arXiv 2502.17578).
- logit-normal: logit p is normal. No power law: 1 - pass@k falls faster than any power of k in the end.

Every integral is a sum over nodes even in logit p, where the trapezoid rule converges exponentially (the integrands are analytic and
vanish at both ends); what lies beyond the end nodes is kept as a mass at p = 0 and one at p = 1. Array suffixes: S weightings
(bootstrap draws), H distinct pairs (n, c), G nodes, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_expit

from trilaw.laws.fitting import Floats

LOWEST, HIGHEST = -30.0, 20.0  # logit p of the end nodes: 1e-13 and 1 - 2e-9
FARTHEST = 1e10  # k from which the mass kept at p = 0 would count
_WIDEST = 0.25  # greatest step between nodes; the step is also the narrowest width of a posterior (see `nodes`)
_CHUNK = 250  # weightings solved at a time
_ROUNDS = 80
_GAIN = 1e-7  # log likelihood: an ascent that gains less has arrived


@dataclass(frozen=True, slots=True)
class Nodes:
    """Values of p that the integrals are summed over: 0, then even in logit p, then 1."""

    logit_G: Floats
    log_p_G: Floats
    log_q_G: Floats
    step: float

    def success(self, ceiling: float = 1.0) -> Floats:
        """[G + 2]: p, the masses at both ends included."""
        return ceiling * np.concatenate([[0.0], np.exp(self.log_p_G), [1.0]])

    def solved(self, k: float, ceiling: float = 1.0) -> Floats:
        """[G + 2]: 1 - (1 - p)^k."""
        with np.errstate(divide="ignore"):
            result: Floats = -np.expm1(k * np.log1p(-self.success(ceiling)))
        return result


def nodes(most_samples: int) -> Nodes:
    """Nodes fine enough for n samples: the likelihood of c of n has a width of at least 2 / sqrt(n) in logit p, and a step of one
    width is good to 3e-9."""
    step = min(_WIDEST, 2.0 / most_samples**0.5)
    logit_G = np.arange(LOWEST, HIGHEST + step / 2, step)
    return Nodes(logit_G, log_expit(logit_G), log_expit(-logit_G), step)


def likelihood(samples_H: NDArray[np.int64], correct_H: NDArray[np.int64], at: Nodes, ceiling: float = 1.0) -> Floats:
    """[H, G + 2]: the probability of each pair (n, c) at each node."""
    n, c = samples_H[:, None].astype(float), correct_H[:, None].astype(float)
    log_choose = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    if ceiling == 1.0:
        inner = np.exp(log_choose + c * at.log_p_G + (n - c) * at.log_q_G)
    else:
        log_s = np.log(ceiling)
        inner = np.exp(log_choose + c * (log_s + at.log_p_G) + (n - c) * np.log1p(-ceiling * np.exp(at.log_p_G)))
    right = (c == n).astype(float) if ceiling == 1.0 else np.exp(log_choose + c * log_s + (n - c) * np.log1p(-ceiling))
    return np.concatenate([(c == 0).astype(float), inner, right], axis=1)


LogWeights = Callable[
    [Floats, Nodes], tuple[Floats, Floats]
]  # theta [S, 2] -> log weights [S, G + 2], derivative [2, S, G + 2]


def _beta(theta_SP: Floats, at: Nodes) -> tuple[Floats, Floats]:
    """theta = (log a, log b). Beyond the end nodes the density is a power, whose integral is the mass."""
    a, b = np.exp(theta_SP[:, :1]), np.exp(theta_SP[:, 1:])
    low, high = LOWEST - at.step / 2, at.logit_G[-1] + at.step / 2
    unit = np.log(at.step)
    bottom, top = a * low - np.log(a) - unit, -b * high - np.log(b) - unit
    log_w = np.concatenate([bottom, a * at.log_p_G + b * at.log_q_G, top], axis=1)
    d_a = np.concatenate([a * low - 1.0, a * at.log_p_G, np.zeros_like(a)], axis=1)
    d_b = np.concatenate([np.zeros_like(b), b * at.log_q_G, -b * high - 1.0], axis=1)
    return log_w, np.stack([d_a, d_b])


def _kumaraswamy(theta_SP: Floats, at: Nodes) -> tuple[Floats, Floats]:
    """theta = (log a, log b). The masses at the ends are its distribution function there."""
    a, b = np.exp(theta_SP[:, :1]), np.exp(theta_SP[:, 1:])
    x = a * at.log_p_G
    log_r, ratio = np.log(-np.expm1(x)), 1.0 / np.expm1(-x)  # log(1 - p^a), p^a / (1 - p^a)
    unit = np.log(at.step)
    inner = np.log(a) + np.log(b) + x + (b - 1.0) * log_r + at.log_q_G
    in_a, in_b = 1.0 + x - (b - 1.0) * ratio * x, 1.0 + b * log_r
    low, high = a * log_expit(LOWEST - at.step / 2), a * log_expit(at.logit_G[-1] + at.step / 2)
    low_r, high_r = np.log(-np.expm1(low)), np.log(-np.expm1(high))
    below = -np.expm1(b * low_r)
    outside = np.exp(b * low_r) / below  # (1 - F) / F
    bottom, top = np.log(below) - unit, b * high_r - unit
    log_w = np.concatenate([bottom, inner, top], axis=1)
    d_a = np.concatenate([outside * b * low / np.expm1(-low), in_a, -b * high / np.expm1(-high)], axis=1)
    d_b = np.concatenate([-outside * b * low_r, in_b, b * high_r], axis=1)
    return log_w, np.stack([d_a, d_b])


def _logit_normal(theta_SP: Floats, at: Nodes) -> tuple[Floats, Floats]:
    """theta = (mean, log deviation) of logit p. Its bounds keep it off the end nodes: no mass there."""
    mean, deviation = theta_SP[:, :1], np.exp(theta_SP[:, 1:])
    z = (at.logit_G - mean) / deviation
    ends = np.full_like(mean, -np.inf)
    none = np.zeros_like(mean)
    log_w = np.concatenate([ends, -0.5 * z * z, ends], axis=1)
    d_mean, d_deviation = (
        np.concatenate([none, z / deviation, none], axis=1),
        np.concatenate([none, z * z, none], axis=1),
    )
    return log_w, np.stack([d_mean, d_deviation])


@dataclass(frozen=True, slots=True)
class Model:
    """A distribution of p. `starts` are thetas to climb from; a zero mass, where it has one, is a third parameter, z itself."""

    name: str
    shape: str
    log_weights: LogWeights
    zero_mass: bool
    ceiling: bool
    starts: tuple[tuple[float, float], ...]
    low: tuple[float, float]
    high: tuple[float, float]

    @property
    def parameters(self) -> int:
        return 2 + self.zero_mass + self.ceiling


_SHAPES = ((0.3, 1.5), (1.0, 2.0), (0.1, 1.0), (1.0, 0.5))
_POWER = tuple((float(np.log(a)), float(np.log(b))) for a, b in _SHAPES)
_NORMAL = ((-3.0, 0.7), (0.0, 0.3), (-7.0, 1.0))
_POWER_BOUNDS = ((-6.0, -5.0), (5.0, 6.0))
_NORMAL_BOUNDS = ((-15.0, -1.2), (8.0, 2.0))

BETA = Model("beta", "beta", _beta, False, False, _POWER, *_POWER_BOUNDS)
ZERO_BETA = Model("zero mass and beta", "beta", _beta, True, False, _POWER, *_POWER_BOUNDS)
SCALED_BETA = Model("scaled beta", "beta", _beta, False, True, _POWER, *_POWER_BOUNDS)
KUMARASWAMY = Model("kumaraswamy", "kumaraswamy", _kumaraswamy, False, False, _POWER, *_POWER_BOUNDS)
ZERO_KUMARASWAMY = Model("zero mass and kumaraswamy", "kumaraswamy", _kumaraswamy, True, False, _POWER, *_POWER_BOUNDS)
LOGIT_NORMAL = Model("logit-normal", "logit-normal", _logit_normal, False, False, _NORMAL, *_NORMAL_BOUNDS)
ZERO_LOGIT_NORMAL = Model(
    "zero mass and logit-normal", "logit-normal", _logit_normal, True, False, _NORMAL, *_NORMAL_BOUNDS
)
MODELS = (BETA, ZERO_BETA, SCALED_BETA, KUMARASWAMY, ZERO_KUMARASWAMY, LOGIT_NORMAL, ZERO_LOGIT_NORMAL)


def weights(model: Model, theta_SP: Floats, at: Nodes) -> Floats:
    """[S, G + 2]: the distribution of p on the nodes; each row sums to 1."""
    w_SG = _normalised(model.log_weights(theta_SP[:, :2], at)[0])
    if model.zero_mass:
        w_SG = w_SG * (1.0 - theta_SP[:, 2:3])
        w_SG[:, 0] += theta_SP[:, 2]
    return w_SG


def _normalised(log_w_SG: Floats) -> Floats:
    w = np.exp(log_w_SG - log_w_SG.max(axis=1, keepdims=True))
    result: Floats = w / w.sum(axis=1, keepdims=True)
    return result


def _slope(
    model: Model, theta_SP: Floats, weight_SH: Floats, likelihood_HG: Floats, zero_H: Floats, at: Nodes
) -> tuple[Floats, Floats, Floats]:
    """Log likelihood [S], its gradient [S, P] and the outer product of the gradients of single problems [S, P, P]."""
    log_w, d = model.log_weights(theta_SP[:, :2], at)
    w_SG = _normalised(log_w)
    m_SH = w_SG @ likelihood_HG.T
    slopes = []
    for d_SG in d:
        wd_SG = w_SG * d_SG
        slopes.append(wd_SG @ likelihood_HG.T - m_SH * wd_SG.sum(axis=1, keepdims=True))
    if model.zero_mass:
        z_S1 = theta_SP[:, 2:3]
        slopes = [slope * (1.0 - z_S1) for slope in slopes] + [zero_H - m_SH]
        m_SH = (1.0 - z_S1) * m_SH + z_S1 * zero_H
    m_SH = np.maximum(m_SH, 1e-300)
    d_SHP = np.stack(slopes, axis=-1) / m_SH[..., None]
    weighted = d_SHP * weight_SH[..., None]
    return (weight_SH * np.log(m_SH)).sum(axis=1), weighted.sum(axis=1), np.swapaxes(weighted, 1, 2) @ d_SHP


def climb(
    model: Model, start_SP: Floats, weight_SH: Floats, likelihood_HG: Floats, correct_H: NDArray[np.int64], at: Nodes
) -> tuple[Floats, Floats]:
    """Theta [S, P] of greatest likelihood from each start, and its log likelihood [S].

    Levenberg's ascent with the outer product of gradients for a Hessian (Berndt et al. 1974), within bounds: a parameter that stands
    on its bound and is pushed outwards is held. A ceiling, where the model has one, is fixed by `likelihood_HG`.
    """
    parts = [
        _climb(model, start_SP[i : i + _CHUNK], weight_SH[i : i + _CHUNK], likelihood_HG, correct_H, at)
        for i in range(0, len(start_SP), _CHUNK)
    ]
    return np.concatenate([theta for theta, _ in parts]), np.concatenate([value for _, value in parts])


def _climb(
    model: Model, start_SP: Floats, weight_SH: Floats, likelihood_HG: Floats, correct_H: NDArray[np.int64], at: Nodes
) -> tuple[Floats, Floats]:
    zero_H = (correct_H == 0).astype(float)
    low_P = np.array([*model.low, *([0.0] if model.zero_mass else [])])
    high_P = np.array([*model.high, *([0.999] if model.zero_mass else [])])
    theta = np.clip(start_SP, low_P, high_P)
    value, gradient, outer = _slope(model, theta, weight_SH, likelihood_HG, zero_H, at)
    damping = np.full(len(theta), 1e-2)
    open_S = np.arange(len(theta))  # weightings that still climb
    for _ in range(_ROUNDS):
        t, g = theta[open_S], gradient[open_S]
        held = ((t <= low_P) & (g < 0)) | ((t >= high_P) & (g > 0))
        g = np.where(held, 0.0, g)
        hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, outer[open_S])
        diagonal = np.einsum("spp->sp", hessian)  # a view: writing to it writes to the matrix
        diagonal += damping[open_S, None] * diagonal + np.where(held, 1.0, 1e-9)
        step = np.clip(np.linalg.solve(hessian, g[..., None])[..., 0], -1.5, 1.5)
        tried = np.clip(t + step, low_P, high_P)
        v, new_g, new_outer = _slope(model, tried, weight_SH[open_S], likelihood_HG, zero_H, at)
        gain = v - value[open_S]
        better = gain > 0
        up = open_S[better]
        theta[up], value[up], gradient[up], outer[up] = tried[better], v[better], new_g[better], new_outer[better]
        damping[open_S] = np.where(better, damping[open_S] / 4.0, damping[open_S] * 6.0 + 1e-6)
        arrived = (better & (gain < _GAIN)) | (~better & ((damping[open_S] > 1e6) | (np.abs(step).max(axis=1) < 1e-7)))
        open_S = open_S[~arrived]
        if not len(open_S):
            break
    return theta, value
