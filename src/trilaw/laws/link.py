"""From loss to accuracy: the error falls with the loss and levels off where guessing begins.

    Err(L) = eps - k exp(-gamma L),   accuracy = 1 - Err          (Gadre et al. 2024, arXiv 2403.08540)

k and gamma are positive, so accuracy rises as loss falls, whatever the data; eps is at most 1, so it never becomes negative. For a given
gamma the law is linear in eps and k: least squares in closed form, and what is left is one unknown. Its minimum is bracketed on a grid
and then found by halving the slope of the profile, for the fit and all bootstrap draws at once. Where the law passes 1 at low loss, a
prediction is cut off there: accuracy is a share.

The bootstrap is that of `pretrain`: over points, with weights that know their leverage.

Axes: M points, S draws, G grid, P = 3 parameters as in PARAMETERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import fdtri

from trilaw.core.errors import LawError, RequestError
from trilaw.core.types import Estimate
from trilaw.laws.fitting import BOOTSTRAPS, CONFIDENCE, Floats, few_enough, generator, interval, leverage_weights
from trilaw.laws.points import LossPoint, one_group
from trilaw.laws.pretrain import METHOD, METHOD_NEW, MOST_POINTS

PARAMETERS = ("eps", "k", "gamma")
GAMMAS = (0.02, 50.0)  # per nat: gamma is sought between these
LEAST_POINTS, LEAST_LOSSES = 5, 4  # of distinct losses: one more than parameters
_GRID = 120
_HALVINGS = 60
_FAR = 1.1  # times the accuracy above guessing at the lowest loss seen


@dataclass(frozen=True, slots=True)
class LinkFit:
    """The link with 90% intervals. `spread` is the standard deviation of one model's accuracy around it."""

    eps: Estimate  # the error where loss is high: 1 - eps is the accuracy of guessing
    k: Estimate
    gamma: Estimate  # per nat
    spread: float
    points: tuple[LossPoint, ...]
    notes: tuple[str, ...]
    draws_SP: Floats = field(repr=False, compare=False)  # bootstrap draws of PARAMETERS
    residuals_M: Floats = field(repr=False, compare=False)  # of accuracy, centred and scaled up to `spread`

    def accuracy(self, loss: float) -> float:
        """The law's own value, at most 1."""
        return float(_accuracy(self.eps.value, self.k.value, self.gamma.value, loss))

    def predict(self, loss: float) -> Estimate:
        """The accuracy of ONE NEW model of that loss: 90% interval from every parameter draw times every residual of the data.

        Raises RequestError unless the loss is positive.
        """
        if not (np.isfinite(loss) and loss > 0):
            raise RequestError(f"loss is {loss}, it must be a positive number of nats a token.")
        eps_S, k_S, gamma_S = self.draws_SP.T
        new_SM = np.clip(_accuracy(eps_S, k_S, gamma_S, loss)[:, None] + self.residuals_M[None, :], 0.0, 1.0)
        return interval(self.accuracy(loss), new_SM.ravel(), len(self.points), METHOD_NEW)

    def caution(self, loss: float) -> str | None:
        """A sentence where the loss is so far below the data that the accuracy above guessing is over 1.1 times the highest seen.

        Above the data there is none: accuracy levels off there, and so does what can go wrong.
        """
        lowest = min(p.loss for p in self.points)
        times = float(np.exp(self.gamma.value * (lowest - loss)))
        if times <= _FAR:
            return None
        return (
            f"A loss of {loss:.4g} lies below the lowest of the data, {lowest:.4g}, where accuracy above guessing is {times:.3g}x as "
            "high: real models leave the fitted line there, whatever the interval says."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the names of the fields, without draws and points: `points` is their count."""
        losses = [p.loss for p in self.points]
        return {
            "law": "accuracy = 1 - eps + k exp(-gamma loss)",
            **{name: asdict(getattr(self, name)) for name in PARAMETERS},
            "spread": self.spread,
            "points": len(self.points),
            "losses": [min(losses), max(losses)],
            "notes": list(self.notes),
        }


def fit_link(points: Sequence[LossPoint], *, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> LinkFit:
    """Fit the link by least squares to points that carry an accuracy; those without one are left out and counted in `notes`.

    Raises LawError with fewer than 5 such points or 4 distinct losses, for groups mixed, numbers out of range, and where accuracy does
    not rise as loss falls: where the link explains no more of it than chance would (F statistic of its two further parameters, at 90%).
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 or more.")
    used, loss_M, accuracy_M = _arrays(points)
    count = len(used)
    theta_P = _solve(loss_M, accuracy_M, np.ones((1, count)))[0]
    residuals_M = accuracy_M - _accuracy(theta_P[0], theta_P[1], theta_P[2], loss_M)
    left = count - 3
    squares, flat = float((residuals_M**2).sum()), float(((accuracy_M - accuracy_M.mean()) ** 2).sum())
    if flat <= squares * (1.0 + 2.0 / left * float(fdtri(2, left, CONFIDENCE))) + 1e-18:
        raise LawError(
            f"The accuracy of these {count} points does not rise as loss falls by more than chance explains: "
            "add models of lower loss, or a task that they can do."
        )
    curve_M = np.exp(-theta_P[2] * (loss_M - loss_M.min()))
    slope_MP = np.stack([np.ones(count), curve_M, loss_M * curve_M], axis=1)  # each up to a factor
    weights_SM = leverage_weights(generator(seed, "link", count, bootstraps), slope_MP, bootstraps)
    draws_SP = _solve(loss_M, accuracy_M, weights_SM)
    eps, k, gamma = (interval(float(theta_P[i]), draws_SP[:, i], count, METHOD) for i in range(3))
    notes = []
    if len(points) > count:
        notes.append(f"{len(points) - count} of {len(points)} points have no accuracy and were left out.")
    if eps.value >= 1.0 - 1e-9:
        notes.append("eps was pressed up to 1: the data do not show where guessing begins.")
    for edge in GAMMAS:
        if abs(gamma.value / edge - 1.0) < 1e-3:
            notes.append(f"gamma ran to the edge of what is searched, {edge:g}: the data do not determine it.")
    return LinkFit(
        eps,
        k,
        gamma,
        spread=float(np.sqrt(squares / left)),
        points=used,
        notes=tuple(notes),
        draws_SP=draws_SP,
        residuals_M=(residuals_M - residuals_M.mean()) * np.sqrt(count / left),
    )


def _accuracy(eps: float | Floats, k: float | Floats, gamma: float | Floats, loss: float | Floats) -> Floats:
    share: Floats = np.minimum(1.0, 1.0 - eps + k * np.exp(-np.asarray(gamma) * loss))
    return share


def _arrays(points: Sequence[LossPoint]) -> tuple[tuple[LossPoint, ...], Floats, Floats]:
    used = tuple(p for p in points if p.accuracy is not None)
    few_enough(len(used), MOST_POINTS, "points with an accuracy")
    one_group(used)
    loss_M = np.array([p.loss for p in used], dtype=np.float64)
    accuracy_M = np.array([p.accuracy for p in used], dtype=np.float64)
    for i, (loss, accuracy) in enumerate(zip(loss_M, accuracy_M), 1):
        if not (np.isfinite(loss) and loss > 0 and 0 <= accuracy <= 1):
            raise LawError(
                f"Point {i} of {len(used)} has loss {loss} and accuracy {accuracy}: loss must be positive, accuracy a share from 0 to 1."
            )
    distinct = len(set(loss_M.tolist()))
    if len(used) < LEAST_POINTS or distinct < LEAST_LOSSES:
        raise LawError(
            f"There are {len(used)} points with an accuracy at {distinct} different losses: the link needs at least {LEAST_POINTS} "
            f"at {LEAST_LOSSES}."
        )
    if np.ptp(accuracy_M) <= 1e-12:
        raise LawError(
            f"All {len(used)} points have the same accuracy, {accuracy_M[0]:.6g}: nothing can be learnt from it."
        )
    return used, loss_M, accuracy_M


def _solve(loss_M: Floats, accuracy_M: Floats, weights_SM: Floats) -> Floats:
    """[S, P]: eps, k, gamma of least squares for each row of weights."""
    x_M = loss_M - loss_M.min()  # so that exp(-gamma x) stays within 0 and 1; k takes the shift up
    gammas_G = np.geomspace(*GAMMAS, _GRID)
    v_GM = np.exp(-gammas_G[:, None] * x_M)
    best_S = _linear(_moments_on_grid(v_GM, accuracy_M, weights_SM))[2].argmin(axis=1)
    low_S = np.log(gammas_G[np.maximum(best_S - 1, 0)])
    high_S = np.log(gammas_G[np.minimum(best_S + 1, _GRID - 1)])
    for _ in range(_HALVINGS):
        middle_S = 0.5 * (low_S + high_S)
        v_SM = np.exp(-np.exp(middle_S)[:, None] * x_M)
        floor_S, k_S, _ = _linear(_moments(v_SM, accuracy_M, weights_SM))
        residuals_SM = accuracy_M - floor_S[:, None] - k_S[:, None] * v_SM
        # Slope of the profile in gamma: at the best eps and k only the direct part is left.
        slope_S = (weights_SM * residuals_SM * v_SM * x_M).sum(axis=1)
        low_S, high_S = np.where(slope_S < 0, middle_S, low_S), np.where(slope_S < 0, high_S, middle_S)
    gamma_S = np.exp(0.5 * (low_S + high_S))
    floor_S, k_S, _ = _linear(_moments(np.exp(-gamma_S[:, None] * x_M), accuracy_M, weights_SM))
    return np.stack([1.0 - floor_S, k_S * np.exp(gamma_S * loss_M.min()), gamma_S], axis=1)


def _moments(v_SM: Floats, accuracy_M: Floats, weights_SM: Floats) -> tuple[Floats, ...]:
    """Weighted sums of 1, v, v^2, a, v a and a^2, one v a row."""
    w_v_SM = weights_SM * v_SM
    return (
        weights_SM.sum(axis=1),
        w_v_SM.sum(axis=1),
        (w_v_SM * v_SM).sum(axis=1),
        weights_SM @ accuracy_M,
        w_v_SM @ accuracy_M,
        weights_SM @ accuracy_M**2,
    )


def _moments_on_grid(v_GM: Floats, accuracy_M: Floats, weights_SM: Floats) -> tuple[Floats, ...]:
    """The same sums for each row of weights and each v of the grid, [S, G]."""
    return (
        weights_SM.sum(axis=1)[:, None],
        weights_SM @ v_GM.T,
        weights_SM @ (v_GM**2).T,
        (weights_SM @ accuracy_M)[:, None],
        weights_SM @ (v_GM * accuracy_M).T,
        (weights_SM @ accuracy_M**2)[:, None],
    )


def _linear(moments: tuple[Floats, ...]) -> tuple[Floats, Floats, Floats]:
    """Floor >= 0 and k >= 0 of accuracy = floor + k v by weighted least squares, and the sum of squares."""
    w, v, vv, a, va, aa = moments
    k = np.maximum(0.0, (va - v * a / w) / np.maximum(vv - v * v / w, 1e-300))
    floor = (a - k * v) / w
    k, floor = np.where(floor < 0, va / vv, k), np.maximum(floor, 0.0)
    return floor, k, aa - 2.0 * (floor * a + k * va) + floor**2 * w + 2.0 * floor * k * v + k**2 * vv
