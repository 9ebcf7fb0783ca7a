"""The law of post-training: the share solved against the compute of reinforcement learning, as a sigmoid in log compute.

ScaleRL (arXiv 2510.13786):   R(C) = R0 + (A - R0) / (1 + (C_mid / C)^B)

A is the asymptote, C_mid the compute at half of the rise, B its steepness. How it is fitted here, and where that departs from the paper:

- What is fitted. Only a run whose shape is rising or a plateau (`shapes.diagnose`); the others are refused. The paper leaves out the first
  1.5k of 50k GPU-hours; here the first 3% of the largest compute are left out by default, but never the first point, which measures the
  start, and nothing where more than a tenth of the points lie there: a grid as dense as that was laid to see an early rise.
- R0 is fitted with the rest, not fixed: a point at compute 0 is one measurement of it, with its own noise.
- Least squares with a bootstrap: see `posttrain_bootstrap` and `sigmoid`.
- Intervals are the 90% percentiles of the draws, widened to the profile likelihood of A: the range over the curves, the best for each A,
  whose chi-square is at most the 90% quantile of chi-square with 1 degree of freedom above the least (F(1, n - 4) if noise is estimated).
  A run that has not bent needs it: where noise makes it look bent, all draws repeat that bend, but the likelihood still says that
  A = 1 fits as well.
- What they speak of: these questions. Checkpoints are scored on the same ones, so their common luck does not show in the scatter of the
  points; as noise between checkpoints the binomial is an upper bound. Other questions would shift the whole curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.types import Estimate
from trilaw.laws.fitting import BOOTSTRAPS, CONFIDENCE, NO_BOOTSTRAP, Floats, caution, generator
from trilaw.laws.points import CurvePoint
from trilaw.laws.posttrain_bootstrap import Bootstrapped, correlate, fit_sigmoid
from trilaw.laws.shapes import LEAST, Diagnosis, curve, diagnose
from trilaw.laws.sigmoid import PARAMETERS, bounds, evaluate, invert

TRANSIENT = 0.03  # of the largest compute: 1.5k of the 50k GPU-hours that the paper's law of the 8B model was fitted to
FEW = 0.1  # of the points


@dataclass(frozen=True, slots=True)
class HoldoutCheck:
    """The law fitted to the early part of a run, held against the rest.

    `n` later points, `covered` of them inside their 90% prediction intervals (None without a bootstrap), `mean_error` the mean of observed
    minus predicted, `fit_until` the last compute that was fitted. `holds`: the observed mean of the later points lies inside its own 90%
    prediction interval (their errors are not independent, so `covered` alone is no test).
    """

    n: int
    covered: int | None
    mean_error: float
    fit_until: float
    holds: bool | None
    sentence: str


@dataclass(frozen=True, slots=True)
class PosttrainFit:
    """A fitted sigmoid. `draws_SP` are the bootstrap's (R0, A, B, C_mid), `supported_KP` the curves that the likelihood does not exclude
    (both enter every interval); `points` are those that were fitted, pooled at equal computes."""

    R0: Estimate
    A: Estimate
    B: Estimate
    C_mid: Estimate
    draws_SP: Floats = field(repr=False, compare=False)
    supported_KP: Floats = field(repr=False, compare=False)
    points: tuple[CurvePoint, ...] = field(repr=False)
    diagnosis: Diagnosis
    holdout: HoldoutCheck | None
    identified: tuple[str, ...]  # which of "R0", "A", "B", "C_mid" the data pin down
    method: str
    notes: tuple[str, ...]

    def predict(self, compute: float) -> Estimate:
        """The share solved after `compute`: the curve itself, without the noise of measuring it. Raises RequestError below 0."""
        if not (math.isfinite(compute) and compute >= 0.0):
            raise RequestError(f"A prediction needs a compute of 0 or more, not {compute:g}.")
        return self._estimate(lambda theta_SP: evaluate(theta_SP, compute))

    def compute_to(self, level: float) -> Estimate | None:
        """The compute at which the curve reaches `level`; None where the level lies outside it, or outside one that cannot be excluded."""
        got = self._estimate(lambda theta_SP: invert(theta_SP, level))
        return got if got.low > 0.0 and math.isfinite(got.high) else None

    def reach(self, compute: float) -> float:
        """`compute` over the largest compute that was fitted."""
        return compute / self.points[-1].compute

    def caution(self, compute: float) -> str | None:
        """A sentence where `compute` lies more than ten times beyond the data, else None."""
        return caution(self.reach(compute))

    def to_json(self) -> dict[str, Any]:
        """law, R0, A, B, C_mid (value, low, high, n, method), identified, diagnosis, fitted_from, fitted_until, points, holdout, notes."""
        return {
            "law": "R0 + (A - R0) / (1 + (C_mid / C)^B)",
            **{name: asdict(getattr(self, name)) for name in ("R0", "A", "B", "C_mid")},
            "identified": list(self.identified),
            "diagnosis": asdict(self.diagnosis),
            "fitted_from": self.points[0].compute,
            "fitted_until": self.points[-1].compute,
            "points": len(self.points),
            "holdout": None if self.holdout is None else asdict(self.holdout),
            "notes": list(self.notes),
        }

    def _estimate(self, number: Callable[[Floats], Floats]) -> Estimate:
        """The interval of a number that `number` computes for rows of (R0, A, B, C_mid)."""
        value_P = np.array([[self.R0.value, self.A.value, self.B.value, self.C_mid.value]])
        return _hull(
            float(number(value_P)[0]), number(self.draws_SP), number(self.supported_KP), len(self.points), self.method
        )


def _hull(value: float, draws_S: Floats, supported_K: Floats, n: int, method: str) -> Estimate:
    """Percentiles of the draws (infinite ones count), widened to the value and to all that the likelihood supports."""
    if not len(draws_S):
        return Estimate(value, value, value, n, NO_BOOTSTRAP)
    tail = (1.0 - CONFIDENCE) / 2.0
    low = float(np.quantile(draws_S, tail, method="lower"))
    high = float(np.quantile(draws_S, 1.0 - tail, method="higher"))
    ends = [low, high, value, *supported_K.tolist()]
    return Estimate(value, min(ends), max(ends), n, f"{method} and profile likelihood, {CONFIDENCE:.0%}")


Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Recipe a against recipe b. `asymptote` is A of a minus A of b; `compute_ratio` the compute that b needs to reach `level` over that
    of a (above 1: a is the more efficient), None where they share no level that both reach surely. Verdicts speak of a."""

    asymptote: Estimate
    asymptote_verdict: Verdict
    level: float | None
    compute_ratio: Estimate | None
    efficiency_verdict: Verdict
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """The fields, flat but for the estimates."""
        return asdict(self)


