"""The first law: the loss of a model of N parameters after D tokens of pre-training.

    L(N, D) = E + A / N^alpha + B / D^beta          (Hoffmann et al. 2022, arXiv 2203.15556, approach 3)

The fit follows the replication by Besiroglu et al. 2024 (arXiv 2404.10102): the SUM over points of Huber(delta) of the residual of log
loss. It departs in how the minimum is found (`pretrain_descent`): its starts are those of variable projection, all descents go at once, log N
and log D are centred, which takes the worst of the conditioning away, and E is bounded by 0 instead of being an exponential.

The bootstrap is over points, each draw started from the main fit: random weights of mean 1 in place of the counts of a redraw (Rubin 1981),
so that no draw loses a point altogether and with it what tells the exponents apart. A weight's variance is not 1 but 1 / (1 - leverage), up
to 4: the law runs closer to a point the more it hangs on it, and the residual is too small by that much. In simulation, nominal 90% intervals cover in
90 to 94% of data sets of 60 points with noise of 0.5 to 2% (84% at 0.03%, where Huber's loss is square) and in 85 to 98% of 8 to 20
points, where a variance of 1 gives 60 to 93%.

Axes: M points, S draws or starts, P = 5 parameters in the order of PARAMETERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import fdtri

from trilaw.core.errors import LawError, RequestError
from trilaw.core.types import Estimate
from trilaw.laws.fitting import (
    BOOTSTRAPS,
    CONFIDENCE,
    Floats,
    caution,
    few_enough,
    generator,
    interval,
    leverage_weights,
)
from trilaw.laws.points import LossPoint, one_group
from trilaw.laws.pretrain_descent import EXPONENTS, Flags, deepest, descend, slopes_of, terms_of

PARAMETERS = ("E", "A", "B", "alpha", "beta")
MOST_POINTS = 5_000
LEAST_POINTS, LEAST_SIZES = 6, 3  # one more than parameters; three sizes show a curvature
METHOD = "bootstrap over points"
METHOD_NEW = "bootstrap over points, with the spread of one model"

_COLLINEAR = 0.05  # log tokens this close to a rising line of log parameters: the terms cannot be told apart
_FAR_OFF = 6.0  # robust standard deviations at which a point is named as lying off the law
_NOUGHT = 0.01  # of the smallest loss: below it, E counts as nought
_CHUNK = 500_000  # points times draws held at a time

Number = float | Floats


def surface(E: Number, A: Number, B: Number, alpha: Number, beta: Number, parameters: Number, tokens: Number) -> Floats:
    """E + A / N^alpha + B / D^beta; single numbers and arrays broadcast."""
    loss: Floats = E + A * np.power(parameters, -np.asarray(alpha)) + B * np.power(tokens, -np.asarray(beta))
    return loss


@dataclass(frozen=True, slots=True)
class PretrainFit:
    """The law with 90% intervals. `allocation` is beta / (alpha + beta): the compute-optimal N grows as C to that power."""

    E: Estimate  # nats a token
    A: Estimate
    B: Estimate
    alpha: Estimate
    beta: Estimate
    allocation: Estimate
    objective: float  # sum over points of Huber(delta) of the residual of log loss
    spread: float  # standard deviation of one model's log loss around the law: root of sum r^2 / (M - free parameters)
    points: tuple[LossPoint, ...]
    notes: tuple[str, ...]
    draws_SP: Floats = field(repr=False, compare=False)  # bootstrap draws of PARAMETERS
    residuals_M: Floats = field(repr=False, compare=False)  # of log loss, centred and scaled up to `spread`

    @property
    def theta(self) -> tuple[float, float, float, float, float]:
        """The fitted PARAMETERS, as `surface` and the functions of `optimum` take them."""
        return self.E.value, self.A.value, self.B.value, self.alpha.value, self.beta.value

    @property
    def theta_S(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """The draws of each of PARAMETERS: the columns of `draws_SP`."""
        E_S, A_S, B_S, alpha_S, beta_S = self.draws_SP.T
        return E_S, A_S, B_S, alpha_S, beta_S

    def loss(self, parameters: float, tokens: float) -> float:
        """The law's own value, in nats a token: the middle of what such models reach."""
        return float(surface(*self.theta, parameters, tokens))

    def predict(self, parameters: float, tokens: float) -> Estimate:
        """The loss of ONE NEW model of this size: 90% interval from every parameter draw times every residual of the data.

        So it holds both how well the law is known and how far single models lie from it; it holds nothing of the law's own bending
        beyond the data: read `caution`. Raises RequestError unless both numbers are positive.
        """
        _positive(parameters=parameters, tokens=tokens)
        losses_S = surface(*self.theta_S, parameters, tokens)
        new_SM = losses_S[:, None] * np.exp(self.residuals_M)[None, :]
        return interval(self.loss(parameters, tokens), new_SM.ravel(), len(self.points), METHOD_NEW)

    def reach(self, parameters: float, tokens: float) -> float:
        """6 N D of the model over the largest 6 N D of the data (not of the FLOPs that a point may carry: like is compared with like)."""
        return parameters * tokens / max(p.parameters * p.tokens for p in self.points)

    def caution(self, parameters: float, tokens: float) -> str | None:
        """A sentence where compute, parameters or tokens lie more than 10x outside the data on either side, else None.

        The worst of them speaks: a model can be far too large for the data at a modest compute.
        """
        sizes, seen = [p.parameters for p in self.points], [p.tokens for p in self.points]
        far = {
            "compute": self.reach(parameters, tokens),
            "parameters": parameters / max(sizes),
            "tokens": tokens / max(seen),
            "parameters, downwards": min(sizes) / parameters,
            "tokens, downwards": min(seen) / tokens,
        }
        worst = max(far, key=lambda what: far[what])
        return caution(far[worst], worst)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields, without draws and points: `points` is their count."""
        estimates = {name: asdict(getattr(self, name)) for name in (*PARAMETERS, "allocation")}
        return {
            "law": "E + A / N^alpha + B / D^beta",
            **estimates,
            "objective": self.objective,
            "spread": self.spread,
            "points": len(self.points),
            "largest_flops": 6.0 * max(p.parameters * p.tokens for p in self.points),
            "notes": list(self.notes),
        }


def fit_pretrain(
    points: Sequence[LossPoint],
    *,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
    delta: float = 1e-3,
    irreducible: float | None = None,
) -> PretrainFit:
    """Fit the law to models trained to the end of their schedule.

    `delta` is where Huber's loss turns from square to linear, in log loss. `irreducible` fixes E (nats a token) where it is known, as
    the entropy of a generator. Raises LawError for points that cannot carry the law: fewer than 6 distinct ones, fewer than 3 sizes
    or token counts, groups mixed, numbers that are not positive, tokens that rise in step with parameters, or a loss that does not
    fall. The loss falls with N (or D) if leaving that term out makes the objective worse than chance would: the F statistic of its two
    parameters at 90%, which counts the points that are left over. Raises RequestError for a bad option.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    _positive(delta=delta)
    N_M, D_M, L_M = _arrays(points)
    centres = np.array([np.log(N_M).mean(), np.log(D_M).mean(), np.log(L_M).mean()])
    x_M, y_M, target_M = np.log(N_M) - centres[0], np.log(D_M) - centres[1], np.log(L_M) - centres[2]
    fixed = _fixed(irreducible, L_M, centres[2])
    free_P = np.array([fixed is None, True, True, True, True])
    z_P, objective = deepest(x_M, y_M, target_M, free_P, fixed, delta)
    _falls(x_M, y_M, target_M, free_P, fixed, delta, objective)

    terms = terms_of(z_P[None], x_M, y_M)
    residuals_M, slope_MP = target_M - np.log(terms.sum(axis=0)[0]), slopes_of(terms, x_M, y_M)[0].T
    count, left = len(points), len(points) - int(free_P.sum())
    draws = generator(seed, "pretrain", count, bootstraps)
    z_SP = np.empty((bootstraps, 5))
    rows = max(1, _CHUNK // count)
    for first in range(0, bootstraps, rows):
        weights_SM = leverage_weights(draws, slope_MP[:, free_P], min(rows, bootstraps - first))
        z_SP[first : first + rows] = descend(
            np.tile(z_P, (len(weights_SM), 1)), x_M, y_M, target_M, weights_SM, free_P, delta
        )[0]

    theta_P, draws_SP = _natural(z_P[None], centres)[0], _natural(z_SP, centres)
    if irreducible is not None:
        theta_P[0] = draws_SP[:, 0] = irreducible  # as given, to the last digit
    values = [interval(float(theta_P[k]), draws_SP[:, k], count, METHOD) for k in range(5)]
    allocation = float(theta_P[4] / (theta_P[3] + theta_P[4]))
    allocation_S = draws_SP[:, 4] / (draws_SP[:, 3] + draws_SP[:, 4])
    E, A, B, alpha, beta = values
    return PretrainFit(
        E=E,
        A=A,
        B=B,
        alpha=alpha,
        beta=beta,
        allocation=interval(allocation, allocation_S, count, METHOD),
        objective=float(objective),
        spread=float(np.sqrt((residuals_M**2).sum() / left)),
        points=tuple(points),
        notes=_notes(values, z_P, z_SP, residuals_M, L_M, fixed is not None),
        draws_SP=draws_SP,
        residuals_M=(residuals_M - residuals_M.mean()) * np.sqrt(count / left),
    )


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise RequestError(f"{name} is {value}, it must be a positive number.")


def _arrays(points: Sequence[LossPoint]) -> tuple[Floats, Floats, Floats]:
    """N, D and L of points that may carry the law. Raises LawError."""
    few_enough(len(points), MOST_POINTS, "points")
    one_group(points)
    for i, p in enumerate(points, 1):
        for name, value in (("parameters", p.parameters), ("tokens", p.tokens), ("loss", p.loss)):
            if not (np.isfinite(value) and value > 0):
                raise LawError(f"Point {i} of {len(points)} has {name} = {value}: it must be a positive number.")
    sizes, seen = {p.parameters for p in points}, {p.tokens for p in points}
    distinct = len({(p.parameters, p.tokens) for p in points})
    need = f"the law needs at least {LEAST_POINTS} with at least {LEAST_SIZES} sizes and {LEAST_SIZES} token counts"
    if distinct < LEAST_POINTS:
        raise LawError(f"There are {distinct} distinct points (N, D) in {len(points)}: {need}.")
    for values, what, letter in ((sizes, "size", "N"), (seen, "token count", "D")):
        if len(values) < LEAST_SIZES:
            listed = ", ".join(f"{v:.4g}" for v in sorted(values))
            plural = "s" if len(values) > 1 else ""
            raise LawError(
                f"The {len(points)} points have only {len(values)} {what}{plural} ({letter} = {listed}): {need}."
            )
    N_M, D_M, L_M = (np.array([getattr(p, name) for p in points]) for name in ("parameters", "tokens", "loss"))
    if np.ptp(L_M) <= 1e-9 * L_M.max():
        raise LawError(f"All {len(points)} points have the same loss, {L_M[0]:.6g}: nothing can be learnt from it.")
    x_M, y_M = np.log(N_M) - np.log(N_M).mean(), np.log(D_M) - np.log(D_M).mean()
    slope = float(x_M @ y_M / (x_M @ x_M))
    if slope > 0 and np.abs(y_M - slope * x_M).max() < _COLLINEAR:
        raise LawError(
            f"In all {len(points)} points the tokens rise in step with the parameters (D as N^{slope:.2g}), so their effects cannot be "
            "told apart: add models with other numbers of tokens a parameter."
        )
    return N_M, D_M, L_M


def _fixed(irreducible: float | None, L_M: Floats, centre: float) -> float | None:
    """E in the units of the descent, if it is given."""
    if irreducible is None:
        return None
    if not (np.isfinite(irreducible) and irreducible >= 0):
        raise RequestError(f"irreducible is {irreducible}, it must be 0 or a positive number of nats a token.")
    below = int((irreducible >= L_M).sum())
    if 2 * below >= len(L_M):
        raise LawError(
            f"{below} of {len(L_M)} losses are not above the irreducible loss {irreducible:.6g}: check that both are in nats a token."
        )
    return float(irreducible / np.exp(centre))


def _falls(
    x_M: Floats, y_M: Floats, target_M: Floats, free_P: Flags, fixed: float | None, delta: float, objective: float
) -> None:
    """Raises LawError unless both terms earn their two parameters (the rule is in `fit_pretrain`)."""
    left = len(x_M) - int(free_P.sum())
    allowed = objective * (1.0 + 2.0 / left * float(fdtri(2, left, CONFIDENCE))) + 1e-24
    idle = []
    for term, name in ((1, "parameters"), (2, "tokens")):
        held_P = free_P.copy()
        held_P[[term, term + 2]] = False
        use = (True, term != 1, term != 2)
        if deepest(x_M, y_M, target_M, held_P, fixed, delta, use)[1] <= allowed:
            idle.append(name)
    if idle:
        raise LawError(
            f"The loss of these {len(x_M)} points does not fall with {' or '.join(idle)} by more than chance explains "
            f"({left} points are left after the law's parameters): add points, or a wider range of {' and '.join(idle)}."
        )


def _natural(z_SP: Floats, centres: Floats) -> Floats:
    """PARAMETERS from the centred variables of the descent."""
    x0, y0, t0 = centres
    E, log_A, log_B, alpha, beta = z_SP.T
    return np.stack(
        [E * np.exp(t0), np.exp(log_A + alpha * x0 + t0), np.exp(log_B + beta * y0 + t0), alpha, beta], axis=1
    )


def _notes(
    values: Sequence[Estimate], z_P: Floats, z_SP: Floats, residuals_M: Floats, L_M: Floats, fixed: bool
) -> tuple[str, ...]:
    notes = []
    for k, name in ((3, "alpha"), (4, "beta")):
        low, high = EXPONENTS
        edge_S = (z_SP[:, k] <= low * 1.001) | (z_SP[:, k] >= high * 0.999)
        if z_P[k] <= low * 1.001 or z_P[k] >= high * 0.999:
            notes.append(
                f"{name} ran to the edge of what is searched, {low:g} to {high:g}: the data do not determine it."
            )
        elif len(z_SP) and edge_S.mean() > (1.0 - CONFIDENCE) / 2.0:
            notes.append(
                f"{name} ran to the edge of what is searched in {edge_S.mean():.0%} of the draws: its interval is open there."
            )
    nought = _NOUGHT * L_M.min()
    if fixed:
        notes.append(f"E was given as {values[0].value:.6g} and not fitted.")
    elif values[0].value <= nought:
        notes.append(
            "E was pressed down to nought: the data show no irreducible loss, and extrapolation falls without end."
        )
    elif len(z_SP) and values[0].low <= nought:
        notes.append("The interval of E reaches down to nought: the data do not determine the irreducible loss.")
    typical = 1.4826 * float(np.median(np.abs(residuals_M)))
    off = int((np.abs(residuals_M) > _FAR_OFF * max(typical, 1e-9)).sum())
    if off:
        notes.append(
            f"More than {_FAR_OFF:g} robust standard deviations off the law: {off} of {len(L_M)} points; see how they were trained."
        )
    return tuple(notes)
