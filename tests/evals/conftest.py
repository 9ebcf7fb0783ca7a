"""A scripted sampler and a small task: all that an evaluation needs, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trilaw.core.errors import RequestError
from trilaw.core.seeds import derive
from trilaw.core.types import Message, Problem, Request, Sample, Score, Usage


class ScriptedSampler:
    """Answers from a table by the request's seed, a few at a time and out of order. Meets the Sampler protocol."""

    def __init__(self, table: dict[str, Sequence[str]], *, batch: int = 3) -> None:
        self.weights_version = 0
        self.table, self.batch = table, batch
        self.waiting: list[Request] = []
        self.cancelled: list[Request] = []
        self.submitted: list[list[str]] = []
        self.most = 0

    def submit(self, requests: Sequence[Request]) -> None:
        held = {r.id for r in self.waiting}
        for request in requests:
            if request.id in held or not isinstance(request.prompt, tuple):
                raise RequestError(f"The id {request.id} is in use.")
            if len(request.prompt[-1]["content"]) > 100:
                raise RequestError("The prompt has more tokens than the context of 100.")
        self.waiting += requests
        self.submitted.append([r.id for r in requests])
        self.most = max(self.most, len(self.waiting))

    def step(self) -> list[Sample]:
        done = [self.sample(r, "cancelled") for r in self.cancelled]
        self.cancelled = []
        self.waiting.sort(key=lambda r: derive(r.id, len(self.submitted)))
        now, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        return done + [self.sample(r) for r in now]

    def sample(self, request: Request, stop: str | None = None) -> Sample:
        question = request.prompt[-1]["content"]  # type: ignore[index]
        choices = self.table[question]
        text = choices[request.seed % len(choices)]
        tokens = tuple(text.encode())[: request.params.max_tokens]
        cut = "length" if len(text) > len(tokens) else "stop"
        usage = Usage(len(question), 0, len(tokens), 0.5, 0.0)
        return Sample(request.id, (1,), tokens, text[: len(tokens)], (-0.5,) * len(tokens), stop or cut, 0, usage)  # type: ignore[arg-type]

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += [r for r in self.waiting if r.id in ids]
        self.waiting = [r for r in self.waiting if r.id not in ids]

    def partial(self, request_id: str) -> str:
        return ""

    @property
    def pending(self) -> int:
        return len(self.waiting) + len(self.cancelled)


class Sums:
    """Problems `i+1`; the answer is the number after `=`."""

    name, description, splits = "sums", "", ("train", "test")

    def __init__(self, count: int = 7, gold: str = "") -> None:
        self.count, self.gold = count, gold

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> list[Problem]:
        def problem(i: int) -> Problem:
            message: Message = {"role": "user", "content": f"{i}+1"}
            return Problem(f"{split}/{i}", (message,), self.gold or str(i + 1))

        return [problem(i) for i in range(min(self.count, limit or self.count))]

    def verify(self, problem: Problem, text: str) -> Score:
        _, found, answer = text.partition("=")
        if answer == "?":
            return Score(0.0, error="timeout")
        return Score(float(answer == problem.answer), answer) if found else Score(0.0)

    def validate(self) -> list[str]:
        return []


TABLE = {f"{i}+1": [f"={i + 1}", f"think ={i + 1}", f"={i}", "no idea", f"={i + 3}"] for i in range(5000)}


@pytest.fixture
def task() -> Sums:
    return Sums()


@pytest.fixture
def sampler() -> ScriptedSampler:
    return ScriptedSampler(TABLE)