def fit_posttrain(
    points: Sequence[CurvePoint],
    *,
    fit_from: float | None = None,
    fit_until: float | None = None,
    bootstraps: int = BOOTSTRAPS,
    seed: int = 0,
) -> PosttrainFit:
    """Fits the sigmoid to the points from `fit_from` (default: after the early transient, see the head of this file) to `fit_until`
    (default: all) and checks it: what lies beyond `fit_until`, or else the second half of the compute, is predicted from what lies before.

    A point at compute 0 is always used. Raises LawError for fewer than 6 distinct computes, values that are no shares, a run without a rise,
    and one whose shape is decay, collapse or erratic; RequestError for bounds that leave nothing or a negative number of bootstraps.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}, it must be 0 (none) or a positive number.")
    for name, bound in (("fit_from", fit_from), ("fit_until", fit_until)):
        if bound is not None and not (math.isfinite(bound) and bound >= 0.0):
            raise RequestError(f"{name} is {bound:g}, it must be a compute of 0 or more.")
    run = curve(points)
    if (run.value_P == run.value_P[0]).all():
        raise LawError(
            f"All {len(run.value_P)} points of the run have the value {run.value_P[0]:g}: constant data carries no sigmoid."
        )
    counts = np.zeros(len(run.value_P)) if run.questions_P is None else run.questions_P
    pooled = tuple(CurvePoint(float(c), float(v), int(q)) for c, v, q in zip(run.compute_P, run.value_P, counts))
    before = [point for point in pooled if fit_until is None or point.compute <= fit_until]
    part, notes = _after_transient(before, fit_from)
    if len(part) < LEAST:
        raise LawError(
            f"The part of the run to be fitted has {len(part)} distinct computes of {len(pooled)}: at least {LEAST} are needed between "
            f"compute {fit_from or 0:g} and {pooled[-1].compute if fit_until is None else fit_until:g}, spread over the rise."
        )
    diagnosis = _fit_for_a_sigmoid(part)
    core = fit_sigmoid(part, bootstraps, seed)
    notes += core.notes
    holdout, reason = _holdout(pooled, part, core, bootstraps, seed)
    if reason:
        notes.append(reason)
    if len(before) < len(pooled):
        whole = diagnose(pooled)
        if whole.shape in ("decay", "collapse", "erratic"):
            notes.append(f"The run as a whole is no sigmoid: {whole.sentence}.")

    R0, A, B, C_mid = (
        _hull(float(core.theta_P[k]), core.draws_SP[:, k], core.supported_KP[:, k], len(part), core.method)
        for k in range(PARAMETERS)
    )
    reached = float(evaluate(core.theta_P[None], part[-1].compute)[0])
    identified = ["R0"] if bootstraps and R0.high - R0.low <= (reached - R0.value) / 2.0 else []
    if A.high > 0.999 and A.high - A.low > (reached - R0.value) / 2.0:
        notes.append(
            f"The asymptote is not identified: the run has not bent yet, and everything from {A.low:.2f} to 1 fits. Go on beyond compute "
            f"{part[-1].compute:g}."
        )
    elif bootstraps:
        identified.append("A")
    least, greatest = bounds(np.array([point.compute for point in part]))
    loose = [
        name
        for name, got, k in (("B", B, 2), ("C_mid", C_mid, 3))
        if got.low <= least[k] * 1.001 or got.high >= greatest[k] * 0.999 or got.high > 10.0 * got.low
    ]
    loose = ([] if "R0" in identified else ["R0"]) + loose
    if bootstraps:
        identified += [name for name in ("B", "C_mid") if name not in loose]
    if loose and bootstraps:
        notes.append(
            f"Not identified: {', '.join(loose)}. Too few points lie on the bend of the rise; the intervals are as wide as the search or "
            "span a factor of ten, and the values are no measurement."
        )
    return PosttrainFit(
        R0,
        A,
        B,
        C_mid,
        core.draws_SP,
        core.supported_KP,
        tuple(part),
        diagnosis,
        holdout,
        tuple(identified),
        core.method,
        tuple(notes),
    )


def compare(a: PosttrainFit, b: PosttrainFit) -> Comparison:
    """Which recipe ends higher, and which needs less compute to a common level (halfway between the higher start and the lower of what
    both have reached). Both runs must count compute in one unit. Raises RequestError for fits without bootstrap draws.

    The two runs are independent: the interval of a difference is that of Zou and Donner (2008), the distances from the values to the
    ends added in squares, which keeps their skewness. For the ratio it is taken in logarithms.
    """
    if not len(a.draws_SP) or not len(b.draws_SP):
        raise RequestError("A comparison needs intervals: fit both runs with bootstraps above 0.")
    asymptote = _difference(a.A, b.A)
    asymptote_verdict = _verdict(asymptote, 0.0)
    sentence = (
        f"Asymptote: {asymptote_verdict} ({a.A.value:.3f} against {b.A.value:.3f}, difference {asymptote.value:+.3f}, "
        f"{CONFIDENCE:.0%} interval {asymptote.low:+.3f} to {asymptote.high:+.3f})"
    )
    for name, fit in (("first", a), ("second", b)):
        if "A" not in fit.identified:
            sentence += f"; that of the {name} is not identified"
    start = max(a.R0.value, b.R0.value)
    reached = min(fit.predict(fit.points[-1].compute).value for fit in (a, b))
    level = (start + reached) / 2.0
    to_a, to_b = (None, None) if reached <= start else (a.compute_to(level), b.compute_to(level))
    if to_a is None or to_b is None:
        sentence += ". Efficiency: cannot tell, there is no level that both surely pass."
        return Comparison(asymptote, asymptote_verdict, None, None, "cannot tell", sentence)
    log = _difference(_logarithm(to_b), _logarithm(to_a))
    ratio = replace(log, value=math.exp(log.value), low=math.exp(log.low), high=math.exp(log.high))
    verdict = _verdict(ratio, 1.0)
    sentence += (
        f". Efficiency: {verdict} (to {level:.3f} the second needs {ratio.value:.3g} times the compute of the first, "
        f"{CONFIDENCE:.0%} interval {ratio.low:.3g} to {ratio.high:.3g})."
    )
    return Comparison(asymptote, asymptote_verdict, level, ratio, verdict, sentence)


def _logarithm(x: Estimate) -> Estimate:
    return replace(x, value=math.log(x.value), low=math.log(x.low), high=math.log(x.high))


def _difference(a: Estimate, b: Estimate) -> Estimate:
    low, high = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    value = a.value - b.value
    return Estimate(value, value - low, value + high, min(a.n, b.n), f"{a.method}; squares added")


def _verdict(estimate: Estimate, neutral: float) -> Verdict:
    return "better" if estimate.low > neutral else "worse" if estimate.high < neutral else "cannot tell"


def _after_transient(points: Sequence[CurvePoint], fit_from: float | None) -> tuple[list[CurvePoint], list[str]]:
    """The points to fit, and the note on those left out."""
    if fit_from is not None:
        return [point for point in points if point.compute >= fit_from or point.compute == 0.0], []
    start = TRANSIENT * points[-1].compute if points else 0.0
    early = [point for point in points[1:] if point.compute < start]
    if not early or len(early) > FEW * len(points):
        return list(points), []
    note = f"Left out as the early transient, the first {TRANSIENT:.0%} of the compute: the points before compute {start:g} ({len(early)})."
    return [point for point in points if point not in early], [note]


def _fit_for_a_sigmoid(points: Sequence[CurvePoint]) -> Diagnosis:
    """The diagnosis of a run that a sigmoid can describe. Raises LawError for others."""
    diagnosis = diagnose(points)
    if diagnosis.shape in ("decay", "collapse", "erratic"):
        raise LawError(f"A sigmoid does not describe this run: {diagnosis.sentence}.")
    if diagnosis.shape == "flat":
        raise LawError(
            f"The run shows no rise: {diagnosis.sentence}. Points after the rise has begun are needed (beyond compute "
            f"{points[-1].compute:g}, at least {LEAST} in all), or more questions a point."
        )
    return diagnosis


def _holdout(
    pooled: Sequence[CurvePoint], part: Sequence[CurvePoint], core: Bootstrapped, bootstraps: int, seed: int
) -> tuple[HoldoutCheck | None, str | None]:
    """The check, or None and why there is none. Points beyond the fitted part are held out where there are any, else its second half."""
    later = [point for point in pooled if point.compute > part[-1].compute]
    early = list(part)
    if not later:
        early = [point for point in part if point.compute <= part[-1].compute / 2.0]
        later = [point for point in part if point.compute > part[-1].compute / 2.0]
        if len(early) < LEAST:
            return (
                None,
                f"No extrapolation check: the first half of the compute has {len(early)} points of the {LEAST} needed.",
            )
        try:
            _fit_for_a_sigmoid(early)
        except LawError as refusal:
            return None, f"No extrapolation check on the first half of the compute. {refusal}"
        core = fit_sigmoid(early, bootstraps, seed)
    compute_P = np.array([point.compute for point in later])
    value_P = np.array([point.value for point in later])
    questions_P = np.array([point.questions for point in later], dtype=np.int64)
    error = float(np.mean(value_P - evaluate(core.theta_P[None], compute_P)[0]))
    n, until = len(later), early[-1].compute
    sentence = f"Fitted to the {len(early)} points up to compute {until:g}, the law errs by {error:+.3f} on the mean of the {n} later ones"
    if not bootstraps:
        return HoldoutCheck(n, None, error, until, None, f"{sentence}; there is no interval without a bootstrap."), None
    rng = generator(seed, "posttrain", "holdout")
    level_SP = np.clip(evaluate(core.draws_SP, compute_P), 0.0, 1.0)
    if questions_P.all() and core.correlation == 0.0:
        seen_SP = level_SP + (rng.binomial(questions_P, level_SP) / questions_P - level_SP) * core.deviation
    else:
        unit_SP = np.sqrt(level_SP * (1.0 - level_SP) / questions_P) if questions_P.all() else np.ones_like(level_SP)
        seen_SP = level_SP + correlate(rng.normal(size=level_SP.shape), core.correlation) * unit_SP * core.deviation
    tail = (1.0 - CONFIDENCE) / 2.0
    other_KP = evaluate(core.supported_KP, compute_P)
    low_P, high_P = np.quantile(seen_SP, [tail, 1.0 - tail], axis=0)
    low_P, high_P = np.minimum(low_P, other_KP.min(axis=0)), np.maximum(high_P, other_KP.max(axis=0))
    covered = int(np.sum((low_P <= value_P) & (value_P <= high_P)))
    low, high = np.quantile(seen_SP.mean(axis=1), [tail, 1.0 - tail])
    holds = bool(min(low, other_KP.mean(axis=1).min()) <= value_P.mean() <= max(high, other_KP.mean(axis=1).max()))
    sentence += f"; {covered} of them lie in their {CONFIDENCE:.0%} intervals, and their mean lies {'inside' if holds else 'OUTSIDE'} its own."
    return HoldoutCheck(n, covered, error, until, holds, sentence), None
