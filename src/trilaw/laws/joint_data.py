"""From measurements to the data of the joint law: checks, which parts have runs behind them, and the histograms of counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import gammaln

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.fitting import Floats
from trilaw.laws.joint_likelihood import (
    ASYMPTOTE_BOUND,
    CONCENTRATION_BOUNDS,
    MIDPOINT_FACTOR,
    STEEPNESS_BOUNDS,
    UNSOLVABLE_BOUNDS,
    Cells,
    Ints,
    Layout,
)
from trilaw.laws.joint_vote import SAME_RIGHT
from trilaw.laws.points import Measurement

BASES = 3  # a slope in the loss and something to check it against
RL_LEVELS = 4  # a saturating curve has three numbers, and its start
QUESTIONS = 8  # fewer cannot be resampled
WRONG_VOTES = 20  # wrong votes beside another one, from which agreement can be told

Base = tuple[float, float]  # parameters, tokens


class LossLaw(Protocol):
    """A fitted law of pre-training: `loss` in nats a token; one row (E, A, B, alpha, beta) of L = E + A / N^alpha + B / D^beta a draw."""

    @property
    def draws_SP(self) -> Floats: ...

    def loss(self, parameters: float, tokens: float, /) -> float: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Whether runs stand behind a part of the law; `sentence` says on what it rests, or which runs are missing."""

    fitted: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Suffixes: M measurements that are used, R rows (a question of a measurement), Q questions, C cells, P parameters."""

    task: str
    used: tuple[Measurement, ...]
    left_out: tuple[Measurement, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...]
    layout: Layout
    bases: tuple[Base, ...]  # in the order of their intercepts
    base_losses: tuple[float | None, ...]  # as measured, or by the law
    base_M: Ints
    losses_M: Floats  # 0 where no loss is needed
    by_law_M: tuple[bool, ...]  # the loss is the law's, not measured
    reference: float
    log_rl_M: Floats  # natural log of FLOPs over exp(log_rl_reference); -inf without RL
    log_rl_reference: float
    cells: Cells
    question_R: Ints
    measurement_R: Ints
    cell_R: Ints
    voted_R: Ints  # the rows whose votes were recorded, as indices
    questions: int
    bounds_P2: Floats


def prepare(measurements: Sequence[Measurement], loss_law: LossLaw | None) -> Prepared:
    """Raises LawError for measurements that carry no law (none, mixed tasks, too few questions), RequestError for broken numbers."""
    _check(measurements)
    notes: list[str] = []
    plain = [m for m in measurements if m.rl_flops == 0]
    bases = sorted({_base(m) for m in plain}, key=lambda b: 6.0 * b[0] * b[1])
    known = {base: _loss(base, measurements, loss_law) for base in {_base(m) for m in measurements}}

    measured = {_base(m) for m in measurements if m.loss is not None}
    losses = [known[base] for base in bases]
    slope, pretraining = _pretraining(bases, losses)
    levels = {base: {m.rl_flops for m in measurements if _base(m) == base} for base in known}
    usable = {base for base in levels if slope or base in bases}
    rl, tilt_a, tilt_m, rl_part = _rl({base: levels[base] for base in usable}, known)

    used = [
        m
        for m in measurements
        if (m.rl_flops == 0 or rl) and _base(m) in usable and not (slope and known[_base(m)] is None)
    ]
    left_out = tuple(m for m in measurements if m not in used)
    if left_out:
        notes.append(
            f"{len(left_out)} of {len(measurements)} measurements are left out, because the part of the law that they belong to is not "
            f"fitted: {', '.join(m.model for m in left_out)}."
        )
    if not used:
        raise LawError("No measurement is of a base before RL: measure the base itself with the same questions.")
    solved = sum(row.correct for m in used for row in m.counts)
    drawn = sum(row.samples for m in used for row in m.counts)
    if solved in (0, drawn):
        kind = "wrong" if solved == 0 else "right"
        raise LawError(
            f"All {drawn} samples are {kind}, so nothing can be told apart: take questions that are {'easier' if solved == 0 else 'harder'}."
        )
    samples = any(row.samples > 1 for m in used for row in m.counts)
    samples_part = Part(
        samples,
        f"The spread of difficulty rests on up to {max(row.samples for m in used for row in m.counts)} samples a question."
        if samples
        else "The test-time part is not fitted: every question has one sample; evaluate again with at least 2 samples a question.",
    )
    intercepts = 1 if slope else len(bases)
    layout = Layout(intercepts, slope, rl, tilt_a, tilt_m, samples)
    needs_loss = slope or tilt_a or tilt_m
    losses_M = (
        np.array([(known[_base(m)] if m.loss is None else m.loss) or 0.0 for m in used])
        if needs_loss
        else np.zeros(len(used))
    )
    logs = [math.log(m.rl_flops) for m in used if m.rl_flops > 0]
    log_reference = sum(logs) / len(logs) if logs else 0.0
    log_rl_M = np.array([math.log(m.rl_flops) - log_reference if m.rl_flops > 0 else -np.inf for m in used])

    names = sorted({row.problem for m in used for row in m.counts})
    if len(names) < QUESTIONS:
        raise LawError(f"The measurements hold {len(names)} questions; a law needs at least {QUESTIONS}, better 64.")
    cells, cell_R = _cells(used)
    voted_R, vote_part = _votes(used, samples)
    known_losses = tuple(known[base] for base in bases)
    return Prepared(
        task=used[0].task,
        used=tuple(used),
        left_out=left_out,
        parts={"pretraining": pretraining, "rl": rl_part, "samples": samples_part, "vote": vote_part},
        notes=tuple(notes),
        layout=layout,
        bases=tuple(bases),
        base_losses=known_losses,
        base_M=np.array([bases.index(_base(m)) if intercepts > 1 else 0 for m in used], dtype=np.int64),
        losses_M=losses_M,
        by_law_M=tuple(needs_loss and _base(m) not in measured for m in used),
        reference=float(losses_M.mean()),
        log_rl_M=log_rl_M,
        log_rl_reference=log_reference,
        cells=cells,
        question_R=_positions(names, [row.problem for m in used for row in m.counts]),
        measurement_R=np.repeat(np.arange(len(used)), [len(m.counts) for m in used]),
        cell_R=cell_R,
        voted_R=voted_R,
        questions=len(names),
        bounds_P2=_bounds(layout, log_rl_M, losses_M),
    )


def _base(m: Measurement) -> Base:
    return (float(m.parameters), float(m.tokens))


def _positions(names: Sequence[str], problems: Sequence[str]) -> Ints:
    at = {name: i for i, name in enumerate(names)}
    return np.array([at[problem] for problem in problems], dtype=np.int64)


def _check(measurements: Sequence[Measurement]) -> None:
    if not measurements:
        raise LawError("There are no measurements; the joint law needs the counts of at least one model before RL.")
    tasks = sorted({m.task for m in measurements})
    if len(tasks) > 1:
        raise LawError(f"The measurements are of {len(tasks)} tasks ({', '.join(tasks)}): fit one task at a time.")
    seen: set[tuple[str, str]] = set()
    for m in measurements:
        who = f"The measurement of '{m.model}' in run '{m.run}'"
        for name, value, least in (
            ("parameters", m.parameters, 1.0),
            ("tokens", m.tokens, 1.0),
            ("pretrain_flops", m.pretrain_flops, 0.0),
            ("rl_flops", m.rl_flops, 0.0),
            ("loss", 1.0 if m.loss is None else m.loss, 1e-9),
            ("prompt_tokens", m.prompt_tokens, 0.0),
            ("completion_tokens", m.completion_tokens, 0.0),
        ):
            if not (math.isfinite(value) and value >= least):
                raise RequestError(f"{who} has {name} = {value:g}; it must be a finite number of at least {least:g}.")
        if not m.counts:
            raise LawError(f"{who} has no counts: evaluate it on the questions of the others.")
        problems: set[str] = set()
        for row in m.counts:
            if row.samples < 1 or not 0 <= row.correct <= row.samples:
                raise RequestError(
                    f"{who} has {row.correct} right of {row.samples} samples for question '{row.problem}'."
                )
            if row.problem in problems:
                raise RequestError(f"{who} has the question '{row.problem}' twice.")
            problems.add(row.problem)
        if (m.run, m.model) in seen:
            raise LawError(f"{who} is there twice: give each model once.")
        seen.add((m.run, m.model))


def _loss(base: Base, measurements: Sequence[Measurement], law: LossLaw | None) -> float | None:
    measured = [m.loss for m in measurements if _base(m) == base and m.loss is not None]
    if measured:
        return sum(measured) / len(measured)
    return None if law is None else float(law.loss(*base))


def _pretraining(bases: Sequence[Base], losses: Sequence[float | None]) -> tuple[bool, Part]:
    sizes = ", ".join(f"{n:.3g} x {d:.3g}" for n, d in bases)
    if len(bases) < BASES:
        missing = BASES - len(bases)
        have = f"{len(bases)} base{'s' * (len(bases) != 1)} measured before RL" + (
            f" (N x D: {sizes})" if bases else ""
        )
        return False, Part(
            False,
            f"The pre-training part is not fitted: {have}, and {BASES} are needed; pre-train {missing} more of another size.",
        )
    values = [loss for loss in losses if loss is not None]
    if len(values) < len(bases):
        return False, Part(
            False,
            f"The pre-training part is not fitted: {len(bases) - len(values)} of {len(bases)} bases have no loss; measure it, or give a loss law.",
        )
    if max(values) - min(values) < 1e-6:
        return False, Part(
            False,
            f"The pre-training part is not fitted: all {len(bases)} bases have the loss {values[0]:.4g}; pre-train bases that differ.",
        )
    return True, Part(
        True,
        f"The pre-training part rests on {len(bases)} bases (N x D: {sizes}), losses {min(values):.4g} to {max(values):.4g}.",
    )


def _rl(levels: Mapping[Base, set[float]], losses: Mapping[Base, float | None]) -> tuple[bool, bool, bool, Part]:
    """Fitted at all; height linear in the loss; midpoint linear in the loss."""
    whole = [base for base, found in levels.items() if len(found) >= RL_LEVELS and 0.0 in found]
    if not whole:
        most = max((len(found) for found in levels.values()), default=0)
        return (
            False,
            False,
            False,
            Part(
                False,
                f"The RL part is not fitted: there are {most} levels of RL compute on one base at most, counting none at all, and {RL_LEVELS} are "
                "needed; measure checkpoints of one run of RL and its base.",
            ),
        )
    several = [base for base, found in levels.items() if len(found - {0.0}) >= 2 and losses[base] is not None]
    spread = len({losses[base] for base in several}) > 1
    full = len({losses[base] for base in whole}) > 1 and all(losses[base] is not None for base in whole)
    if not spread:
        known = (
            "RL was run on one base only"
            if len(several) < 2
            else "the losses of the bases with RL are equal or unknown"
        )
        return (
            True,
            False,
            False,
            Part(
                True,
                f"The RL part assumes that its gain and its midpoint are the same for every base, because {known}.",
            ),
        )
    part = Part(
        True,
        f"The RL part rests on {len(several)} bases; its gain is linear in the loss"
        + (
            ", its midpoint too."
            if full
            else f", its midpoint is assumed the same for all, because only one has {RL_LEVELS} levels of RL compute."
        ),
    )
    return True, True, full, part


def _cells(used: Sequence[Measurement]) -> tuple[Cells, Ints]:
    keys = np.array([(i, row.samples, row.correct) for i, m in enumerate(used) for row in m.counts], dtype=np.int64)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    measurement, n, c = unique.T
    starts = np.searchsorted(measurement, np.arange(len(used)))
    return Cells(
        measurement, n, c, gammaln(n + 1.0) - gammaln(c + 1.0) - gammaln(n - c + 1.0), starts
    ), inverse.reshape(-1)


def _votes(used: Sequence[Measurement], samples: bool) -> tuple[Ints, Part]:
    recorded, at, leading, right = [], 0, 0, 0
    beside = 0
    without = []
    for m in used:
        whole = any(row.right_votes or row.wrong_votes for row in m.counts)
        whole = whole and all(sum(row.right_votes) == row.correct for row in m.counts)
        if whole:
            recorded += list(range(at, at + len(m.counts)))
            right += sum(sum(row.right_votes) for row in m.counts)
            leading += sum(max(row.right_votes, default=0) for row in m.counts)
            beside += sum(max(sum(row.wrong_votes) - 1, 0) for row in m.counts)
        else:
            without.append(m.model)
        at += len(m.counts)
    rows = np.array(recorded, dtype=np.int64)
    if not samples:
        return rows, Part(False, "The vote is not fitted: it needs at least 2 samples a question.")
    if not recorded:
        return rows, Part(
            False,
            "The vote is not fitted: the answers behind the counts were not recorded; evaluate again and keep the votes.",
        )
    if beside < WRONG_VOTES:
        return rows, Part(
            False,
            f"The vote is not fitted: only {beside} wrong answers have another beside them, {WRONG_VOTES} are needed; draw more samples.",
        )
    if leading < SAME_RIGHT * right:
        return rows, Part(
            False,
            f"The vote is not fitted: right samples agree in {leading / right:.0%} of cases only, and the law of the vote knows one right answer "
            'a question; use how="pass".',
        )
    tail = f" Without votes: {', '.join(without)}." if without else ""
    return rows, Part(True, f"The vote rests on the answers to {len(rows)} evaluated questions.{tail}")


def _bounds(layout: Layout, log_rl_M: Floats, losses_M: Floats) -> Floats:
    ran = log_rl_M[np.isfinite(log_rl_M)]
    low, high = (float(ran.min()), float(ran.max())) if len(ran) else (0.0, 0.0)
    width = float(np.ptp(losses_M)) or 1.0
    room = math.log(MIDPOINT_FACTOR)
    table = {
        "slope": (-60.0 / width, 60.0 / width),
        "asymptote": (-ASYMPTOTE_BOUND, ASYMPTOTE_BOUND),
        "asymptote slope": (-2 * ASYMPTOTE_BOUND / width, 2 * ASYMPTOTE_BOUND / width),
        "log midpoint": (low - room, high + room),
        "log midpoint slope": (-2 * room / width, 2 * room / width),
        "log steepness": tuple(math.log(bound) for bound in STEEPNESS_BOUNDS),
        "log concentration": tuple(math.log(bound) for bound in CONCENTRATION_BOUNDS),
        "logit unsolvable": tuple(math.log(bound / (1.0 - bound)) for bound in UNSOLVABLE_BOUNDS),
    }
    return np.array([table.get(name, (-60.0, 60.0)) for name in layout.names], dtype=np.float64)
