"""The joint law: accuracy from parameters, tokens, FLOPs of reinforcement learning and samples a question, with one uncertainty.

    share of right samples of a question  ~  z [never] + (1 - z) Beta(mu nu, (1 - mu) nu)
    logit mu = intercept + slope L(N, D) + A(L) / (1 + (C_mid(L) / C_rl)^B)          A and log C_mid linear in L

Nobody has published the three stages in one law; its parts are: the Beta distribution of a question's success, from which pass@k is closed
(Schaeffer et al., arXiv 2502.17578; beta-binomial counts: arXiv 2510.05197), its mean tied to the pre-training loss (T^2, arXiv 2604.01411),
the saturating curve of RL (ScaleRL, arXiv 2510.13786), whose height and place depend on the pre-training loss (arXiv 2607.16097, from its
abstract). nu and z are the same for all models, and they are not tied to N, D or C_rl: the notes say where a model does not fit that.
pass@k = (1 - z) (1 - B(a, b + k) / B(a, b)), a = mu nu, b = (1 - mu) nu; the vote is in joint_vote.py.

Fitted by maximum likelihood of the counts. Two things vary, and the intervals hold both: the questions (resampled, the same ones
for all models, because a hard question is hard for most of them) and the trained models (two trainings of one recipe differ). Models
are not resampled: three bases would often become two, and resampling rows and columns of a crossed table triples the noise of its cells
(Owen and Eckles, arXiv 1106.2125; no bootstrap is exact there: McCullagh 2000). Instead the standard deviation of trained models
around the law, in logits, is estimated from the residuals beyond what resampled questions explain, and drawn anew in each bootstrap fit.
A trained model is a base, whose shift all RL from it shares, or a run of RL, whose gain shifts; one standard deviation serves both, and so
a single run of RL has the uncertainty of a single training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trilaw.core.errors import LawError, RequestError
from trilaw.core.types import Estimate
from trilaw.laws import joint_fit
from trilaw.laws.fitting import Floats, caution, interval
from trilaw.laws.joint_data import LossLaw, Part, prepare
from trilaw.laws.joint_draws import How, Inner
from trilaw.laws.points import Measurement

METHOD = "bootstrap over questions, models drawn anew"


@dataclass(frozen=True, slots=True)
class JointFit:
    """The law fitted to `points`. A parameter of a part that is not fitted is None.

    `slope` in logits a nat, the RL terms at the loss `reference_loss`: `rl_asymptote` in logits, `rl_midpoint` in FLOPs, their slopes in
    logits and in natural-log FLOPs a nat; `concentration` is nu, `unsolvable` z, `wrong_diversity` theta of the vote, `silent` the share
    of wrong samples without an answer. `between_models` is the standard deviation, in logits, of trained models around the law.
    """

    task: str
    points: tuple[Measurement, ...] = field(repr=False)
    parts: Mapping[str, Part]
    intercept: Estimate | None
    slope: Estimate | None
    rl_asymptote: Estimate | None
    rl_asymptote_slope: Estimate | None
    rl_midpoint: Estimate | None
    rl_midpoint_slope: Estimate | None
    rl_steepness: Estimate | None
    concentration: Estimate | None
    unsolvable: Estimate | None
    wrong_diversity: Estimate | None
    silent: Estimate | None
    between_models: float | None
    reference_loss: float
    questions: int
    names: tuple[str, ...]  # of the columns of draws_SP, in the form in which they were fitted
    draws_SP: Floats = field(repr=False, compare=False)
    notes: tuple[str, ...]
    loss_law: LossLaw | None = field(repr=False, compare=False)
    inner: Inner = field(repr=False, compare=False)  # what the methods compute with

    def accuracy(
        self, parameters: float, tokens: float, rl_flops: float, samples: float, how: How = "pass"
    ) -> Estimate:
        """Share of questions answered by a model of `parameters` trained on `tokens`, then on `rl_flops` of RL, with `samples` a question.

        "pass": a verifier picks, so one right sample is enough; "vote": the plurality does. A fraction of a sample means that this share
        of the questions gets one more. Raises LawError where the part asked for is not fitted, RequestError for numbers out of range.
        """
        for name, value, least in (
            ("parameters", parameters, 1.0),
            ("tokens", tokens, 1.0),
            ("RL FLOPs", rl_flops, 0.0),
            ("samples", samples, 1.0),
        ):
            if not (math.isfinite(value) and value >= least):
                raise RequestError(
                    f"The joint law was asked for {value:g} {name}; give a finite number of at least {least:g}."
                )
        self.check(how)
        if samples > 1 and not self.parts["samples"].fitted:
            raise LawError(self.parts["samples"].sentence)
        if rl_flops > 0 and not self.parts["rl"].fitted:
            raise LawError(self.parts["rl"].sentence)
        drawn = self.draw_accuracy(parameters, tokens, rl_flops, samples, how)[:, 0]
        return interval(float(drawn[0]), drawn[1:], self.questions, METHOD)

    def check(self, how: str) -> None:
        """Raises RequestError for an unknown way to pick the answer, LawError where votes were not recorded."""
        check_how(how)
        if how == "vote" and not self.parts["vote"].fitted:
            raise LawError(self.parts["vote"].sentence)

    def draw_accuracy(
        self,
        parameters: Floats | float,
        tokens: Floats | float,
        rl_flops: Floats | float,
        samples: float,
        how: How = "pass",
    ) -> Floats:
        """The accuracies behind `accuracy`, (1 + S) x G: row 0 of the main fit, then one a draw. Arrays are (G,) or (1 + S, G).

        The pre-training loss is the loss law's; without one, the measured loss of the base. No range is checked.
        """
        return self.inner.accuracy(parameters, tokens, rl_flops, samples, how)

    def reach(self, parameters: float, tokens: float, rl_flops: float, samples: float) -> float:
        """The greatest factor beyond the data: in pre-training compute, parameters (either way), tokens, RL compute, samples. 1 at most inside."""
        return max(factor for factor, _ in self._reaches(parameters, tokens, rl_flops, samples))

    def caution(self, parameters: float, tokens: float, rl_flops: float, samples: float) -> str | None:
        """A sentence for each respect in which a prediction lies more than ten times beyond the data, None where there is none."""
        found = [caution(factor, what) for factor, what in self._reaches(parameters, tokens, rl_flops, samples)]
        return " ".join(sentence for sentence in found if sentence) or None

    def _reaches(self, parameters: float, tokens: float, rl_flops: float, samples: float) -> list[tuple[float, str]]:
        most = self.inner.most
        return [
            (6.0 * parameters * tokens / most["compute"], "pre-training compute"),
            (max(parameters / most["parameters"], most["fewest parameters"] / parameters), "parameters"),
            (tokens / most["tokens"], "pre-training tokens"),
            (rl_flops / most["rl"] if most["rl"] else 0.0, "RL compute"),
            (samples / most["samples"], "samples a question"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain and finite: the parts, each fitted parameter with its interval, the notes, and observed against fitted of each measurement."""
        named = (
            "intercept slope rl_asymptote rl_asymptote_slope rl_midpoint rl_midpoint_slope rl_steepness concentration unsolvable "
            "wrong_diversity silent"
        )
        values: dict[str, Estimate | None] = {name: getattr(self, name) for name in named.split()}
        return {
            "law": "joint",
            "task": self.task,
            "questions": self.questions,
            "reference_loss": self.reference_loss,
            "parts": {name: {"fitted": part.fitted, "sentence": part.sentence} for name, part in self.parts.items()},
            "parameters": {
                name: {"value": v.value, "low": v.low, "high": v.high, "n": v.n, "method": v.method}
                for name, v in values.items()
                if v is not None
            },
            "between_models": self.between_models,
            "measurements": [
                {
                    "run": row.point.run,
                    "model": row.point.model,
                    "parameters": row.point.parameters,
                    "tokens": row.point.tokens,
                    "rl_flops": row.point.rl_flops,
                    "used": row.used,
                    "observed": row.observed,
                    "fitted": row.fitted,
                }
                for row in self.inner.table
            ],
            "notes": list(self.notes),
        }


