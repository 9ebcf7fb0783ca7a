"""What the first law says about a budget: the best size and tokens, for training alone and with the serving that follows.

- Training alone, 6 N D = C (Hoffmann et al. 2022, arXiv 2203.15556, section 3.3), in closed form:
  N* = G (C/6)^(beta / (alpha + beta)), D* = (C/6) / N*, G = (alpha A / (beta B))^(1 / (alpha + beta)).
- With serving (Sardana et al. 2023, arXiv 2401.00448): of all models that reach a loss l, the one with the least
  c_t 6 N D + c_i 2 N D_inf. With u = A / N^alpha, g = l - E - u = B / D^beta and k = alpha / beta the slope in log N is nought where
  D (k u / g - 1) = c_i D_inf / (3 c_t). The left side grows with u / (l - E) from 0 at the training-only optimum, so the root is one.
- The parabola of approach 2 (Hoffmann et al., section 3.2), and how far it errs on a surface of the law itself (arXiv 2603.22339): on a
  grid of sizes that is centred on the optimum the exponent is right, but the intercept is not unless alpha = beta.

Axes: S bootstrap draws, P = 5 parameters as in `pretrain.PARAMETERS`. FLOPs are 6 a parameter and token in training, 2 in serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.types import Estimate
from trilaw.laws.fitting import Floats, interval
from trilaw.laws.points import LossPoint, one_group
from trilaw.laws.pretrain import METHOD, Number, PretrainFit, fit_pretrain, surface

_LARGEST = 690.0  # of a logarithm: exp of more is not a float
_HALVINGS = 100


@dataclass(frozen=True, slots=True)
class Optimum:
    """The model that `flops` of training should make. `loss` is what one such model will reach (`PretrainFit.predict`)."""

    flops: float
    parameters: Estimate
    tokens: Estimate
    loss: Estimate
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain numbers."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class InferenceOptimum:
    """The cheapest model of a given loss, when `inference_tokens` will pass through it.

    `cost` and `saving` are in units of training FLOPs times `train_cost`; `saving` is the share saved against the model that is cheapest
    to train to that loss (`training_only_*`) with the same serving.
    """

    loss: float
    inference_tokens: float
    train_cost: float
    inference_cost: float
    parameters: Estimate
    tokens: Estimate
    cost: Estimate
    training_only_parameters: Estimate
    training_only_tokens: Estimate
    saving: Estimate
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain numbers."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class ParabolaPoint:
    """One budget's parabola of loss over log N: where it is least. `inside`: whether that lies among the sizes tried."""

    flops: float
    parameters: float
    tokens: float
    loss: float
    inside: bool


@dataclass(frozen=True, slots=True)
class IsoFlop:
    """Approach 2: N* = exp(parameter_intercept) C^parameter_exponent, D* alike, from one parabola a budget."""

    budgets: tuple[ParabolaPoint, ...]
    parameter_exponent: float
    parameter_intercept: float
    token_exponent: float
    token_intercept: float
    notes: tuple[str, ...]

    def extrapolate(self, flops: float) -> tuple[float, float]:
        """N* and D* for a budget. Raises RequestError unless it is positive."""
        _positive(flops=flops)
        log_C = np.log(flops)
        return (
            float(np.exp(self.parameter_intercept + self.parameter_exponent * log_C)),
            float(np.exp(self.token_intercept + self.token_exponent * log_C)),
        )


@dataclass(frozen=True, slots=True)
class ParabolaBias:
    """Approach 2 beside the law on the same points, extrapolated to `flops`.

    `tokens_difference` is parabola over law, less 1, as measured: bias and noise together. `tokens_bias` and `parameters_bias` are the
    error that the parabola makes on losses WITHOUT noise, taken from the fitted law at the same N and D: bias alone.
    """

    flops: float
    parabola_parameters: float
    parabola_tokens: float
    law_parameters: float
    law_tokens: float
    tokens_difference: float
    parameters_bias: float
    tokens_bias: float

    def to_json(self) -> dict[str, float]:
        """The fields."""
        return asdict(self)


def chinchilla_optimum(
    E: Number, A: Number, B: Number, alpha: Number, beta: Number, flops: Number
) -> tuple[Floats, Floats, Floats]:
    """N*, D* and the loss there, at 6 N D = `flops`; single numbers and arrays broadcast."""
    log_half = np.log(np.asarray(flops) / 6.0)
    log_G = (np.log(alpha * np.asarray(A)) - np.log(beta * np.asarray(B))) / (alpha + np.asarray(beta))
    log_N = np.clip(log_G + beta / (alpha + np.asarray(beta)) * log_half, -_LARGEST, _LARGEST)
    parameters, tokens = np.exp(log_N), np.exp(np.clip(log_half - log_N, -_LARGEST, _LARGEST))
    return parameters, tokens, surface(E, A, B, alpha, beta, parameters, tokens)


