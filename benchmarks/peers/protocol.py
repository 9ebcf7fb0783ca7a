"""A peer's side of the frame (`benchmarks/interleave.py`): read the job, say what it is, answer each round. No package is needed.

What libraries print goes to standard error, so that standard output carries answers only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Answer = dict[str, float]


class Parent:
    """The benchmark that started this process."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        self.job: Job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def say(self, values: dict[str, Any]) -> None:
        self._answers.write(json.dumps(values) + "\n")

    def ready(self, *packages: str, **facts: Any) -> None:
        """Loaded and warm: the versions of what was compared."""
        self.say({**{package: importlib.metadata.version(package) for package in packages}, **facts})

    def rounds(self) -> Iterator[int]:
        """The numbers of the rounds, as they are asked for."""
        for line in sys.stdin:
            yield int(line)

    def give_up(self, reason: str) -> None:
        """Ends this process: the benchmark goes on without it."""
        self.say({"absent": reason})
        sys.exit(1)


def serve(load: Callable[[Job], Callable[[int], Answer]], *packages: str) -> None:
    """A whole peer: `load(job)` gives a warm function from the number of a round to its answer."""
    parent = Parent()
    try:
        work = load(parent.job)
    except NotImplementedError as reason:
        parent.give_up(str(reason))
    else:
        parent.ready(*packages)
        for number in parent.rounds():
            parent.say(work(number))


Roll = Callable[[Sequence[Sequence[int]], int, int], int]


def rollout(job: Job, roll: Roll) -> Callable[[int], Answer]:
    """Rounds of a rollout by `roll(prompts, samples a prompt, new tokens a sample)`, which returns how many tokens it made."""
    roll(job["prompts"][0], min(2, job["samples"]), min(4, job["new"]))

    def work(number: int) -> Answer:
        asked = job["prompts"][number + 1]
        clock = time.perf_counter()
        tokens = roll(asked, job["samples"], job["new"])
        seconds = time.perf_counter() - clock
        if tokens != len(asked) * job["samples"] * job["new"]:
            raise RuntimeError(
                f"{tokens} tokens were made, {len(asked)} x {job['samples']} x {job['new']} were ordered."
            )
        return {"rate": tokens / seconds, "seconds": seconds, "prompt_tokens": float(sum(map(len, asked)))}

    return work


def longest(job: Job) -> int:
    """Tokens of the longest sequence, prompt and new tokens together."""
    return max(len(prompt) for prompts in job["prompts"] for prompt in prompts) + int(job["new"])


def rows(job: Job) -> int:
    """Sequences at a time."""
    return max(map(len, job["prompts"])) * int(job["samples"])
