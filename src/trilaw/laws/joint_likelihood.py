"""The likelihood behind the joint law: zero-inflated beta-binomial counts whose mean hangs on the loss and on the compute of RL.

A question is out of reach with probability z; else its share of right samples is Beta(a, b), a = mu nu, b = (1 - mu) nu. Of n samples
c are right with probability

    z [c = 0] + (1 - z) C(n, c) (a)_c (b)_(n-c) / (nu)_n          (x)_j = x (x + 1) ... (x + j - 1)

    logit mu = intercept + slope x + A(x) / (1 + (C_mid(x) / C)^B)     A, log C_mid linear in x; x = loss - reference; C = FLOPs of RL

The saturating form is ScaleRL's (arXiv 2510.13786), put on the logit, where it cannot leave [0, 1]. Counts are whole, so the rising
factorials and their derivatives are running sums: no gamma function, no cancellation. `maximise` runs damped Newton steps on many rows at once
(the starts of one fit, or the draws of a bootstrap), each with weights of its own.

Suffixes: S rows, M measurements, C cells (distinct pairs of samples and correct of one measurement), P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trilaw.laws.fitting import Floats

Ints = NDArray[np.int64]
LOGIT_BOUND = 30.0  # beyond it a share is 0 or 1 in double precision
CONCENTRATION_BOUNDS = (1e-2, 1e3)  # nu: below, every question is certain; above, all are equally hard
UNSOLVABLE_BOUNDS = (1e-5, 0.99)
ASYMPTOTE_BOUND = 12.0  # logits that RL may add or take
MIDPOINT_FACTOR = 30.0  # the midpoint may lie this far outside the RL compute that was run
STEEPNESS_BOUNDS = (0.3, 6.0)  # the published exponents lie between 1.1 and 2.4 (ScaleRL, table 1)
_CHUNK = 1_000_000  # table entries held at a time


@dataclass(frozen=True, slots=True)
class Layout:
    """Which parameters there are, and in which column. `intercepts` is 1, or one a base where the pre-training part is not fitted."""

    intercepts: int = 1
    slope: bool = True
    rl: bool = False
    asymptote_slope: bool = False
    midpoint_slope: bool = False
    spread: bool = True  # nu and z

    @property
    def names(self) -> tuple[str, ...]:
        names = ["intercept"] if self.intercepts == 1 else [f"intercept {i + 1}" for i in range(self.intercepts)]
        names += ["slope"] * self.slope
        if self.rl:
            names += ["asymptote", *["asymptote slope"] * self.asymptote_slope]
            names += ["log midpoint", *["log midpoint slope"] * self.midpoint_slope, "log steepness"]
        return (*names, *["log concentration", "logit unsolvable"] * self.spread)

    def at(self, name: str) -> int:
        return self.names.index(name)

    def spread_of(self, theta_SP: Floats) -> tuple[Floats, Floats]:
        """nu_S and z_S (1 and 0 where they are not fitted: of a single sample only the mean matters)."""
        if not self.spread:
            return np.ones(len(theta_SP)), np.zeros(len(theta_SP))
        return np.exp(theta_SP[:, -2]), 1.0 / (1.0 + np.exp(-theta_SP[:, -1]))

    def logit(self, theta_SP: Floats, base: Ints | int, x: Floats, log_rl: Floats) -> Floats:
        """logit mu, one row a row of theta. `base`, `x` and `log_rl` (-inf: no RL) broadcast against (S, ...)."""
        return self._forward(theta_SP, base, x, log_rl)[0]

    def _forward(self, theta_SP: Floats, base: Ints | int, x: Floats, log_rl: Floats) -> tuple[Floats, ...]:
        extra = max(np.ndim(x), np.ndim(log_rl), np.ndim(base) + 1, 1) - 1

        def column(name: str) -> Floats:
            result: Floats = theta_SP[:, self.at(name)].reshape(-1, *[1] * extra)
            return result

        if self.intercepts == 1:
            eta = column("intercept") + np.zeros(np.broadcast_shapes(np.shape(x), np.shape(log_rl)))
        else:
            eta = theta_SP[:, base] if np.ndim(base) else theta_SP[:, base].reshape(-1, *[1] * extra)
            eta = eta + np.zeros(np.broadcast_shapes(np.shape(x), np.shape(log_rl)))
        if self.slope:
            eta = eta + column("slope") * x
        if not self.rl:
            return (eta,)
        asymptote, midpoint, steepness = column("asymptote"), column("log midpoint"), np.exp(column("log steepness"))
        if self.asymptote_slope:
            asymptote = asymptote + column("asymptote slope") * x
        if self.midpoint_slope:
            midpoint = midpoint + column("log midpoint slope") * x
        with np.errstate(over="ignore"):
            gate = 1.0 / (1.0 + np.exp(np.clip(-steepness * (log_rl - midpoint), -700.0, 700.0)))
        gate = np.where(np.isneginf(log_rl), 0.0, gate)
        return eta + asymptote * gate, asymptote, midpoint, steepness, gate

    def logit_and_slopes(self, theta_SP: Floats, base_M: Ints, x_SM: Floats, log_rl_M: Floats) -> tuple[Floats, Floats]:
        """logit mu_SM and its derivatives by all parameters, S x M x P (those of nu and z are 0)."""
        eta, *rl = self._forward(theta_SP, base_M, x_SM, log_rl_M)
        jac = np.zeros((*eta.shape, len(self.names)))
        if self.intercepts == 1:
            jac[:, :, 0] = 1.0
        else:
            jac[:, np.arange(len(base_M)), base_M] = 1.0
        if self.slope:
            jac[:, :, self.at("slope")] = x_SM
        if rl:
            asymptote, midpoint, steepness, gate = rl
            bend = asymptote * gate * (1.0 - gate)
            ran = np.where(np.isneginf(log_rl_M), 0.0, log_rl_M)
            jac[:, :, self.at("asymptote")] = gate
            jac[:, :, self.at("log midpoint")] = -bend * steepness
            jac[:, :, self.at("log steepness")] = bend * steepness * (ran - midpoint)
            if self.asymptote_slope:
                jac[:, :, self.at("asymptote slope")] = gate * x_SM
            if self.midpoint_slope:
                jac[:, :, self.at("log midpoint slope")] = -bend * steepness * x_SM
        return eta, jac


@dataclass(frozen=True, slots=True)
class Cells:
    """Counts as histograms: cell i says that questions of measurement `measurement_C[i]` gave `correct_C[i]` of `samples_C[i]`. Sorted by
    measurement, none of which is empty."""

    measurement_C: Ints
    samples_C: Ints
    correct_C: Ints
    log_choose_C: Floats
    starts_M: Ints

    def by_measurement(self, values_SC: Floats) -> Floats:
        result: Floats = np.add.reduceat(values_SC, self.starts_M, axis=1)
        return result


@dataclass(frozen=True, slots=True)
class Terms:
    """Weighted log-likelihood of each row and its derivatives by logit mu (one a measurement), log nu and logit z."""

    value_S: Floats
    eta_SM: Floats
    spread_S2: Floats
    eta_eta_SM: Floats
    eta_spread_SM2: Floats
    spread_spread_S22: Floats


def _rising(x: Floats, most: int) -> tuple[Floats, Floats, Floats]:
    """log (x)_j and its first two derivatives by x for j = 0 ... most, as a new last axis."""
    steps = x[..., None] + np.arange(most)
    inverse = 1.0 / steps
    shape = (*x.shape, most + 1)
    out = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.cumsum(np.log(steps), axis=-1, out=out[0][..., 1:])
    np.cumsum(inverse, axis=-1, out=out[1][..., 1:])
    np.cumsum(-inverse * inverse, axis=-1, out=out[2][..., 1:])
    return out


def terms(eta_SM: Floats, nu_S: Floats, z_S: Floats, cells: Cells, weights_SC: Floats) -> Terms:
    """The likelihood at given means; `weights_SC` may have one row for all."""
    rows = max(1, _CHUNK // (eta_SM.shape[1] * (int(cells.samples_C.max()) + 1)))
    if len(eta_SM) <= rows:
        return _terms(eta_SM, nu_S, z_S, cells, weights_SC)
    parts = []
    for at in range(0, len(eta_SM), rows):
        cut = slice(at, at + rows)
        parts.append(
            _terms(eta_SM[cut], nu_S[cut], z_S[cut], cells, weights_SC[cut] if len(weights_SC) > 1 else weights_SC)
        )
    return Terms(*(np.concatenate([getattr(part, name) for part in parts]) for name in Terms.__slots__))


def _terms(eta_SM: Floats, nu_S: Floats, z_S: Floats, cells: Cells, weights_SC: Floats) -> Terms:
    m, n, c = cells.measurement_C, cells.samples_C, cells.correct_C
    most = int(n.max())
    mu = 1.0 / (1.0 + np.exp(-np.clip(eta_SM, -LOGIT_BOUND, LOGIT_BOUND)))
    rest = 1.0 / (1.0 + np.exp(np.clip(eta_SM, -LOGIT_BOUND, LOGIT_BOUND)))
    nu = nu_S[:, None]
    a_SM, b_SM = mu * nu, rest * nu
    a0, a1, a2 = (table[:, m, c] for table in _rising(a_SM, most))
    b0, b1, b2 = (table[:, m, n - c] for table in _rising(b_SM, most))
    n0, n1, n2 = (table[:, n] for table in _rising(nu_S, most))
    log_p = cells.log_choose_C + a0 + b0 - n0
    by_a, by_b = a1 - n1, b1 - n1
    by_aa, by_ab, by_bb = a2 - n2, -n2, b2 - n2

    a, b = a_SM[:, m], b_SM[:, m]
    tilt = (nu * mu * rest)[:, m]  # d a / d eta = - d b / d eta
    curve = tilt * (1.0 - 2.0 * mu[:, m])
    g_eta = tilt * (by_a - by_b)
    g_nu = a * by_a + b * by_b
    h_ee = tilt * tilt * (by_aa - 2.0 * by_ab + by_bb) + curve * (by_a - by_b)
    h_en = tilt * (a * (by_aa - by_ab) + b * (by_ab - by_bb)) + g_eta
    h_nn = a * a * by_aa + 2.0 * a * b * by_ab + b * b * by_bb + g_nu

    # The mixture: r is the probability that a question without a right sample is one of those within reach.
    z = z_S[:, None]
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        inside = np.log1p(-z) + log_p
        value = np.where(c == 0, np.logaddexp(np.log(z), inside), inside)
        r = np.where(c == 0, np.exp(inside - value), 1.0)
    mixed = r * (1.0 - r)
    g_z = 1.0 - r - z
    w = weights_SC
    spread = np.stack([w * r * g_nu, w * g_z], axis=-1).sum(axis=1)
    nn = (w * (r * h_nn + mixed * g_nu * g_nu)).sum(axis=1)
    nz = (w * -mixed * g_nu).sum(axis=1)
    zz = (w * (mixed - z * (1.0 - z))).sum(axis=1)
    return Terms(
        (w * value).sum(axis=1),
        cells.by_measurement(w * r * g_eta),
        spread,
        cells.by_measurement(w * (r * h_ee + mixed * g_eta * g_eta)),
        np.stack(
            [
                cells.by_measurement(w * (r * h_en + mixed * g_eta * g_nu)),
                cells.by_measurement(w * -mixed * g_eta),
            ],
            axis=-1,
        ),
        np.stack([np.stack([nn, nz], axis=-1), np.stack([nz, zz], axis=-1)], axis=-2),
    )


@dataclass(frozen=True, slots=True)
class Data:
    """What the rows are fitted to. `x_SM` and `offset_SM` (added to logit mu) have one row for all, or one each."""

    layout: Layout
    cells: Cells
    base_M: Ints
    x_SM: Floats
    log_rl_M: Floats
    offset_SM: Floats
    bounds_P2: Floats

    def _rows(self, array: Floats, rows: NDArray[np.bool_]) -> Floats:
        return array[rows] if len(array) > 1 else array

    def evaluate(self, theta_SP: Floats, weights_SC: Floats, rows: NDArray[np.bool_]) -> tuple[Terms, Floats]:
        eta, jac = self.layout.logit_and_slopes(theta_SP, self.base_M, self._rows(self.x_SM, rows), self.log_rl_M)
        nu_S, z_S = self.layout.spread_of(theta_SP)
        return terms(eta + self._rows(self.offset_SM, rows), nu_S, z_S, self.cells, self._rows(weights_SC, rows)), jac

    def derivatives(self, found: Terms, jac_SMP: Floats) -> tuple[Floats, Floats]:
        """Gradient S x P and Gauss-Newton Hessian S x P x P (curvature of logit mu in the parameters left out)."""
        gradient = np.einsum("sm,smp->sp", found.eta_SM, jac_SMP)
        hessian = np.einsum("smp,sm,smq->spq", jac_SMP, found.eta_eta_SM, jac_SMP, optimize=True)
        if self.layout.spread:
            cross = np.einsum("smp,smk->spk", jac_SMP, found.eta_spread_SM2)
            gradient[:, -2:] += found.spread_S2
            hessian[:, :, -2:] += cross
            hessian[:, -2:, :] += np.swapaxes(cross, 1, 2)
            hessian[:, -2:, -2:] += found.spread_spread_S22
        return gradient, hessian


def maximise(
    data: Data, start_SP: Floats, weights_SC: Floats, *, iterations: int = 80, tolerance: float = 1e-5
) -> tuple[Floats, Floats]:
    """The parameters of greatest likelihood within the bounds, and that likelihood, row by row.

    Newton steps with the Hessian made definite, damped (Levenberg and Marquardt) until the likelihood rises; a parameter at its bound that
    wants out is held there. A row ends when a step promises less than `tolerance` of log-likelihood.
    """
    low, high = data.bounds_P2.T
    theta = np.clip(start_SP, low, high)
    S = len(theta)
    everything = np.ones(S, dtype=bool)
    found, jac = data.evaluate(theta, weights_SC, everything)
    value = found.value_S.copy()
    gradient, hessian = data.derivatives(found, jac)
    damping = np.full(S, 1e-3)
    active = np.isfinite(value)
    for _ in range(iterations):
        if not active.any():
            break
        rows = np.flatnonzero(active)
        g, h, here = gradient[rows], -hessian[rows], theta[rows]
        held = ((here <= low) & (g < 0)) | ((here >= high) & (g > 0))
        g = np.where(held, 0.0, g)
        h = np.where(held[:, :, None] | held[:, None, :], 0.0, h)
        eigen, vectors = np.linalg.eigh(h)
        top = np.maximum(np.abs(eigen).max(axis=1, keepdims=True), 1e-8)
        eigen = np.maximum(np.abs(eigen), 1e-9 * top)
        # Damping in units of the diagonal makes the step independent of the parameters' scales.
        along = np.einsum("spk,sp->sk", vectors, g) / (eigen + damping[rows, None] * np.maximum(eigen, 1e-3 * top))
        step = np.clip(np.einsum("spk,sk->sp", vectors, along), -3.0, 3.0)
        trial = np.clip(here + np.where(held, 0.0, step), low, high)
        promise = 0.5 * (g * (trial - here)).sum(axis=1)
        mask = np.zeros(S, dtype=bool)
        mask[rows] = True
        found, jac = data.evaluate(trial, weights_SC, mask)
        better = np.isfinite(found.value_S) & (found.value_S >= value[rows] - 1e-12)
        new_gradient, new_hessian = data.derivatives(found, jac)
        won = rows[better]
        theta[won], value[won] = trial[better], found.value_S[better]
        gradient[won], hessian[won] = new_gradient[better], new_hessian[better]
        damping[won] = np.maximum(damping[won] / 10.0, 1e-9)
        damping[rows[~better]] *= 10.0
        done = (promise < tolerance) & better & (damping[rows] <= 1.0) | (damping[rows] > 1e10)
        active[rows[done]] = False
    return theta, value
