"""Rollouts for grpo: which problems a step has, and a group of samples with scores for each of them.

A procedural task gives fresh problems at every step; a finite set is gone through in shuffled passes. Both are f(seed, step). The optional
filter keeps the problems that the base model solves sometimes: those it always or never solves teach nothing at first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from trilaw.core.config import Config
from trilaw.core.errors import TaskError
from trilaw.core.ledger import Totals
from trilaw.core.protocols import Sampler, Task, collect
from trilaw.core.rundir import read_json, write_json
from trilaw.core.seeds import derive
from trilaw.core.types import Group, Problem, Request, SamplingParams
from trilaw.training.batch import draw


class PassRateFilter(Config):
    """Keep the problems whose pass rate over the base model's own samples lies in low..high."""

    pool: int = Field(default=512, gt=0)  # problems tried
    samples: int = Field(default=8, gt=1)  # samples a problem
    low: float = Field(default=0.2, ge=0, le=1)
    high: float = Field(default=0.8, ge=0, le=1)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.low > self.high:
            raise ValueError("low may not exceed high")
        return self


class Problems:
    """The problems of each step."""

    def __init__(self, task: Task, split: str, seed: int) -> None:
        self.task, self.split, self.seed = task, split, seed
        self.finite = _finite(task, split, derive(seed, "probe"))

    def of_step(self, step: int, count: int) -> list[Problem]:
        if self.finite is not None:
            return [self.finite[i] for i in draw(len(self.finite), count, step, self.seed)]
        return list(self.task.problems(self.split, seed=derive(self.seed, step), limit=count))

    def filter(
        self, rule: PassRateFilter, file: Path, roll_pool: Callable[[Sequence[Problem]], list[Group]], fresh: bool
    ) -> Totals:
        """Keep what `rule` lets through, by samples of the base model or by `file` where an earlier process put its verdict.

        Returns what the sampling cost if it is not in the stage's totals yet (`fresh`: the stage starts from its beginning).
        Raises TaskError when too little is left.
        """
        count = min(rule.pool, len(self.finite)) if self.finite is not None else rule.pool
        pool = self.of_step(0, count)
        if not file.exists():
            began = time.perf_counter()
            groups = roll_pool(pool)
            usage = [sample.usage for group in groups for sample in group.samples]
            verdict = {
                "pass_rates": {g.problem.id: sum(s.value for s in g.scores) / len(g.scores) for g in groups},
                "flops": sum(u.flops for u in usage),
                "seconds": time.perf_counter() - began,
                "tokens": sum(u.completion_tokens for u in usage),
            }
            write_json(file, verdict)
        verdict = read_json(file)
        rates = verdict["pass_rates"]
        self.finite = [p for p in pool if rule.low <= rates[p.id] <= rule.high]
        if not self.finite:
            raise TaskError(
                f"None of {len(pool)} problems of task '{self.task.name}' has a pass rate between {rule.low} and {rule.high} "
                f"(mean {sum(rates.values()) / len(rates):.3f}): widen filter.low and filter.high, or use a stronger base or an easier split."
            )
        return Totals(verdict["flops"], verdict["seconds"], verdict["tokens"]) if fresh else Totals()


def _finite(task: Task, split: str, seed: int) -> list[Problem] | None:
    """All problems of a finite split, None for a procedural one.

    By the contract of `Task.problems`: without a limit a finite set gives all, so those of any other seed are among them.
    """
    every = list(task.problems(split))
    if not every:
        raise TaskError(f"The split '{split}' of task '{task.name}' has no problems.")
    known = {repr(p.messages) for p in every}
    return every if all(repr(p.messages) in known for p in task.problems(split, seed=seed, limit=8)) else None


def roll(
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int,
    params: SamplingParams,
    key: tuple[int | str, ...],
) -> list[Group]:
    """A group of `samples` samples, verified, for each problem. Each sample's seed is derived from `key`, the problem and its index."""
    seen: Counter[str] = Counter()
    requests = []
    for place, problem in enumerate(problems):
        first = seen[problem.id] * samples  # a problem drawn twice in a step gets other samples the second time
        seen[problem.id] += 1
        requests += [
            Request(
                f"{place}/{problem.id}/{i}", problem.messages, params, derive(*key, problem.id, first + i, "rollout")
            )
            for i in range(samples)
        ]
    done = collect(sampler, requests)
    groups = []
    for place, problem in enumerate(problems):
        own = tuple(done[place * samples : (place + 1) * samples])
        groups.append(Group(problem, own, tuple(task.verify(problem, sample.text) for sample in own)))
    return groups