def optimum(fit: PretrainFit, flops: float) -> Optimum:
    """The compute-optimal model for `flops` = 6 N D, with 90% intervals.

    Raises RequestError for a budget below that of the smallest run: the law was not seen there, and such a run is cheaper than a fit.
    """
    _positive(flops=flops)
    smallest = 6.0 * min(p.parameters * p.tokens for p in fit.points)
    if flops < smallest * (1.0 - 1e-9):
        raise RequestError(
            f"The budget of {flops:.3g} FLOPs is below the smallest run of the data, {smallest:.3g}: give at least that much."
        )
    N, D, _ = chinchilla_optimum(*fit.theta, flops)
    N_S, D_S, _ = chinchilla_optimum(*fit.theta_S, flops)
    count, parameters, tokens = len(fit.points), float(N), float(D)
    return Optimum(
        flops,
        interval(parameters, N_S, count, METHOD),
        interval(tokens, D_S, count, METHOD),
        fit.predict(parameters, tokens),
        _place(fit, parameters, tokens),
    )


def cheapest(
    E: Number,
    A: Number,
    B: Number,
    alpha: Number,
    beta: Number,
    loss: float,
    inference_tokens: float,
    train_cost: float = 1.0,
    inference_cost: float = 1.0,
) -> tuple[Floats, Floats]:
    """N and D of the cheapest model of that loss; NaN where E is not below the loss. Numbers and arrays of the law's parameters broadcast.

    `inference_tokens` 0 gives the model that is cheapest to train. The root is found by halving in log (u / g).
    """
    alpha, beta = np.asarray(alpha), np.asarray(beta)
    room = np.where(loss > E, loss - E, np.nan)
    start = np.log(beta / alpha)  # log (u / g) of the training-only optimum
    low, high = start, start + 2.0 * _LARGEST
    if inference_tokens > 0:
        wanted = np.log(inference_cost * inference_tokens / (3.0 * train_cost))
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            log_D = (np.log(B / room) + np.logaddexp(0.0, middle)) / beta
            # log (k u / g - 1), where log (u / g) = start - or + a little: expm1 keeps the digits, and above 40 it is the identity.
            beyond = middle - start
            over = np.where(beyond > 40.0, beyond, np.log(np.expm1(np.minimum(beyond, 40.0)) + 1e-300))
            short = log_D + over < wanted
            low, high = np.where(short, middle, low), np.where(short, high, middle)
    log_odds = 0.5 * (low + high) if inference_tokens > 0 else start
    log_N = (np.log(A / room) + np.logaddexp(0.0, -log_odds)) / alpha
    log_D = (np.log(B / room) + np.logaddexp(0.0, log_odds)) / beta
    return np.exp(np.clip(log_N, -_LARGEST, _LARGEST)), np.exp(np.clip(log_D, -_LARGEST, _LARGEST))


def inference_optimum(
    fit: PretrainFit, loss: float, inference_tokens: float, *, train_cost: float = 1.0, inference_cost: float = 1.0
) -> InferenceOptimum:
    """The cheapest model of `loss` nats a token through which `inference_tokens` tokens (prompt and output) will pass.

    `train_cost` and `inference_cost` are prices of a FLOP in one currency: price of an hour over peak and utilisation. Raises
    RequestError for a loss at or below the fitted E, which no model reaches, and for a price or count that is not positive.
    """
    _positive(loss=loss, train_cost=train_cost, inference_cost=inference_cost)
    if not (np.isfinite(inference_tokens) and inference_tokens >= 0):
        raise RequestError(f"inference_tokens is {inference_tokens}, it must be 0 or more.")
    if loss <= fit.E.value:
        raise RequestError(
            f"A loss of {loss:.6g} is not above the irreducible loss {fit.E.value:.6g} of the law: no model reaches it."
        )

    def all_of(E: Number, A: Number, B: Number, alpha: Number, beta: Number) -> tuple[Floats, ...]:
        N, D = cheapest(E, A, B, alpha, beta, loss, inference_tokens, train_cost, inference_cost)
        N0, D0 = cheapest(E, A, B, alpha, beta, loss, 0.0)
        cost, cost0 = (
            train_cost * 6.0 * n * d + inference_cost * 2.0 * n * inference_tokens for n, d in ((N, D), (N0, D0))
        )
        return N, D, cost, N0, D0, 1.0 - cost / cost0

    count = len(fit.points)
    values, draws = all_of(*fit.theta), all_of(*fit.theta_S)
    N, D, cost, N0, D0, saving = (interval(float(v), d, count, METHOD) for v, d in zip(values, draws))
    lost = float(np.isnan(draws[0]).mean()) if len(draws[0]) else 0.0
    notes = _place(fit, N.value, D.value)
    if lost > 0:
        notes += (f"In {lost:.1%} of the draws no model reaches this loss; the intervals are of the others.",)
    return InferenceOptimum(loss, inference_tokens, train_cost, inference_cost, N, D, cost, N0, D0, saving, notes)


