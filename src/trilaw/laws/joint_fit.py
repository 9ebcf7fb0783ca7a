"""Fitting the joint law: the main fit from many starts, the bootstrap, and the spread between trained models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trilaw.core.errors import LawError
from trilaw.core.types import Estimate
from trilaw.laws.fitting import Floats, generator, interval
from trilaw.laws.joint_data import Base, LossLaw, Prepared
from trilaw.laws.joint_draws import Inner, Row
from trilaw.laws.joint_likelihood import Data, maximise
from trilaw.laws.joint_vote import fit_diversity, wrong_votes
from trilaw.laws.points import Measurement

MISFIT = 3.0  # standard errors from which a measurement is named in the notes
MISFIT_LEAST = 0.03
ABSORBED = 0.02  # share of the trained models' information below which their spread cannot be told


def fit(
    p: Prepared, loss_law: LossLaw | None, bootstraps: int, seed: int
) -> tuple[Inner, tuple[str, ...], float | None]:
    """The numbers, the notes to them, and the standard deviation between trained models (None: these runs cannot tell)."""
    notes: list[str] = []
    data = _data(p, p.losses_M[None, :], np.zeros((1, len(p.used))))
    whole = np.bincount(p.cell_R, minlength=len(p.cells.samples_C)).astype(np.float64)[None, :]
    starts = _starts(p)
    found, value = maximise(data, starts, whole)
    if not np.isfinite(value).any():
        raise LawError("The likelihood is not finite at any start: the counts cannot be described by this law.")
    main = found[[int(np.nanargmax(value))]]
    rng = generator(seed, "joint", bootstraps)
    weights_SQ = rng.multinomial(p.questions, np.full(p.questions, 1.0 / p.questions), size=bootstraps).astype(
        np.float64
    )
    law_SP = _law_rows(loss_law, p.bases, bootstraps, rng, notes)
    between: float | None = None
    theta = main
    if bootstraps:
        weights_SC = _cell_weights(p, weights_SQ)
        losses_SM = _drawn_losses(p, law_SP[1:])
        start = np.repeat(main, bootstraps, axis=0)
        drawn_data = _data(p, losses_SM, np.zeros((1, len(p.used))))
        draws, _ = maximise(drawn_data, start, weights_SC, tolerance=1e-3)
        effects_MG = _effects(p, main)
        scatter = _between(p, data, drawn_data, main, draws, whole, weights_SC, effects_MG)
        if scatter is None:
            notes.append(
                f"These runs hold {effects_MG.shape[1]} trainings, and the law needs as many numbers to describe them, so they cannot tell how much two "
                "trainings of one recipe differ: the intervals hold the choice of questions only. A second run with another seed would tell."
            )
        else:
            between = scatter.between
            shifts_SG = scatter.draw(rng, bootstraps)[:, None] * rng.standard_normal((bootstraps, effects_MG.shape[1]))
            moved = _data(p, losses_SM, shifts_SG @ effects_MG.T)
            draws, _ = maximise(moved, draws, weights_SC, tolerance=1e-3)
        theta = np.concatenate([main, draws])
    diversity, silent = _vote_numbers(p, np.concatenate([np.ones((1, p.questions)), weights_SQ]))
    inner = Inner(
        layout=p.layout,
        theta_SP=theta,
        loss_law=loss_law,
        law_SP=law_SP,
        bases=p.bases,
        base_losses=p.base_losses,
        reference=p.reference,
        log_rl_reference=p.log_rl_reference,
        missing=p.parts["pretraining"].sentence
        if not p.layout.slope
        else "Without a loss law the joint law reaches the measured bases only (law 1 is not fitted).",
        diversity_S=diversity,
        silent_S=silent,
        most={
            "compute": max(6.0 * m.parameters * m.tokens for m in p.used),
            "parameters": max(m.parameters for m in p.used),
            "fewest parameters": min(m.parameters for m in p.used),
            "tokens": max(m.tokens for m in p.used),
            "rl": max(m.rl_flops for m in p.used),
            "samples": float(max(row.samples for m in p.used for row in m.counts)),
        },
    )
    table = _table(p, data, main)
    notes += _remarks(p, main[0], table)
    return replace(inner, table=table), tuple(notes), between


def estimates(inner: Inner, n: int, method: str) -> dict[str, Estimate | None]:
    """The parameters in the units of JointFit, with their intervals; None for those that are not fitted."""
    theta, layout = inner.theta_SP, inner.layout

    def of(name: str, as_: Callable[[Floats], Floats] = lambda v: v) -> Estimate | None:
        if name not in layout.names:
            return None
        values: Floats = as_(theta[:, layout.at(name)])
        return interval(float(values[0]), values[1:], n, method)

    votes = bool(np.isfinite(inner.diversity_S[0]))
    return {
        "intercept": of("intercept"),
        "slope": of("slope"),
        "rl_asymptote": of("asymptote"),
        "rl_asymptote_slope": of("asymptote slope"),
        "rl_midpoint": of("log midpoint", lambda v: np.exp(v + inner.log_rl_reference)),
        "rl_midpoint_slope": of("log midpoint slope"),
        "rl_steepness": of("log steepness", np.exp),
        "concentration": of("log concentration", np.exp),
        "unsolvable": of("logit unsolvable", lambda v: 1.0 / (1.0 + np.exp(-v))),
        "wrong_diversity": interval(float(inner.diversity_S[0]), inner.diversity_S[1:], n, method) if votes else None,
        "silent": interval(float(inner.silent_S[0]), inner.silent_S[1:], n, method) if votes else None,
    }


def _data(p: Prepared, losses_SM: Floats, offset_SM: Floats) -> Data:
    return Data(p.layout, p.cells, p.base_M, losses_SM - p.reference, p.log_rl_M, offset_SM, p.bounds_P2)


def _starts(p: Prepared) -> Floats:
    """Straight lines through the bases' logits, then a grid over the RL curve's midpoint and steepness and over nu."""
    M = len(p.used)
    rates = np.array(
        [(sum(r.correct for r in m.counts) + 0.5) / (sum(r.samples for r in m.counts) + 1.0) for m in p.used]
    )
    logits = np.log(rates / (1.0 - rates))
    columns = np.zeros((M, p.layout.intercepts + p.layout.slope))
    columns[np.arange(M), p.base_M] = 1.0
    if p.layout.slope:
        columns[:, -1] = p.losses_M - p.reference
    plain = np.isneginf(p.log_rl_M)
    line = np.linalg.lstsq(columns[plain], logits[plain], rcond=None)[0]
    head = dict(zip(p.layout.names, line.tolist()))
    gains = (logits - columns @ line)[~plain]
    ran = p.log_rl_M[~plain]
    midpoints = [*np.quantile(ran, [0.0, 0.3, 0.6, 1.0]).tolist(), float(ran.max()) + 2.0] if len(ran) else [0.0]
    starts = []
    for midpoint in midpoints:
        for steepness in (0.5, 1.0, 2.0) if len(ran) else (1.0,):
            gate = 1.0 / (1.0 + np.exp(-steepness * (ran - midpoint)))
            height = float(gate @ gains / (gate @ gate)) if len(ran) else 0.0
            for nu in (0.7, 3.0):
                known = head | {
                    "asymptote": height,
                    "log midpoint": midpoint,
                    "log steepness": math.log(steepness),
                    "log concentration": math.log(nu),
                    "logit unsolvable": -4.0,
                }
                starts.append([known.get(name, 0.0) for name in p.layout.names])
    return np.array(starts, dtype=np.float64)


def _cell_weights(p: Prepared, weights_SQ: Floats) -> Floats:
    table_QC = np.zeros((p.questions, len(p.cells.samples_C)))
    np.add.at(table_QC, (p.question_R, p.cell_R), 1.0)
    result: Floats = weights_SQ @ table_QC
    return result


def _own_row(law: LossLaw, bases: Sequence[Base]) -> Floats:
    """The law's own (E, A, B, alpha, beta), if it has a `theta` that gives the same losses as its `loss` (searches are then much faster)."""
    theta = np.asarray(getattr(law, "theta", ()), dtype=np.float64)
    if theta.shape != (5,):
        return np.full(5, np.nan)
    e, a, b, alpha, beta = theta
    points = [*bases, *((4.0 * n, 32.0 * d) for n, d in bases)]
    same = all(math.isclose(e + a * n**-alpha + b * d**-beta, law.loss(n, d), rel_tol=1e-9) for n, d in points)
    return theta if same else np.full(5, np.nan)


