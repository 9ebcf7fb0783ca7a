"""The nouns of the house. Read this page first.

Every part speaks in these words and none invents a second word for one of them. A field is filled once, by the part named
beside it, and never changes its meaning. A bad sample is data (`Score.error` names the boundary that failed); a broken contract
is a crash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict

from trilaw.core.errors import RequestError

Role = Literal["system", "user", "assistant"]
StopReason = Literal["stop", "length", "cancelled"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question whose answer can be checked. Filled by a task; `id` is stable over runs and unique in a split."""

    id: str
    messages: tuple[Message, ...]
    answer: str  # the gold answer, in the task's own notation
    meta: Mapping[str, Any] = field(default_factory=dict)  # what the verifier or a report needs besides


@dataclass(frozen=True, slots=True)
class Example:
    """A worked solution to learn from: `completion` is what the assistant should say after `messages`. Filled by a task."""

    messages: tuple[Message, ...]
    completion: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens. The order is temperature, then top-k, then top-p, then min-p, each on the distribution left before it.

    temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 switch a filter off. `stop` strings end a sample and are cut from its
    text; `stop_tokens` end it as well as the model's own end tokens (unless `ignore_eos`). `max_tokens` is an upper bound: a sample
    also ends where the model's context does.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    ignore_eos: bool = False

    def check(self) -> None:
        """Raises RequestError for a parameter out of its range, or two that contradict each other."""
        t = self.temperature
        greedy_filters = t == 0 and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)
        for holds, complaint in (
            (t >= 0 and math.isfinite(t), f"temperature is {t}, it must be 0 (greedy) or a positive number"),
            (self.top_k >= 0, f"top_k is {self.top_k}, it must be 0 (off) or the number of tokens to keep"),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}, it must be above 0 and at most 1 (off)"),
            (0 <= self.min_p < 1, f"min_p is {self.min_p}, it must be at least 0 (off) and below 1"),
            (self.max_tokens >= 1, f"max_tokens is {self.max_tokens}, it must be at least 1"),
            (
                not greedy_filters,
                "temperature 0 takes the likeliest token, so top_k, top_p and min_p have no effect; leave them out or raise the temperature",
            ),
            ("" not in self.stop, "a stop string is empty and would end every sample at once; leave it out"),
        ):
            if not holds:
                raise RequestError(f"The sampling options do not hold: {complaint}.")


Prompt = (
    tuple[Message, ...] | str | tuple[int, ...]
)  # a conversation (the chat template applies), raw text, or token ids


@dataclass(frozen=True, slots=True)
class Request:
    """An order for ONE sample. Requests with an equal prompt share its computation; `seed` alone decides the randomness."""

    id: str  # unique among the requests that a sampler holds
    prompt: Prompt
    params: SamplingParams
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sample cost. `cached_tokens` of the prompt were not computed anew; `flops` is exact for the architecture, 0 if unknown."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # wall clock from submission to the end of the sample
    flops: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
            self.flops + other.flops,
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. Filled by a sampler.

    `tokens` include the end token when there is one (it is part of the sample and of the training loss). `logprobs` has one
    natural logarithm a token, of the distribution that was really sampled from (after temperature and filters; for greedy
    samples, of the plain softmax). `text` is without end token and stop string. A remote sampler may leave tokens and logprobs empty.
    """

    request_id: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str
    logprobs: tuple[float, ...]
    stop: StopReason
    weights_version: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. Filled by `Task.verify`. `value` is in [0, 1].

    `extracted` is the answer found, in canonical form (equal answers are equal strings: votes count these), None when there is
    none. `error` names the boundary that failed ("timeout", ...), in which case `value` is 0 and the sample is counted apart.
    """

    value: float
    extracted: str | None = None
    detail: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """All samples of one problem, with their scores in the same order."""

    problem: Problem
    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval. `n` counts the units that were resampled (problems), `method` says how the interval came about."""

    value: float
    low: float
    high: float
    n: int
    method: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One line of the table of results: an estimate of `metric` for the model of `stage` on a task's split."""

    stage: str
    task: str
    split: str
    metric: str  # "pass@1", "maj@16", "mean_tokens", ...
    estimate: Estimate

    def row(self) -> dict[str, Any]:
        """The flat form in which files and `--json` carry it."""
        place = {"stage": self.stage, "task": self.task, "split": self.split, "metric": self.metric}
        return place | asdict(self.estimate)
