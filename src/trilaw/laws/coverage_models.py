"""Distributions of the success p of a problem, and their maximum likelihood on counts, for many weightings of the counts at once.

A problem with success p shows c right samples of n with binomial probability, so a distribution G of p over problems gives

    P(c | n) = C(n, c) * integral p^c (1 - p)^(n - c) dG(p),    pass@k = 1 - integral (1 - p)^k dG(p).

What happens far beyond n hangs on the lower tail of G, which n samples do not show. So there are several tails:

- Beta: density ~ p^(a-1) (1-p)^(b-1). 1 - pass@k falls as k^-a (arXiv 2502.17578; as a beta-binomial of the counts 2510.05197).
- Kumaraswamy: P(p < x) = 1 - (1 - x^a)^b. The same law k^-a in the end, approached far more slowly (arXiv 2502.17578).
- logit-normal: logit p is normal. No power law: 1 - pass@k falls faster than any power of k in the end.

each with a mass z of problems that cannot be solved (p = 0), and each alone or with a second Beta that takes up problems which the
sampler mostly solves ("body", a >= 1, so that it has no tail of its own); and the Beta with a ceiling s, p = s x, as well.

Every integral is a sum over nodes even in logit p, where the trapezoid rule converges exponentially (the integrands are analytic and
vanish at both ends); what lies beyond the end nodes is kept as a mass at p = 0 and one at p = 1. Array suffixes: S weightings
(bootstrap draws), H distinct pairs (n, c), G nodes, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_expit

from trilaw.laws.fitting import Floats

Ints = NDArray[np.int64]
LOWEST, HIGHEST = -30.0, 20.0  # logit p of the end nodes: 1e-13 and 1 - 2e-9
FARTHEST = 1e9  # k up to which the mass kept at p = 0 does not count
_WIDEST = 0.25  # greatest step between nodes
_CHUNK = 250  # weightings solved at a time
_ROUNDS = 80
_GAIN = 1e-4  # log likelihood: an ascent that gains less has arrived (predictions move by less than 1e-4)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Values of p that the integrals are summed over: 0, then even in logit p, then 1. [G] counts all of them."""

    logit: Floats  # inner nodes only, G - 2, as are the logarithms
    log_p: Floats
    log_q: Floats
    step: float

    def success(self, ceiling: float = 1.0) -> Floats:
        """p_G."""
        return ceiling * np.concatenate([[0.0], np.exp(self.log_p), [1.0]])

    def solved(self, k: float, ceiling: float = 1.0) -> Floats:
        """1 - (1 - p_G)^k; for infinite k, whether p_G is above 0."""
        p_G = self.success(ceiling)
        if np.isinf(k):
            return (p_G > 0).astype(np.float64)
        with np.errstate(divide="ignore"):
            result: Floats = -np.expm1(k * np.log1p(-p_G))
        return result


def nodes(most_samples: int) -> Nodes:
    """Nodes fine enough for n samples: the likelihood of c of n has a width of at least 2 / sqrt(n) in logit p, and a step of one
    width is good to 3e-9."""
    step = min(_WIDEST, 2.0 / most_samples**0.5)
    logit = np.arange(LOWEST, HIGHEST + step / 2, step)
    return Nodes(logit, log_expit(logit), log_expit(-logit), step)


def likelihood(samples_H: Ints, correct_H: Ints, at: Nodes, ceiling: float = 1.0) -> Floats:
    """[H, G]: the probability of each pair (n, c) at each node."""
    n, c = samples_H[:, None].astype(np.float64), correct_H[:, None].astype(np.float64)
    log_choose = gammaln(n + 1) - gammaln(c + 1) - gammaln(n - c + 1)
    if ceiling == 1.0:
        inner, right = np.exp(log_choose + c * at.log_p + (n - c) * at.log_q), (c == n).astype(np.float64)
    else:
        log_s, log_1_s = np.log(ceiling), np.log1p(-ceiling)
        inner = np.exp(log_choose + c * (log_s + at.log_p) + (n - c) * np.log1p(-ceiling * np.exp(at.log_p)))
        right = np.exp(log_choose + c * log_s + (n - c) * log_1_s)
    return np.concatenate([(c == 0).astype(np.float64), inner, right], axis=1)


