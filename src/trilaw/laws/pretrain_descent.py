"""The descent behind the first law: from log N, log D and log loss to the least Huber objective, all starts or all draws at once.

For a pair of exponents the law is linear in E, A and B, so a grid of pairs is solved by non-negative least squares of the relative
error, in closed form over all sets of active terms (variable projection); the local minima of the grid are the starts. Then a damped
Newton method, every row its own. The variables z_P are E, log A and log B (for loss, N and D in units of their geometric means), alpha, beta.

Axes: M points, S rows (draws or starts), P = 5 variables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trilaw.laws.fitting import Floats

EXPONENTS = (0.01, 3.0)  # alpha and beta are sought between these
GRID = 33  # exponents a side
_STARTS = 12
_LOW = np.array([0.0, -20.0, -20.0, EXPONENTS[0], EXPONENTS[0]])
_HIGH = np.array([10.0, 5.0, 5.0, EXPONENTS[1], EXPONENTS[1]])
_ROUNDS = 200

Flags = NDArray[np.bool_]


def terms_of(z_SP: Floats, x_M: Floats, y_M: Floats) -> Floats:
    """[3, S, P]: the three terms of the law."""
    terms = np.empty((3, len(z_SP), len(x_M)))
    terms[0] = z_SP[:, 0, None]
    np.exp(z_SP[:, 1, None] - z_SP[:, 3, None] * x_M, out=terms[1])
    np.exp(z_SP[:, 2, None] - z_SP[:, 4, None] * y_M, out=terms[2])
    return terms


def slopes_of(terms: Floats, x_M: Floats, y_M: Floats) -> Floats:
    """[S, P, M]: what log loss gains with each variable of the descent."""
    sum_SM = terms.sum(axis=0)
    slope_SPM = np.empty((len(sum_SM), 5, len(x_M)))
    slope_SPM[:, 0] = 1.0 / sum_SM
    slope_SPM[:, 1], slope_SPM[:, 2] = terms[1] / sum_SM, terms[2] / sum_SM
    slope_SPM[:, 3], slope_SPM[:, 4] = -slope_SPM[:, 1] * x_M, -slope_SPM[:, 2] * y_M
    return slope_SPM


def huber(residuals_SM: Floats, weights_SM: Floats, delta: float) -> Floats:
    size_SM = np.abs(residuals_SM)
    capped_SM = np.minimum(size_SM, delta)
    total: Floats = (weights_SM * capped_SM * (size_SM - 0.5 * capped_SM)).sum(axis=1)
    return total


def descend(
    z_SP: Floats, x_M: Floats, y_M: Floats, target_M: Floats, weights_SM: Floats, free_P: Flags, delta: float
) -> tuple[Floats, Floats]:
    """Minimise each row's weighted Huber objective from its own start; [S, P] and [S] objectives. No row ever gets worse.

    The matrix of a step lies between Newton's (points in Huber's linear part have no curvature) and that of reweighted least squares
    (they have delta / |r|), which always descends on a linear model. One number a row, `damping`, slides between them: it falls
    after a step that helps and rises, past reweighted least squares to ever shorter steps, after one that does not.
    """
    z_SP, damping_S, live = z_SP.copy(), np.ones(len(z_SP)), np.arange(len(z_SP))
    weights_SM = np.broadcast_to(weights_SM, (len(z_SP), len(x_M)))
    objective_S = huber(np.log(terms_of(z_SP, x_M, y_M).sum(axis=0)) - target_M, weights_SM, delta)
    diagonal = np.arange(5)
    for _ in range(_ROUNDS):
        at_SP, own_SM, d_S = z_SP[live], weights_SM[live], damping_S[live]
        terms = terms_of(at_SP, x_M, y_M)
        r_SM = np.log(terms.sum(axis=0)) - target_M
        slope_SPM = slopes_of(terms, x_M, y_M)
        size_SM = np.abs(r_SM)
        pull_SM = own_SM * np.minimum(1.0, delta / np.maximum(size_SM, 1e-300))
        curve_SM = np.where(size_SM <= delta, pull_SM, d_S[:, None] * pull_SM)
        gradient_SP = (slope_SPM @ (pull_SM * r_SM)[:, :, None])[:, :, 0]
        matrix_SPP = (slope_SPM * curve_SM[:, None, :]) @ slope_SPM.transpose(0, 2, 1)
        scale_SP = ((slope_SPM**2) @ pull_SM[:, :, None])[:, :, 0]
        matrix_SPP[:, diagonal, diagonal] += 1e-3 * d_S[:, None] * scale_SP + 1e-15
        held_SP = ~free_P | ((at_SP <= _LOW) & (gradient_SP > 0)) | ((at_SP >= _HIGH) & (gradient_SP < 0))
        matrix_SPP[held_SP[:, :, None] | held_SP[:, None, :]] = 0.0
        matrix_SPP[:, diagonal, diagonal] += held_SP
        step_SP = np.linalg.solve(matrix_SPP, -np.where(held_SP, 0.0, gradient_SP)[:, :, None])[:, :, 0]
        trial_SP = np.where(free_P, np.clip(at_SP + step_SP, _LOW, _HIGH), at_SP)
        trial_S = huber(np.log(terms_of(trial_SP, x_M, y_M).sum(axis=0)) - target_M, own_SM, delta)
        better_S = trial_S <= objective_S[live]
        moved_S = np.abs(trial_SP - at_SP).max(axis=1)
        small_S = (objective_S[live] - trial_S <= 1e-9 * trial_S) & (moved_S < 1e-6)
        z_SP[live] = np.where(better_S[:, None], trial_SP, at_SP)
        objective_S[live] = np.where(better_S, trial_S, objective_S[live])
        damping_S[live] = np.where(better_S, np.maximum(d_S / 4.0, 1e-8), d_S * 8.0)
        live = live[~((better_S & (small_S | (moved_S < 1e-12))) | (d_S > 1e8))]
        if not len(live):
            break
    return z_SP, objective_S


def starts(x_M: Floats, y_M: Floats, target_M: Floats, use: tuple[bool, bool, bool], fixed: float | None) -> Floats:
    """[grid points, P]: for each pair of exponents the non-negative least squares of the relative error over the terms in `use`.

    With three unknowns the best of the solutions of all active sets that are not negative is the answer, and each is one small linear
    system for all pairs at once. A term out of use is set to next to nothing.
    """
    exponents_G = np.geomspace(2 * EXPONENTS[0], EXPONENTS[1] / 1.2, GRID)
    u_M = np.exp(-target_M)
    v_GM, w_GM = np.exp(-np.outer(exponents_G, x_M)) * u_M, np.exp(-np.outer(exponents_G, y_M)) * u_M
    gram, moment = np.empty((GRID, GRID, 3, 3)), np.empty((GRID, GRID, 3))
    gram[..., 0, 0], gram[..., 1, 2] = u_M @ u_M, v_GM @ w_GM.T
    gram[..., 0, 1], gram[..., 0, 2] = (v_GM @ u_M)[:, None], (w_GM @ u_M)[None, :]
    gram[..., 1, 1], gram[..., 2, 2] = (v_GM**2).sum(axis=1)[:, None], (w_GM**2).sum(axis=1)[None, :]
    for i, j in ((1, 0), (2, 0), (2, 1)):
        gram[..., i, j] = gram[..., j, i]
    moment[..., 0], moment[..., 1], moment[..., 2] = u_M.sum(), v_GM.sum(axis=1)[:, None], w_GM.sum(axis=1)[None, :]
    known = 0.0 if fixed is None else fixed
    moment -= known * gram[..., 0]
    best, solution = np.full((GRID, GRID), np.inf), np.zeros((GRID, GRID, 3))
    allowed = [i for i in range(3) if use[i] and not (i == 0 and fixed is not None)]
    for chosen in range(1, 2 ** len(allowed)):
        active = [term for bit, term in enumerate(allowed) if chosen >> bit & 1]
        part = gram[..., active, :][..., :, active]
        ridge = 1e-12 * part.diagonal(axis1=-2, axis2=-1)[..., None] * np.eye(len(active))
        answer = np.zeros_like(solution)
        answer[..., active] = np.linalg.solve(part + ridge, moment[..., active, None])[..., 0]
        squares = ((gram @ answer[..., None])[..., 0] * answer).sum(axis=-1) - 2.0 * (moment * answer).sum(axis=-1)
        take = (answer >= 0).all(axis=-1) & (squares < best)
        best[take], solution[take] = squares[take], answer[take]
    alpha, beta = np.meshgrid(exponents_G, exponents_G, indexing="ij")
    coefficients = np.log(np.maximum(solution[..., 1:], 1e-8))
    coefficients[..., [not use[1], not use[2]]] = _LOW[1]
    z = np.concatenate([(solution[..., :1] + known), coefficients, alpha[..., None], beta[..., None]], axis=-1)
    start_SP: Floats = np.clip(z.reshape(-1, 5), _LOW, _HIGH)
    return start_SP


def deepest(
    x_M: Floats,
    y_M: Floats,
    target_M: Floats,
    free_P: Flags,
    fixed: float | None,
    delta: float,
    use: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Floats, float]:
    """The deepest of the minima that the descent reaches from the local minima of the grid."""
    z_SP, one_SM = starts(x_M, y_M, target_M, use, fixed), np.ones((1, len(x_M)))
    depth = huber(np.log(terms_of(z_SP, x_M, y_M).sum(axis=0)) - target_M, one_SM, delta).reshape(GRID, GRID)
    framed = np.pad(depth, 1, constant_values=np.inf)
    around = [framed[i : i + GRID, j : j + GRID] for i in range(3) for j in range(3)]
    pits = np.flatnonzero(depth <= np.min(around, axis=0))
    pits = pits[np.argsort(depth.ravel()[pits], kind="stable")][:_STARTS]
    z_SP, objective_S = descend(z_SP[pits], x_M, y_M, target_M, one_SM, free_P, delta)
    winner = int(objective_S.argmin())
    return z_SP[winner], float(objective_S[winner])