def check_how(how: str) -> None:
    """Raises RequestError for an unknown way to pick the answer."""
    if how not in ("pass", "vote"):
        raise RequestError(f"how is '{how}'; it is 'pass' (a verifier picks) or 'vote' (the plurality picks).")


def fit_joint(
    measurements: Sequence[Measurement], *, loss_law: LossLaw | None = None, bootstraps: int = 200, seed: int = 0
) -> JointFit:
    """The joint law of measurements of one task. A measured loss is used where there is one, else `loss_law` at its N and D.

    A part without runs behind it is not fitted (`parts` says which runs are missing): pre-training needs three bases of different size or
    length, RL four compute levels of one base including none, samples two samples a question, the vote recorded answers.
    Raises LawError for measurements that cannot carry any law, RequestError for numbers that are none.
    """
    if bootstraps < 0:
        raise RequestError(f"bootstraps is {bootstraps}; it must be 0 (no intervals) or the number of resamples.")
    prepared = prepare(measurements, loss_law)
    inner, notes, between = joint_fit.fit(prepared, loss_law, bootstraps, seed)
    return JointFit(
        task=prepared.task,
        points=tuple(measurements),
        parts=prepared.parts,
        between_models=between,
        reference_loss=prepared.reference,
        questions=prepared.questions,
        names=inner.layout.names,
        draws_SP=inner.theta_SP[1:],
        notes=(*prepared.notes, *notes),
        loss_law=loss_law,
        inner=inner,
        **joint_fit.estimates(inner, prepared.questions, METHOD),
    )