def _law_rows(
    law: LossLaw | None, bases: Sequence[Base], bootstraps: int, rng: np.random.Generator, notes: list[str]
) -> Floats:
    """Rows of the loss law, one a draw, after the main fit's; NaN: ask `loss`."""
    ask = np.full((1 + bootstraps, 5), np.nan)
    if law is None:
        return ask
    ask[0] = _own_row(law, bases)
    if not bootstraps:
        return ask
    rows = np.asarray(law.draws_SP, dtype=np.float64)
    rows = rows[np.isfinite(rows).all(axis=1)] if rows.ndim == 2 and rows.shape[1] == 5 else np.zeros((0, 5))
    if not len(rows):
        notes.append("The loss law has no draws: its own uncertainty is not in the intervals.")
        return ask
    ask[1:] = rows[rng.choice(len(rows), size=bootstraps, replace=len(rows) < bootstraps)]
    return ask


def _drawn_losses(p: Prepared, law_SP: Floats) -> Floats:
    """Losses to refit on: measured ones stand, the law's vary with its draws."""
    if not any(p.by_law_M) or np.isnan(law_SP).any():
        return p.losses_M[None, :]
    losses = np.repeat(p.losses_M[None, :], len(law_SP), axis=0)
    e, a, b, alpha, beta = law_SP.T
    for i, m in enumerate(p.used):
        if p.by_law_M[i]:
            losses[:, i] = e + a * m.parameters**-alpha + b * m.tokens**-beta
    return losses


