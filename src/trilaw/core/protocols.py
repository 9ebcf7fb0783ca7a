"""The seams: what a sampler, a task, a tokenizer and a stage must offer. Parts know these and not each other.

A strategy, an evaluation and a training rollout see only `Sampler`; the local engine, a remote endpoint and a scripted test double
all meet it. The run folder is the only interface between stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from trilaw.core.events import EventLog
from trilaw.core.types import Evaluation, Example, Message, Problem, Request, Sample, Score


class Tokenizer(Protocol):
    """Text to token ids and back, and the ONE place where a conversation becomes a prompt."""

    vocab_size: int
    eos_ids: tuple[int, ...]  # any of these ends a sample; the first one is what training appends
    bos_id: int | None
    pad_id: int

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids without BOS; names of special tokens inside `text` count as plain text unless `special`."""
        ...

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str: ...

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        """The prompt text by the chat template (without one: the contents joined by newlines)."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, generation: bool = True) -> list[int]:
        """The prompt's token ids; special tokens typed by a user do not become special tokens."""
        ...


class Sampler(Protocol):
    """Takes requests as they come, gives samples back as they finish, can cancel."""

    weights_version: int

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests. Raises RequestError, before anything is queued, for a prompt longer than the context, a used id, or
        contradictory sampling parameters."""
        ...

    def step(self) -> list[Sample]:
        """Advance the work by one unit; the samples that finished by it, possibly none."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End these requests now; each comes back from the next `step` with stop "cancelled" and the tokens it had."""
        ...

    def partial(self, request_id: str) -> str:
        """The text so far of an unfinished request (for streaming)."""
        ...

    @property
    def pending(self) -> int:
        """How many requests are queued or running."""
        ...


def collect(sampler: Sampler, requests: Sequence[Request]) -> list[Sample]:
    """Submit and wait: one sample for each request, in the order of the requests. The sampler must hold no other work."""
    sampler.submit(requests)
    done: dict[str, Sample] = {}
    while sampler.pending:
        for sample in sampler.step():
            done[sample.request_id] = sample
    return [done[request.id] for request in requests]


@runtime_checkable
class Task(Protocol):
    """Problems whose answers can be checked. Verifiers parse with bounds and never evaluate model text."""

    name: str
    splits: tuple[str, ...]  # for example ("train", "test", "hard"); a held-out split shares no problem with "train"
    description: str

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        """`limit` problems of the split (all of them for a finite set; a procedural task needs a limit, default 256). The same
        arguments give the same problems, and a larger limit only appends."""
        ...

    def verify(self, problem: Problem, text: str) -> Score: ...

    def validate(self) -> list[str]:
        """Complaints, none if sound: every gold answer must be accepted and a corrupted one refused. No model needed."""
        ...


@runtime_checkable
class TeachingTask(Task, Protocol):
    """A task that can also show worked solutions (for sft)."""

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]: ...


@runtime_checkable
class CorpusTask(Task, Protocol):
    """A task that can also write worked text to pre-train on, and knows the alphabet of its text.

    A task may offer `log_probability(document) -> float` too, the natural logarithm of the chance that it writes this document: then
    the loss that no model can beat is known (`valid_entropy` beside `valid_loss`).
    """

    def documents(self, *, seed: int = 0, count: int) -> Iterator[str]:
        """`count` documents: the prompt as the chat template renders it, followed by the response without end token."""
        ...

    def alphabet(self) -> Sequence[str]:
        """The words of a word-level tokenizer that covers every document and prompt without loss."""
        ...

    def chat_template(self) -> str:
        """The jinja2 template that renders a problem's messages as the documents do."""
        ...


class Progress(Protocol):
    """What a stage tells a watching person. Implementations must be cheap and must never raise."""

    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def update(self, done: int, **metrics: float) -> None: ...

    def finish(self, summary: str) -> None: ...


class Silent:
    """A `Progress` that says nothing."""

    def start(self, stage: str, total: int, done: int = 0) -> None: ...

    def update(self, done: int, **metrics: float) -> None: ...

    def finish(self, summary: str) -> None: ...


@dataclass(frozen=True)
class StageContext:
    """All that a stage gets besides its own config."""

    name: str
    folder: Path  # stages/<name>, the stage's own; checkpoints and samples go here
    seed: int  # of the run; a stage derives its own by seeds.derive(seed, name, ...)
    models: Mapping[str, Path]  # model folders of the stages before, by stage name
    events: EventLog  # metrics, one object a line; resume truncates what comes after the checkpoint
    progress: Progress
    should_stop: Callable[[], bool]  # asked once a step; when true: save a checkpoint, raise Stopped
    tasks: Mapping[str, Task] = field(default_factory=dict)  # the recipe's named tasks, built and validated


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves behind; written as done.json when the stage is complete."""

    kind: str
    model: Path | None = None  # a Hugging Face folder inside the stage's folder
    seconds: float = 0.0  # work done, over all attempts that led here
    flops: float = 0.0
    tokens: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)  # the stage's own closing numbers
    evaluations: tuple[Evaluation, ...] = ()
