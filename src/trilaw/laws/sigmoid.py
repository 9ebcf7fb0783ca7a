"""The sigmoid in log compute and its least squares, for many data sets on the same computes at once.

R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B)   (ScaleRL, arXiv 2510.13786)

For given C_mid and B the curve is linear in R0 and A, so the best 0 <= R0 <= A <= 1 is exact at every node of a grid over log C_mid and
log B; the best node starts a Levenberg-Marquardt polish in all four. All data sets (the draws of a bootstrap) go through both together,
so that none inherits a local minimum of another. (The paper lays its grid over A and C_mid.) Nodes within TIE of the least chi-square are
equally good: the data take the one whose R0 is nearest their first value (no rise that nobody saw), a draw takes one at random. On a
plateau, where nothing was measured during the rise, C_mid and B then spread over all that fits, instead of piling up at an edge.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit

from trilaw.laws.fitting import Floats

PARAMETERS = 4  # R0, A, B, C_mid
STEEPNESS = (
    0.3,
    8.0,
)  # B: from 10% to 90% of the rise takes a factor 81^(1/B), 2 million or 1.7; the paper's fits have 1.09 to 2.44
BEYOND = 10.0  # C_mid is looked for from a tenth of the least positive compute to ten times the greatest
LEVELS = 201  # values of A at which the likelihood is profiled
TIE = 0.05  # of chi-square, far below the 2.7 that a 90% interval spans


def evaluate(theta_SP: Floats, compute: float | Floats) -> Floats:
    """The curves of parameters (R0, A, B, C_mid) [S, 4]: [S] at one compute, [S, P] at an array of P."""
    columns = theta_SP.T if np.ndim(compute) == 0 else theta_SP.T[:, :, None]
    R0, A, B, C_mid = columns
    with np.errstate(divide="ignore"):
        values: Floats = R0 + (A - R0) * expit(B * (np.log(compute) - np.log(C_mid)))
    return values


def invert(theta_SP: Floats, level: float) -> Floats:
    """The compute at which each curve reaches `level`: 0 below its start, infinite from its asymptote on."""
    R0, A, B, C_mid = theta_SP.T
    with np.errstate(divide="ignore", over="ignore"):
        ratio_S = np.maximum(level - R0, 0.0) / np.maximum(A - level, 0.0)
        computes: Floats = C_mid * np.where(level <= R0, 0.0, ratio_S) ** (1.0 / B)
    return computes


def bounds(compute_P: Floats) -> tuple[Floats, Floats]:
    """Least and greatest R0, A, B, C_mid that are looked for."""
    positive = compute_P[compute_P > 0.0]
    return (
        np.array([0.0, 0.0, STEEPNESS[0], positive.min() / BEYOND]),
        np.array([1.0, 1.0, STEEPNESS[1], positive.max() * BEYOND]),
    )


def solve(compute_P: Floats, weight_P: Floats, value_SP: Floats, steps: int, rng: np.random.Generator | None) -> Floats:
    """Weighted least squares of each row of values [S, P]: (R0, A, B, C_mid) [S, 4]. Weights are inverse variances; with `rng` the rows
    are draws of a bootstrap and choose at random among nodes that fit equally well."""
    log_P, log_B_G, log_M_G, share_GP = _nodes(compute_P)
    least, greatest = (np.concatenate([edge[:2], np.log(edge[2:])]) for edge in bounds(compute_P))
    cost_GS, R0_GS, A_GS = _best_levels(share_GP, weight_P, value_SP)
    tied_GS = cost_GS <= cost_GS.min(axis=0) + TIE
    preference_GS = -np.abs(R0_GS - value_SP[:, 0]) if rng is None else rng.random(cost_GS.shape)
    node_S = np.where(tied_GS, preference_GS, -np.inf).argmax(axis=0)
    row_S = np.arange(len(value_SP))
    theta_SP = np.stack([R0_GS[node_S, row_S], A_GS[node_S, row_S], log_B_G[node_S], log_M_G[node_S]], axis=1)
    theta_SP = _polish(log_P, weight_P, value_SP, theta_SP, least, greatest, steps)
    return np.concatenate([theta_SP[:, :2], np.exp(theta_SP[:, 2:])], axis=1)


def supported(compute_P: Floats, weight_P: Floats, value_P: Floats, theta_P: Floats, slack: float) -> Floats:
    """`theta_P` itself and, for each of LEVELS asymptotes, the best curve with it, if its chi-square is at most `slack` above [K, 4].

    Their range of A is its profile-likelihood interval, to half a percent. The range of another number over them lies inside its own.
    """
    log_P, log_B_G, log_M_G, share_GP = _nodes(compute_P)
    left_GP = 1.0 - share_GP
    rr, ra, aa = ((x * y) @ weight_P for x, y in ((left_GP, left_GP), (left_GP, share_GP), (share_GP, share_GP)))
    r, a = left_GP @ (weight_P * value_P), share_GP @ (weight_P * value_P)
    A_T = np.linspace(0.0, 1.0, LEVELS)
    R0_GT = np.clip((r[:, None] - ra[:, None] * A_T) / np.maximum(rr, 1e-300)[:, None], 0.0, A_T)
    cost_GT = rr[:, None] * R0_GT**2 + 2.0 * ra[:, None] * R0_GT * A_T + aa[:, None] * A_T**2
    cost_GT -= 2.0 * (r[:, None] * R0_GT + a[:, None] * A_T)
    node_T = cost_GT.argmin(axis=0)
    start_TP = np.stack([R0_GT[node_T, np.arange(LEVELS)], A_T, log_B_G[node_T], log_M_G[node_T]], axis=1)
    least_TP, greatest_TP = (np.tile([*edge[:2], *np.log(edge[2:])], (LEVELS, 1)) for edge in bounds(compute_P))
    least_TP[:, 1] = greatest_TP[:, 1] = A_T  # A stays where it is
    values_TP = np.tile(value_P, (LEVELS, 1))
    best_TP = _polish(log_P, weight_P, values_TP, start_TP, least_TP, greatest_TP, 30)
    curves = np.concatenate([theta_P[None], np.concatenate([best_TP[:, :2], np.exp(best_TP[:, 2:])], axis=1)])
    cost_K = np.sum(weight_P * (value_P - evaluate(curves, compute_P)) ** 2, axis=1)
    kept: Floats = curves[cost_K <= cost_K[0] + slack]
    return kept


def _nodes(compute_P: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """log C, the log B and log C_mid of the nodes of the grid, and their shares of the rise [G, P]."""
    with np.errstate(divide="ignore"):
        log_P = np.log(compute_P)
    least, greatest = (np.log(edge[2:]) for edge in bounds(compute_P))
    middles = min(120, math.ceil((greatest[1] - least[1]) / 0.2))
    axes = np.linspace(least[0], greatest[0], 40), np.linspace(least[1], greatest[1], middles)
    log_B_G, log_M_G = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    return log_P, log_B_G, log_M_G, expit(np.exp(log_B_G)[:, None] * (log_P - log_M_G[:, None]))


def _best_levels(share_GP: Floats, weight_P: Floats, value_SP: Floats) -> tuple[Floats, Floats, Floats]:
    """Least cost [G, S] over 0 <= R0 <= A <= 1 for G given shares of the rise, and the R0 and A that reach it.

    The cost is a convex parabola in (R0, A), so its least value on the triangle is the free one if that lies inside, else on an edge.
    """
    left_GP = 1.0 - share_GP
    rr, ra, aa = (
        np.sum(weight_P * x * y, axis=1)[:, None]
        for x, y in ((left_GP, left_GP), (left_GP, share_GP), (share_GP, share_GP))
    )
    r, a = (left_GP * weight_P) @ value_SP.T, (share_GP * weight_P) @ value_SP.T
    square_S = np.sum(weight_P * value_SP**2, axis=1)
    determinant = rr * aa - ra**2
    singular = determinant <= 1e-10 * rr * aa
    determinant = np.where(singular, 1.0, determinant)
    R0, A = (aa * r - ra * a) / determinant, (rr * a - ra * r) / determinant
    inside = ~singular & (R0 >= 0.0) & (A <= 1.0) & (R0 <= A)
    best = np.where(inside, 0.0, np.inf)
    for on, R0_edge, A_edge in (
        (inside, R0, A),
        (~inside, np.zeros_like(r), np.clip(a / np.maximum(aa, 1e-300), 0.0, 1.0)),
        (~inside, np.clip((r - ra) / np.maximum(rr, 1e-300), 0.0, 1.0), np.ones_like(a)),
        (~inside, level := np.clip((r + a) / (rr + 2.0 * ra + aa), 0.0, 1.0), level),
    ):
        cost = (
            square_S - 2.0 * (R0_edge * r + A_edge * a) + rr * R0_edge**2 + 2.0 * ra * R0_edge * A_edge + aa * A_edge**2
        )
        better = on & ((cost < best) | inside)
        best, R0, A = np.where(better, cost, best), np.where(better, R0_edge, R0), np.where(better, A_edge, A)
    return best, R0, A


def _polish(
    log_P: Floats, weight_P: Floats, value_SP: Floats, theta_SP: Floats, least: Floats, greatest: Floats, steps: int
) -> Floats:
    """Levenberg-Marquardt in (R0, A, log B, log C_mid) for all rows together; parameters that push against a bound stay on it."""
    root_P, damping_S = np.sqrt(weight_P), np.full(len(value_SP), 1e-2)

    def residuals(theta: Floats) -> tuple[Floats, Floats, Floats]:
        z_SP = np.clip(np.exp(theta[:, 2:3]) * (log_P - theta[:, 3:]), -40.0, 40.0)  # beyond, the curve does not move
        share_SP = expit(z_SP)
        return z_SP, share_SP, (value_SP - theta[:, :1] - (theta[:, 1:2] - theta[:, :1]) * share_SP) * root_P

    z_SP, share_SP, residual_SP = residuals(theta_SP)
    cost_S = np.sum(residual_SP**2, axis=1)
    for _ in range(steps):
        slope_SP = (theta_SP[:, 1:2] - theta_SP[:, :1]) * share_SP * (1.0 - share_SP)
        jacobian = (
            np.stack([1.0 - share_SP, share_SP, slope_SP * z_SP, -slope_SP * np.exp(theta_SP[:, 2:3])], axis=1) * root_P
        )
        normal = jacobian @ jacobian.transpose(0, 2, 1)  # [S, 4, 4]
        downhill = np.einsum("skp,sp->sk", jacobian, residual_SP)
        fixed = ((theta_SP <= least) & (downhill < 0.0)) | ((theta_SP >= greatest) & (downhill > 0.0))
        normal, downhill = np.where(fixed[:, :, None] | fixed[:, None, :], 0.0, normal), np.where(fixed, 0.0, downhill)
        diagonal = np.einsum("skk->sk", normal)
        scale = np.where(diagonal > 1e-12, diagonal, 1.0)
        normal = normal + np.eye(PARAMETERS) * (damping_S[:, None] * scale + np.where(fixed, 1.0, 0.0))[:, None, :]
        tried_SP = np.clip(theta_SP + np.linalg.solve(normal, downhill[:, :, None])[:, :, 0], least, greatest)
        tried_SP[:, 0] = np.minimum(tried_SP[:, 0], tried_SP[:, 1])
        tried = residuals(tried_SP)
        tried_cost_S = np.sum(tried[2] ** 2, axis=1)
        better_S = tried_cost_S <= cost_S
        if np.all(cost_S - tried_cost_S <= 1e-13 * cost_S) and np.all(better_S):
            break
        theta_SP = np.where(better_S[:, None], tried_SP, theta_SP)
        z_SP, share_SP, residual_SP = (
            np.where(better_S[:, None], new, old) for new, old in zip(tried, (z_SP, share_SP, residual_SP))
        )
        cost_S = np.where(better_S, tried_cost_S, cost_S)
        damping_S = np.clip(np.where(better_S, damping_S / 5.0, damping_S * 5.0), 1e-9, 1e9)
    return theta_SP