def _effects(p: Prepared, main: Floats) -> Floats:
    """M x G: how a shift of each trained model moves the measurements. A base moves itself and all RL from it; a run of RL moves its gain,
    so an early checkpoint hardly."""
    bases = sorted({(m.run, m.parameters, m.tokens) for m in p.used})
    runs = sorted({(m.run, m.parameters, m.tokens) for m in p.used if m.rl_flops > 0})
    effects = np.zeros((len(p.used), len(bases) + len(runs)))
    _, jac = p.layout.logit_and_slopes(main, p.base_M, p.losses_M[None, :] - p.reference, p.log_rl_M)
    for i, m in enumerate(p.used):
        who = (m.run, m.parameters, m.tokens)
        effects[i, bases.index(who)] = 1.0
        if m.rl_flops > 0:
            effects[i, len(bases) + runs.index(who)] = jac[0, i, p.layout.at("asymptote")]
    return effects


@dataclass(frozen=True, slots=True)
class _Scatter:
    """The residuals' sum of squares as seen, the part that resampled questions explain, what a unit variance of models would add, and the
    degrees of freedom behind what was seen."""

    seen: float
    by_questions: float
    share: float
    freedom: float

    @property
    def between(self) -> float:
        return math.sqrt(max(0.0, self.seen - self.by_questions) / self.share)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Standard deviations of models that could have left what was seen: few models can agree by chance, so none is no proof of none."""
        could = self.seen * self.freedom / rng.chisquare(self.freedom, size=count)
        result: Floats = np.sqrt(np.maximum(0.0, could - self.by_questions) / self.share)
        return result


def _between(
    p: Prepared,
    data: Data,
    drawn: Data,
    main: Floats,
    draws: Floats,
    whole: Floats,
    weights_SC: Floats,
    effects_MG: Floats,
) -> _Scatter | None:
    """How trained models scatter around the law, in logits; None where the fit has absorbed them all.

    With scores s (derivatives of the likelihood by each model's shift) and informations D, s' D^-1 s is what it is by resampled questions,
    plus the variance of the shifts times tr(R' D^-1 R), where R takes a shift to the score that is left after the refit. This solves for
    the variance; the degrees of freedom are Satterthwaite's.
    """
    found, jac = data.evaluate(main, whole, np.ones(1, dtype=bool))
    _, hessian = data.derivatives(found, jac)
    free = ~((main[0] <= p.bounds_P2[:, 0]) | (main[0] >= p.bounds_P2[:, 1]))
    information_M = np.maximum(-found.eta_eta_SM[0], 1e-9)
    cross_MP = information_M[:, None] * jac[0]
    if p.layout.spread:
        cross_MP[:, -2:] -= found.eta_spread_SM2[0]
    cross_GP = effects_MG.T @ cross_MP[:, free]
    inverse = np.linalg.pinv(-hessian[0][np.ix_(free, free)], rcond=1e-10, hermitian=True)
    own_GG = effects_MG.T @ (information_M[:, None] * effects_MG)
    left_GG = own_GG - cross_GP @ inverse @ cross_GP.T
    scale_G = np.maximum(np.diag(own_GG), 1e-9)
    moments = left_GG.T @ (left_GG / scale_G[:, None])
    share = float(np.trace(moments))
    if share < ABSORBED * float(scale_G.sum()):
        return None
    freedom = share**2 / float(np.trace(moments @ moments))
    score_G = found.eta_SM[0] @ effects_MG
    drawn_score, _ = drawn.evaluate(draws, weights_SC, np.ones(len(draws), dtype=bool))
    shifts = drawn_score.eta_SM @ effects_MG - score_G
    shifts = shifts[np.isfinite(shifts).all(axis=1)]
    by_questions = float((shifts * shifts / scale_G).sum(axis=1).mean()) if len(shifts) else 0.0
    seen = float((score_G * score_G / scale_G).sum())
    return _Scatter(seen, by_questions, share, max(1.0, freedom))


def _vote_numbers(p: Prepared, weights_SQ: Floats) -> tuple[Floats, Floats]:
    if not p.parts["vote"].fitted:
        return np.full(len(weights_SQ), np.nan), np.full(len(weights_SQ), np.nan)
    rows = [row for m in p.used for row in m.counts]
    votes, kinds, silent = wrong_votes([rows[i] for i in p.voted_R])
    weights_SR = weights_SQ[:, p.question_R[p.voted_R]]
    cast = weights_SR @ votes.astype(np.float64)
    quiet = weights_SR @ silent.astype(np.float64)
    return fit_diversity(votes, kinds, weights_SR), quiet / np.maximum(cast + quiet, 1.0)


def _table(p: Prepared, data: Data, main: Floats) -> tuple[Row, ...]:
    eta, _ = p.layout.logit_and_slopes(main, p.base_M, data.x_SM, p.log_rl_M)
    _, z = p.layout.spread_of(main)
    fitted = (1.0 - z[0]) / (1.0 + np.exp(-eta[0]))
    rows = [Row(m, True, _observed(m), float(value)) for m, value in zip(p.used, fitted)]
    return (*rows, *(Row(m, False, _observed(m), None) for m in p.left_out))


def _observed(m: Measurement) -> float:
    return math.fsum(row.correct / row.samples for row in m.counts) / len(m.counts)


def _remarks(p: Prepared, theta_P: Floats, table: tuple[Row, ...]) -> list[str]:
    notes = []
    for name, value, (low, high) in zip(p.layout.names, theta_P, p.bounds_P2):
        if name in ("asymptote", "log midpoint", "log steepness") and (value <= low or value >= high):
            notes.append(
                f"The RL curve's {name.removeprefix('log ')} is at the end of its range: the runs do not show where the curve bends, so its height is "
                "not known; train longer, and measure early checkpoints too."
            )
    if p.layout.slope and theta_P[p.layout.at("slope")] >= 0:
        notes.append(
            "In these measurements a lower loss does not go with more right samples: the pre-training part predicts nothing useful."
        )
    for row in table:
        if row.fitted is None:
            continue
        shares = np.array([r.correct / r.samples for r in row.point.counts])
        error = math.sqrt(float(shares.var()) / len(shares) + 1e-12)
        off = row.observed - row.fitted
        if abs(off) > max(MISFIT * error, MISFIT_LEAST):
            notes.append(
                f"The law does not describe '{row.point.model}': {row.observed:.1%} of its samples are right, the law says {row.fitted:.1%}."
            )
    return notes
