"""What the laws are fitted to: measured points. `tables` reads them from CSV files, `reports.measurements` from run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trilaw.core.errors import LawError


@dataclass(frozen=True, slots=True)
class LossPoint:
    """One model at the annealed end of its pre-training. `loss` in nats a token; `group` names tokenizer and validation text: only
    points of one group can be compared. `accuracy` (share in [0, 1]) serves the link from loss to accuracy."""

    parameters: float
    tokens: float
    loss: float
    flops: float | None = None  # 6 N D where it is not given
    accuracy: float | None = None
    group: str = ""

    @property
    def compute(self) -> float:
        """FLOPs spent on it: as given, else 6 N D (Kaplan et al. 2020, arXiv 2001.08361)."""
        return 6.0 * self.parameters * self.tokens if self.flops is None else self.flops


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a post-training run: the share solved (`value` in [0, 1]) after `compute` (FLOPs, or any one unit) over
    `questions` problems (0: unknown)."""

    compute: float
    value: float
    questions: int = 0


@dataclass(frozen=True, slots=True)
class ProblemCounts:
    """Samples of one problem: how many, how many of them right, and the votes for each distinct answer (right ones apart) if known."""

    problem: str
    samples: int
    correct: int
    right_votes: tuple[int, ...] = ()
    wrong_votes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model of a run on one set of questions: what the joint law is fitted to.

    `parameters` and `tokens` are of the pre-training that the model descends from (0 tokens: not known), `loss` its annealed loss, `pretrain_flops` and
    `rl_flops` what was spent on either, `prompt_tokens` and `completion_tokens` the mean of one sample. `run` and `model` name it;
    measurements of different `task`s do not mix.
    """

    run: str
    model: str
    task: str
    parameters: float
    tokens: float
    pretrain_flops: float
    rl_flops: float
    loss: float | None
    prompt_tokens: float
    completion_tokens: float
    counts: tuple[ProblemCounts, ...]


@dataclass(frozen=True)
class Material:
    """What was measured. Keys of `curves` and `counts` name stages or models; `entropy` is the known irreducible loss, if any."""

    losses: Sequence[LossPoint] = ()
    entropy: float | None = None
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # of each curve: what was measured
    counts: Mapping[str, Sequence[ProblemCounts]] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()


def one_group(points: Sequence[LossPoint]) -> None:
    """Raises LawError if points of different tokenizers or validation texts are mixed."""
    groups = sorted({point.group for point in points})
    if len(groups) > 1:
        raise LawError(
            f"The points come from {len(groups)} groups ({', '.join(repr(g) for g in groups)}), whose losses cannot be compared: "
            "fit one group at a time."
        )
