"""Run a task on a sampler: draw, verify, store, estimate.

The sampler is kept full: requests go in as others finish, whole problems at a time so that samples of one problem share its prompt,
and never more than a window of them, so a large evaluation does not queue at once. Sample i of a problem has the seed
derive(seed, problem id, i, "eval"), whatever else runs: batch size, order, kills and later widening change no sample.

The problems are those that the task gives for seed 0: `seed` moves the samples and not the exam, so models, seeds and runs are
compared on the same problems.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError, Stopped, TaskError, nearest
from trilaw.core.ledger import Totals
from trilaw.core.protocols import Progress, Sampler, Silent, Task
from trilaw.core.rundir import lock
from trilaw.core.seeds import derive
from trilaw.core.types import Estimate, Evaluation, Problem, Request, Sample, SamplingParams, Usage
from trilaw.evals.metrics import Values, estimate, measure
from trilaw.evals.store import Store, files

WINDOW = 1024  # requests that a sampler holds at most: enough to fill a batch of 512 while the next wait


@dataclass(frozen=True)
class EvalResult:
    """The table of results, and what it rests on."""

    evaluations: tuple[Evaluation, ...]
    problems: tuple[str, ...] = field(repr=False)  # ids
    # Metric -> one value a problem, in the order of `problems`, for paired comparisons.
    values: Values = field(repr=False)
    samples: int  # of each problem
    errors: int  # samples whose verification failed at a boundary (Score.error); they count as wrong
    totals: Totals  # completion tokens, FLOPs, wall-clock seconds over all attempts
    prompt_tokens: int
    path: Path | None  # the samples file

    @property
    def seconds(self) -> float:
        return self.totals.seconds

    @property
    def flops(self) -> float:
        return self.totals.flops

    @property
    def tokens(self) -> int:
        return self.totals.tokens

    def __getitem__(self, metric: str) -> Estimate:
        """The estimate of a metric. Raises KeyError for one that was not measured."""
        return {row.metric: row.estimate for row in self.evaluations}[metric]

    def __str__(self) -> str:
        """A metric a line, with its interval."""
        rows = [(row.metric, row.estimate) for row in self.evaluations]
        return "\n".join(f"{metric:<12} {e.value:8.4g}  [{e.low:.4g}, {e.high:.4g}]" for metric, e in rows)


def evaluate(
    task: Task,
    sampler: Sampler,
    *,
    split: str = "test",
    limit: int | None = None,
    samples: int = 1,
    params: SamplingParams,
    seed: int = 0,
    store: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    logprobs: bool = False,
    arch: Arch | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    stage: str = "",
) -> EvalResult:
    """`samples` completions for each of `limit` problems of a split (None: as many as the task gives), and what they are worth.

    store: where the samples lie (see evals.store); what lies there already is not drawn again. settings: what besides task, split,
    sampling and seed decides the samples (the model, the task's options): a store refuses samples of other settings. logprobs:
    store them too. arch: fills in FLOPs that the sampler does not know. The sampler must hold no other work, and holds none when
    this returns or raises.

    Raises RequestError for an unknown split, contradictory options, a store of other settings or a prompt longer than the context,
    TaskError for a split without problems, RunError if the store cannot be used, Stopped if `should_stop` said so.
    """
    problems = _problems(task, split, limit, samples, params)
    drawn_with = {"version": 1, **(settings or {}), "task": task.name, "split": split, **asdict(params), "seed": seed}
    progress = progress or Silent()
    if store is None:
        return _evaluate(
            task, sampler, problems, samples, params, seed, Store(None, {}), arch, progress, should_stop, stage, split
        )
    with lock(files(store)[0].parent):
        kept = Store(store, drawn_with, logprobs=logprobs)
        try:
            return _evaluate(
                task, sampler, problems, samples, params, seed, kept, arch, progress, should_stop, stage, split
            )
        finally:
            kept.close()


def _problems(task: Task, split: str, limit: int | None, samples: int, params: SamplingParams) -> Sequence[Problem]:
    if split not in task.splits:
        raise RequestError(f"Task '{task.name}' has no split '{split}'{nearest(split, task.splits)}.")
    if samples < 1 or (limit is not None and limit < 1):
        raise RequestError(f"An evaluation needs at least one problem and one sample, not {limit} and {samples}.")
    params.check()
    if samples > 1 and params.temperature == 0:
        raise RequestError(
            f"Temperature 0 draws the same sample {samples} times: take one sample, or a temperature above 0."
        )
    problems = task.problems(split, seed=0, limit=limit)
    if not problems:
        raise TaskError(f"Split '{split}' of task '{task.name}' has no problems.")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise TaskError(f"Split '{split}' of task '{task.name}' has two problems with the id '{problem.id}'.")
        seen.add(problem.id)
    return problems


def _evaluate(
    task: Task,
    sampler: Sampler,
    problems: Sequence[Problem],
    samples: int,
    params: SamplingParams,
    seed: int,
    store: Store,
    arch: Arch | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    stage: str,
    split: str,
) -> EvalResult:
    keys = [(problem.id, index) for problem in problems for index in range(samples)]
    stored = [store.look_up(problem, index) for problem in problems for index in range(samples)]
    done, right = sum(o is not None for o in stored), sum(o is not None and o.value >= 1.0 for o in stored)
    before = max((o.seconds_elapsed for o in store.outcomes.values()), default=0.0)
    begun, tokens = time.perf_counter(), 0
    progress.start(f"{stage or task.name} {split}", len(keys), done)
    lacking = ((p, [i for i in range(samples) if (p.id, i) not in store.outcomes]) for p in problems)
    missing = ((problem, indices) for problem, indices in lacking if indices)
    for problem, index, sample in _draw(sampler, missing, params, seed, should_stop):
        score = task.verify(problem, sample.text)
        seconds = time.perf_counter() - begun
        store.add(problem, index, sample, score, _with_flops(sample.usage, arch), before + seconds)
        done, right, tokens = done + 1, right + (score.value >= 1.0), tokens + sample.usage.completion_tokens
        progress.update(done, **{"pass@1": right / done, "tokens_per_second": tokens / max(seconds, 1e-9)})
    store.finish(keys)

    groups = [[store.outcomes[problem.id, index] for index in range(samples)] for problem in problems]
    outcomes = [outcome for group in groups for outcome in group]
    usage = sum((o.usage for o in outcomes), Usage())
    table = measure(groups)
    result = EvalResult(
        evaluations=estimate(table, stage=stage, task=task.name, split=split, max_tokens=params.max_tokens),
        problems=tuple(problem.id for problem in problems),
        values=table,
        samples=samples,
        errors=sum(o.error is not None for o in outcomes),
        totals=Totals(usage.flops, max(o.seconds_elapsed for o in outcomes), usage.completion_tokens),
        prompt_tokens=usage.prompt_tokens,
        path=store.path,
    )
    first = result["pass@1"]
    progress.finish(f"pass@1 {first.value:.3f} [{first.low:.3f}, {first.high:.3f}], {result.totals}")
    return result


def _draw(
    sampler: Sampler,
    missing: Iterator[tuple[Problem, list[int]]],
    params: SamplingParams,
    seed: int,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[Problem, int, Sample]]:
    """Samples as they finish. Whatever ends it early, the sampler is left without work.

    Raises Stopped, and RequestError (the problem is named) for a prompt that the sampler refuses.
    """
    running: dict[str, tuple[Problem, int]] = {}
    try:
        while True:
            if should_stop():
                raise Stopped("Stopped; samples that were stored are kept, and the same command goes on from there.")
            while len(running) < WINDOW and (group := next(missing, None)) is not None:
                problem, indices = group
                orders = {f"{problem.id}/{i}": (problem, i) for i in indices}
                try:
                    sampler.submit(
                        [
                            Request(name, problem.messages, params, derive(seed, problem.id, i, "eval"))
                            for name, (_, i) in orders.items()
                        ]
                    )
                except RequestError as error:
                    raise RequestError(f"Problem {problem.id}: {error}") from None
                running |= orders
            if not running:
                return
            if not sampler.pending:
                raise RuntimeError(f"The sampler has lost {len(running)} requests.")
            for sample in sampler.step():
                problem, index = running.pop(sample.request_id)
                yield problem, index, sample
    finally:
        if running:
            with suppress(Exception):  # a sampler that failed may fail again: the first error is the one to hear of
                sampler.cancel(list(running))
                while sampler.pending:
                    sampler.step()


def _with_flops(usage: Usage, arch: Arch | None) -> Usage:
    """Usage with the FLOPs of its forward passes where the sampler gave none; the last token passes through no layer."""
    if arch is None or usage.flops or not usage.completion_tokens:
        return usage
    length, cached = usage.prompt_tokens + usage.completion_tokens - 1, usage.cached_tokens
    pairs = (length * (length + 1) - cached * (cached + 1)) / 2
    return replace(usage, flops=arch.forward_flops(length - cached, pairs, usage.completion_tokens))