def _beta(theta_S2: Floats, at: Nodes) -> tuple[Floats, tuple[Floats, Floats]]:
    """Log weights [S, G] and their slopes; theta = (log a, log b). Beyond the end nodes the density is a power of p or of 1 - p."""
    a, b = np.exp(theta_S2[:, :1]), np.exp(theta_S2[:, 1:])
    low, high = at.logit[0] - at.step / 2, at.logit[-1] + at.step / 2
    unit = np.log(at.step)
    bottom, top = a * low - np.log(a) - unit, -b * high - np.log(b) - unit
    log_w = np.concatenate([bottom, a * at.log_p + b * at.log_q, top], axis=1)
    by_a = np.concatenate([a * low - 1.0, a * at.log_p, np.zeros_like(a)], axis=1)
    by_b = np.concatenate([np.zeros_like(b), b * at.log_q, -b * high - 1.0], axis=1)
    return log_w, (by_a, by_b)


def _kumaraswamy(theta_S2: Floats, at: Nodes) -> tuple[Floats, tuple[Floats, Floats]]:
    """The same with theta = (log a, log b). The masses beyond the end nodes are its distribution function there."""
    a, b = np.exp(theta_S2[:, :1]), np.exp(theta_S2[:, 1:])
    x = a * at.log_p
    log_r, ratio = np.log(-np.expm1(x)), 1.0 / np.expm1(-x)  # log(1 - p^a), p^a / (1 - p^a)
    unit = np.log(at.step)
    inner = np.log(a) + np.log(b) + x + (b - 1.0) * log_r + at.log_q
    low, high = a * log_expit(at.logit[0] - at.step / 2), a * log_expit(at.logit[-1] + at.step / 2)
    low_r, high_r = np.log1p(-np.exp(low)), np.log(-np.expm1(high))
    # F(x) = 1 - (1 - x^a)^b, and b x^a where that is small; `over` is (1 - F) / F.
    small = b * np.exp(low) < 1e-9
    below = np.where(small, 1.0, -np.expm1(b * low_r))
    over = np.exp(b * low_r) / below
    bottom, top = np.where(small, np.log(b) + low, np.log(below)) - unit, b * high_r - unit
    bottom_a = np.where(small, low, over * b * low / np.expm1(-low))
    bottom_b = np.where(small, 1.0, -over * b * low_r)
    log_w = np.concatenate([bottom, inner, top], axis=1)
    by_a = np.concatenate([bottom_a, 1.0 + x - (b - 1.0) * ratio * x, -b * high / np.expm1(-high)], axis=1)
    by_b = np.concatenate([bottom_b, 1.0 + b * log_r, b * high_r], axis=1)
    return log_w, (by_a, by_b)


def _logit_normal(theta_S2: Floats, at: Nodes) -> tuple[Floats, tuple[Floats, Floats]]:
    """The same with theta = (mean, log deviation) of logit p, cut off at the end nodes."""
    mean, deviation = theta_S2[:, :1], np.exp(theta_S2[:, 1:])
    z = (at.logit - mean) / deviation
    none, never = np.zeros_like(mean), np.full_like(mean, -np.inf)
    log_w = np.concatenate([never, -0.5 * z * z, never], axis=1)
    by_mean = np.concatenate([none, z / deviation, none], axis=1)
    by_deviation = np.concatenate([none, z * z, none], axis=1)
    return log_w, (by_mean, by_deviation)


