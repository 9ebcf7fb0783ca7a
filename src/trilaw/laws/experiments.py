"""What to run when the joint law cannot tell: for each part that is missing or weak, the cheapest run that would mend it.

An experiment is meant to be run as it stands: `recipe_set` holds what has to be set, in plain words and numbers,

    kind = "pretrain"  parameters, tokens; another_seed where it is a repetition     one more base
    kind = "grpo"      parameters, tokens (of the base), rl_flops, checkpoints; steps_factor where a run is to go on
    kind = "eval"      samples, questions, votes                       the measured models again
    kind = "loss"      models                                          their loss on the validation text

and `flops` what it costs, evaluation of its models included. The sizes are chosen by plain rules, not optimised: a missing base is half
the smallest one (the cheapest that widens the range), a missing run of RL gets as much compute as its base had, RL that has not bent
goes on to twice its compute, samples are doubled until they tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from trilaw.core.ledger import count
from trilaw.core.ledger import flops as show
from trilaw.laws.joint import JointFit
from trilaw.laws.joint_data import BASES, RL_LEVELS
from trilaw.laws.points import Measurement

SAMPLES = 16  # where there is nothing to double: enough to tell questions out of reach from hard ones
LOSS_TOKENS = 100_000  # on which a loss is measured: its error is then below a hundredth of a nat


@dataclass(frozen=True, slots=True)
class Experiment:
    """A run worth making: the part of the law that it mends, what to do, the settings, and its cost."""

    part: str
    sentence: str
    recipe_set: dict[str, Any]
    flops: float

    def to_json(self) -> dict[str, Any]:
        return {"part": self.part, "sentence": self.sentence, "set": dict(self.recipe_set), "flops": self.flops}


def suggest(fit: JointFit, parts: Collection[str]) -> tuple[Experiment, ...]:
    """Experiments for the named parts ("pretraining", "rl", "samples", "vote", "questions"), cheapest first."""
    makers = {
        "pretraining": _pretraining,
        "rl": _rl,
        "samples": _samples,
        "vote": _vote,
        "questions": _questions,
    }
    found = [experiment for part in makers if part in parts for experiment in makers[part](fit)]
    return tuple(sorted(found, key=lambda e: e.flops))


def _bases(fit: JointFit) -> list[Measurement]:
    """One measurement a base, the smallest first."""
    bases = {(m.parameters, m.tokens): m for m in fit.points if m.rl_flops == 0}
    return sorted(bases.values() or fit.points, key=lambda m: m.parameters * m.tokens)


def _evaluation(m: Measurement, parameters: float, samples: float, questions: int) -> float:
    return questions * (m.prompt_tokens + samples * m.completion_tokens) * 2.0 * parameters


def _drawn(fit: JointFit) -> int:
    return max(row.samples for m in fit.points for row in m.counts)


def _pretraining(fit: JointFit) -> list[Experiment]:
    bases = _bases(fit)
    smallest, largest = bases[0], bases[-1]
    questions, samples = fit.questions, max(_drawn(fit), 2)
    lossless = [m.model for m in bases if m.loss is None]
    found = []
    if lossless and fit.loss_law is None:
        cost = sum(2.0 * m.parameters * LOSS_TOKENS for m in bases if m.loss is None)
        found.append(
            Experiment(
                "pretraining",
                f"Measure the loss of {', '.join(lossless)} on {count(LOSS_TOKENS)} tokens of validation text ({show(cost)}).",
                {"kind": "loss", "models": lossless},
                cost,
            )
        )
    sizes: list[tuple[float, float, str]] = []
    for i in range(BASES - len(bases)):
        sizes.append((smallest.parameters / 2.0 ** (i + 1), smallest.tokens, "a smaller base"))
    if not sizes and fit.parts["pretraining"].fitted:
        sizes.append(
            (
                largest.parameters,
                2.0 * largest.tokens,
                "the largest base on twice its tokens, which extends the range of the law",
            )
        )
    elif not sizes and not lossless:
        sizes.append((smallest.parameters / 2.0, smallest.tokens, "a smaller base, whose loss will differ"))
    for parameters, tokens, why in sizes:
        cost = 6.0 * parameters * tokens + _evaluation(smallest, parameters, samples, questions)
        found.append(
            Experiment(
                "pretraining",
                f"Pre-train {count(parameters)} parameters on {count(tokens)} tokens and evaluate it on the same questions: {why} ({show(cost)}).",
                {"kind": "pretrain", "parameters": parameters, "tokens": tokens},
                cost,
            )
        )
    if fit.between_models is None and len(bases) >= BASES:
        cost = 6.0 * smallest.parameters * smallest.tokens + _evaluation(
            smallest, smallest.parameters, samples, questions
        )
        found.append(
            Experiment(
                "pretraining",
                f"Pre-train '{smallest.model}' once more with another seed and evaluate it: how much two trainings differ is not known ({show(cost)}).",
                {
                    "kind": "pretrain",
                    "parameters": smallest.parameters,
                    "tokens": smallest.tokens,
                    "another_seed": True,
                },
                cost,
            )
        )
    return found


def _rl(fit: JointFit) -> list[Experiment]:
    questions, samples = fit.questions, max(_drawn(fit), 2)
    after = [m for m in fit.points if m.rl_flops > 0]
    if not fit.parts["rl"].fitted:
        base = max(_bases(fit), key=lambda m: m.parameters * m.tokens)
        most = max((m.rl_flops for m in after), default=0.0) or 6.0 * base.parameters * base.tokens
        checks = RL_LEVELS - 1
        cost = most + checks * _evaluation(base, base.parameters, samples, questions)
        return [
            Experiment(
                "rl",
                f"Run RL on the base of {count(base.parameters)} parameters up to {show(most)} and evaluate the base and {checks} checkpoints, each at "
                f"about four times the compute of the one before ({show(cost)}).",
                _grpo(base, most, checks),
                cost,
            )
        ]
    longest = max(after, key=lambda m: m.rl_flops)
    cost = longest.rl_flops + _evaluation(longest, longest.parameters, samples, questions)
    found = [
        Experiment(
            "rl",
            f"Let the RL of '{longest.model}' go on to twice its steps and evaluate the end ({show(cost)}).",
            _grpo(longest, 2.0 * longest.rl_flops, 1) | {"steps_factor": 2.0},
            cost,
        )
    ]
    ran = {(m.parameters, m.tokens) for m in after}
    others = [m for m in _bases(fit) if (m.parameters, m.tokens) not in ran]
    if len(ran) == 1 and others:
        base = others[0]
        # The same number of steps costs in proportion to the size.
        most = longest.rl_flops * base.parameters / longest.parameters
        cost = most + (RL_LEVELS - 1) * _evaluation(base, base.parameters, samples, questions)
        found.append(
            Experiment(
                "rl",
                f"Run the same RL on the base of {count(base.parameters)} parameters and {count(base.tokens)} tokens: whether a better base gains more "
                f"from RL is assumed so far, not known ({show(cost)}).",
                _grpo(base, most, RL_LEVELS - 1),
                cost,
            )
        )
    return found


def _grpo(base: Measurement, rl_flops: float, checkpoints: int) -> dict[str, Any]:
    return {
        "kind": "grpo",
        "parameters": base.parameters,
        "tokens": base.tokens,
        "rl_flops": rl_flops,
        "checkpoints": checkpoints,
    }


def _again(fit: JointFit, part: str, samples: int, questions: int, why: str, fresh: bool) -> Experiment:
    """The measured models evaluated again; only what is new is counted, unless all is drawn afresh."""
    models: Sequence[Measurement] = fit.points
    cost = 0.0
    for m in models:
        had = 0.0 if fresh else sum(row.samples for row in m.counts) * m.completion_tokens * 2.0 * m.parameters
        cost += max(_evaluation(m, m.parameters, samples, questions) - had, 0.0)
    return Experiment(
        part,
        f"Evaluate the {len(models)} measured models on {questions} questions with {samples} samples each: {why} ({show(cost)}).",
        {"kind": "eval", "samples": samples, "questions": questions, "votes": part == "vote"},
        cost,
    )


def _samples(fit: JointFit) -> list[Experiment]:
    if not fit.parts["samples"].fitted:
        return [
            _again(fit, "samples", SAMPLES, fit.questions, "with one sample nothing says what a second one buys", True)
        ]
    return [
        _again(
            fit,
            "samples",
            2 * _drawn(fit),
            fit.questions,
            "more samples narrow how hard the hardest questions are",
            False,
        )
    ]


def _vote(fit: JointFit) -> list[Experiment]:
    if fit.parts["vote"].fitted:
        return []
    return [_again(fit, "vote", max(_drawn(fit), SAMPLES), fit.questions, "this time keeping the answers", True)]


def _questions(fit: JointFit) -> list[Experiment]:
    return [
        _again(
            fit,
            "questions",
            _drawn(fit),
            2 * fit.questions,
            "twice the questions narrow what their choice leaves open by about 30 %",
            False,
        )
    ]