def isoflop(points_by_budget: Mapping[float, Sequence[LossPoint]]) -> IsoFlop:
    """Approach 2: a parabola of loss over log N at each budget (FLOPs), then straight lines of log N* and log D* over log C.

    Raises LawError with fewer than 2 budgets, fewer than 3 sizes at one, or where the losses of a budget have no lowest point.
    """
    one_group([p for points in points_by_budget.values() for p in points])
    if len(points_by_budget) < 2:
        raise LawError(f"There are points at {len(points_by_budget)} budgets: a line over budgets needs at least 2.")
    found = []
    for flops, points in sorted(points_by_budget.items()):
        _positive(flops=flops)
        log_N, losses = np.log([p.parameters for p in points]), np.array([p.loss for p in points])
        if len(set(log_N.tolist())) < 3:
            raise LawError(
                f"At {flops:.3g} FLOPs there are {len(set(log_N.tolist()))} sizes: a parabola needs at least 3."
            )
        middle = log_N.mean()
        bend, tilt, level = np.polyfit(log_N - middle, losses, 2)
        if not bend > 0:
            raise LawError(
                f"At {flops:.3g} FLOPs the losses of the {len(points)} sizes have no lowest point: try a wider range of sizes."
            )
        lowest = middle - tilt / (2.0 * bend)
        found.append(
            ParabolaPoint(
                flops,
                float(np.exp(lowest)),
                float(flops / 6.0 * np.exp(-lowest)),
                float(level - tilt * tilt / (4.0 * bend)),
                bool(log_N.min() <= lowest <= log_N.max()),
            )
        )
    log_C = np.log([p.flops for p in found])
    exponent, intercept = np.polyfit(log_C, np.log([p.parameters for p in found]), 1)
    token_exponent, token_intercept = np.polyfit(log_C, np.log([p.tokens for p in found]), 1)
    outside = [f"{p.flops:.3g}" for p in found if not p.inside]
    note = f"The lowest point lies outside the sizes tried at {', '.join(outside)} FLOPs: try a wider range there."
    return IsoFlop(
        tuple(found),
        float(exponent),
        float(intercept),
        float(token_exponent),
        float(token_intercept),
        (note,) if outside else (),
    )


def parabola_bias(
    points_by_budget: Mapping[float, Sequence[LossPoint]], flops: float, *, fit: PretrainFit | None = None
) -> ParabolaBias:
    """What approach 2 says for `flops` beside what the law says, both from these points (`fit` if it is there already)."""
    if fit is None:
        fit = fit_pretrain([p for _, points in sorted(points_by_budget.items()) for p in points], bootstraps=0)
    clean = {
        flops_of: [LossPoint(p.parameters, p.tokens, fit.loss(p.parameters, p.tokens), group=p.group) for p in points]
        for flops_of, points in points_by_budget.items()
    }
    N, D = isoflop(points_by_budget).extrapolate(flops)
    clean_N, clean_D = isoflop(clean).extrapolate(flops)
    law_N, law_D = (float(v) for v in chinchilla_optimum(*fit.theta, flops)[:2])
    return ParabolaBias(flops, N, D, law_N, law_D, D / law_D - 1.0, clean_N / law_N - 1.0, clean_D / law_D - 1.0)


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise RequestError(f"{name} is {value}, it must be a positive number.")


def _place(fit: PretrainFit, parameters: float, tokens: float) -> tuple[str, ...]:
    """What a reader must know of where a model lies: beyond the data, or at a ratio D/N that no run had."""
    far = fit.caution(parameters, tokens)
    notes = [far] if far else []
    ratios = [p.tokens / p.parameters for p in fit.points]
    ratio = tokens / parameters
    if not min(ratios) <= ratio <= max(ratios):
        notes.append(
            f"Its {ratio:.3g} tokens a parameter lie outside those of the data, {min(ratios):.3g} to {max(ratios):.3g}: add runs there."
        )
    return tuple(notes)