Tail = Literal["beta", "kumaraswamy", "logit-normal"]
_TAILS = {"beta": _beta, "kumaraswamy": _kumaraswamy, "logit-normal": _logit_normal}
_POWER_STARTS = tuple((float(np.log(a)), float(np.log(b))) for a, b in ((0.3, 1.5), (1.0, 2.0), (0.1, 1.0), (1.0, 0.5)))
_STARTS = {"beta": _POWER_STARTS, "kumaraswamy": _POWER_STARTS, "logit-normal": ((-3.0, 0.7), (0.0, 0.3), (-7.0, 1.0))}
# The upper bounds of a, and the lower one of the deviation, keep the density as wide as the nodes resolve.
_BOUNDS = {
    "beta": ((-6.0, 3.4), (-5.0, 6.0)),
    "kumaraswamy": ((-6.0, 2.0), (-5.0, 6.0)),
    "logit-normal": ((-15.0, 8.0), (-1.6, 2.0)),
}
_BODY_STARTS = tuple((float(np.log(a)), float(np.log(b)), 0.3) for a, b in ((9.0, 1.5), (5.0, 5.0), (2.0, 12.0)))
_BODY_BOUNDS = ((0.0, 3.4), (-2.0, 6.0), (0.0, 0.999))


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of distribution. Theta holds two parameters of the tail, then (log a, log b, share) of the body where there is one.
    The zero mass or the ceiling is given beside it."""

    tail: Tail
    body: bool = False
    ceiling: bool = False

    @property
    def name(self) -> str:
        return f"{'scaled ' if self.ceiling else ''}{self.tail}{' and a body' if self.body else ''}"

    @property
    def parameters(self) -> int:
        """Of theta."""
        return 5 if self.body else 2

    def starts(self, tails_S2: Floats | None = None) -> Floats:
        """[S, P] to climb from; for a family with a body, from tails that fit without one."""
        if not self.body or tails_S2 is None:
            return np.array(_STARTS[self.tail])
        return np.array([[*tail, *body] for tail in tails_S2 for body in _BODY_STARTS])

    def bounds(self) -> tuple[Floats, Floats]:
        low, high = zip(*_BOUNDS[self.tail], *(_BODY_BOUNDS if self.body else ()))
        return np.array(low), np.array(high)

    def weights(self, theta_SP: Floats, zero_S: Floats, at: Nodes) -> Floats:
        """[S, G]: the distribution of p (of x, where there is a ceiling) on the nodes; each row sums to 1."""
        w_SG = _normalised(_TAILS[self.tail](theta_SP[:, :2], at)[0])
        if self.body:
            share = theta_SP[:, 4:5]
            w_SG = (1.0 - share) * w_SG + share * _normalised(_beta(theta_SP[:, 2:4], at)[0])
        w_SG = w_SG * (1.0 - zero_S[:, None])
        w_SG[:, 0] += zero_S
        return w_SG


FAMILIES = (
    Family("beta"),
    Family("kumaraswamy"),
    Family("logit-normal"),
    Family("beta", ceiling=True),
    Family("beta", body=True),
    Family("kumaraswamy", body=True),
    Family("logit-normal", body=True),
)


def _normalised(log_w_SG: Floats) -> Floats:
    w_SG = np.exp(log_w_SG - log_w_SG.max(axis=1, keepdims=True))
    result: Floats = w_SG / w_SG.sum(axis=1, keepdims=True)
    return result


def _component(tail: Tail, theta_S2: Floats, likelihood_HG: Floats, at: Nodes) -> tuple[Floats, list[Floats]]:
    """The probability of each pair (n, c) [S, H], and its two slopes."""
    log_w, by = _TAILS[tail](theta_S2, at)
    w_SG = _normalised(log_w)
    m_SH = w_SG @ likelihood_HG.T
    slopes = []
    for d_SG in by:
        wd_SG = w_SG * d_SG
        slopes.append(wd_SG @ likelihood_HG.T - m_SH * wd_SG.sum(axis=1, keepdims=True))
    return m_SH, slopes


@dataclass(frozen=True, slots=True)
class Ascent:
    """What a climb needs: weights of the pairs, their likelihood at the nodes, and the zero mass of each row."""

    weight_SH: Floats
    likelihood_HG: Floats
    zero_S: Floats
    at: Nodes

    def rows(self, chosen: Ints | slice) -> Ascent:
        return Ascent(self.weight_SH[chosen], self.likelihood_HG, self.zero_S[chosen], self.at)

    def slope(self, family: Family, theta_SP: Floats) -> tuple[Floats, Floats, Floats]:
        """Log likelihood [S], its gradient [S, P], and the sum of the outer products of the gradients of single problems [S, P, P]."""
        m_SH, slopes = _component(family.tail, theta_SP[:, :2], self.likelihood_HG, self.at)
        if family.body:
            share = theta_SP[:, 4:5]
            body_SH, body_slopes = _component("beta", theta_SP[:, 2:4], self.likelihood_HG, self.at)
            slopes = [(1.0 - share) * s for s in slopes] + [share * s for s in body_slopes] + [body_SH - m_SH]
            m_SH = (1.0 - share) * m_SH + share * body_SH
        zero = self.zero_S[:, None]
        m_SH = np.maximum((1.0 - zero) * m_SH + zero * self.likelihood_HG[:, 0], 1e-300)
        d_SHP = np.stack(slopes, axis=-1) * ((1.0 - zero) / m_SH)[..., None]
        weighted_SHP = d_SHP * self.weight_SH[..., None]
        value_S = (self.weight_SH * np.log(m_SH)).sum(axis=1)
        return value_S, weighted_SHP.sum(axis=1), np.swapaxes(weighted_SHP, 1, 2) @ d_SHP


def climb(family: Family, start_SP: Floats, ascent: Ascent) -> tuple[Floats, Floats]:
    """Theta [S, P] of greatest likelihood from each start, and its log likelihood [S].

    Levenberg's ascent with the outer product of gradients for a Hessian (Berndt, Hall, Hall and Hausman 1974), within bounds: a
    parameter that stands on its bound and is pushed outwards is held.
    """
    parts = [
        _climb(family, start_SP[i : i + _CHUNK], ascent.rows(slice(i, i + _CHUNK)))
        for i in range(0, len(start_SP), _CHUNK)
    ]
    return np.concatenate([theta for theta, _ in parts]), np.concatenate([value for _, value in parts])


def _climb(family: Family, start_SP: Floats, ascent: Ascent) -> tuple[Floats, Floats]:
    low_P, high_P = family.bounds()
    theta = np.clip(start_SP, low_P, high_P)
    value, gradient, outer = ascent.slope(family, theta)
    damping = np.full(len(theta), 1e-2)
    open_S = np.arange(len(theta))  # rows that still climb
    for _ in range(_ROUNDS):
        at, g = theta[open_S], gradient[open_S]
        held = ((at <= low_P) & (g < 0)) | ((at >= high_P) & (g > 0))
        g = np.where(held, 0.0, g)
        hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, outer[open_S])
        diagonal = np.einsum("spp->sp", hessian)  # a view: what is added to it is added to the matrix
        diagonal += damping[open_S, None] * diagonal + np.where(held, 1.0, 1e-9)
        step = np.clip(np.linalg.solve(hessian, g[..., None])[..., 0], -1.5, 1.5)
        tried = np.clip(at + step, low_P, high_P)
        new_value, new_gradient, new_outer = ascent.rows(open_S).slope(family, tried)
        gain = new_value - value[open_S]
        better = gain > 0
        up = open_S[better]
        theta[up], value[up] = tried[better], new_value[better]
        gradient[up], outer[up] = new_gradient[better], new_outer[better]
        damping[open_S] = np.where(better, damping[open_S] / 4.0, damping[open_S] * 6.0 + 1e-6)
        arrived = (better & (gain < _GAIN)) | (~better & ((damping[open_S] > 1e6) | (np.abs(step).max(axis=1) < 1e-5)))
        open_S = open_S[~arrived]
        if not len(open_S):
            break
    return theta, value
