"""Who runs, who reads, who waits: the queue, the table of rows, and the rules by which requests move between them.

First come, first served. Rows that end stay until `_DROP` of the batch has ended, then all go at once and waiting requests take their
places. When memory runs out, pages that nobody needs are given up first, then those of prompts that wait, then the youngest rows: these
go back to the head of the queue with what they sampled, and are read again later. The oldest row is never preempted, and `requests.room`
refuses what could not run alone, so the work always goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from trilaw.engine import sequence as seq
from trilaw.engine.pages import PAGE
from trilaw.engine.rows import Rows
from trilaw.engine.runner import Runner

_DROP = 0.15  # share of dead rows at which they are dropped
_PIECE = 512  # tokens of prompts that a pass reads beside running rows
_FIRST = 2048  # the same while no row runs
_ALONE = 512  # a shorter prompt that one request has to itself is copied to its tail: that is read faster than pages
_AHEAD = (
    64  # new tokens of every row that must fit before another row is let in: keeps rows from being preempted at once
)


class Scheduler:
    def __init__(self, runner: Runner, max_batch: int) -> None:
        self.max_batch = max_batch
        self.queue: OrderedDict[str, seq.Sequence] = OrderedDict()
        self.rows = Rows(max_batch, runner.device)
        self.prompts: WeakValueDictionary[tuple[int, ...], seq.Prompt] = WeakValueDictionary()
        self._runner = runner

    def add(self, sequence: seq.Sequence) -> None:
        """A new request waits."""
        sequence.source.waiting += 1
        self.queue[sequence.id] = sequence

    def make_room(self) -> None:
        """Preempt the youngest rows while the newest tokens of all do not fit."""
        rows = self.rows
        if not rows.live:
            self.compact()
        if self._runner.fits(rows):
            return
        self._reclaim()
        self.compact()
        while not self._runner.fits(rows):
            self.preempt(max(range(len(rows)), key=lambda row: rows.sequences[row].order))
            self.compact()

    def choose(self) -> dict[seq.Prompt, int]:
        """How many tokens of which prompts the next pass reads, first come first served; their pages are reserved."""
        rows, reading = self.rows, dict[seq.Prompt, int]()
        budget = _PIECE if rows.live else _FIRST
        for sequence in islice(self.queue.values(), self.max_batch - len(rows)):
            prompt = sequence.source
            if prompt.logits_V is not None or prompt in reading:
                continue
            self._runner.begin(prompt)
            count = min(len(prompt.tokens) - prompt.done, budget)
            if not self._runner.reserve(prompt, count, rows):
                if rows.live or reading:
                    break
                self._reclaim(prompt)
                self._runner.begin(prompt)
                count = min(len(prompt.tokens) - prompt.done, budget)
                if not self._runner.reserve(prompt, count, rows):  # `door.room` saw to it that one alone fits
                    raise AssertionError("engine: a prompt alone does not fit into the cache")
            reading[prompt] = count
            budget -= count
            if not budget:
                break
        return reading

    def admit(self) -> tuple[int, Tensor | None]:
        """Drop dead rows if they are many, then let in requests whose prompts are read, while rows and memory last.

        Returns the first new row, and the logits [B - first, V] of the new rows' first tokens (None if there are none).
        """
        rows = self.rows
        if len(rows) - rows.live > _DROP * len(rows):
            self.compact()
        first = len(rows)
        ready = [s for s in islice(self.queue.values(), self.max_batch - first) if s.source.logits_V is not None]
        if not ready:
            return first, None
        admitted = self._fitting(ready)
        if not admitted and not rows.live:
            self._reclaim(ready[0].source)
            admitted = [(ready[0], True)]  # `door.room` saw to it that one alone fits
        if not admitted:
            return first, None
        self._runner.admit(rows, admitted)
        logits_V = []
        for sequence, _ in admitted:
            del self.queue[sequence.id]
            sequence.admit()
            logits_V.append(cast(Tensor, sequence.source.logits_V))
            self.leave(sequence)
        return first, torch.stack(logits_V)

    def _fitting(self, ready: Sequence[seq.Sequence]) -> list[tuple[seq.Sequence, bool]]:
        """The first of these that fit beside the rows, each with whether it shares the pages of its prompt or copies them."""
        left = self._runner.memory.limit - self._runner.memory.pages.held * PAGE  # for tails
        B, longest = len(self.rows), self.rows.ahead(_AHEAD)
        fitting: list[tuple[seq.Sequence, bool]] = []
        for sequence in ready:
            source = sequence.source
            source.grouped |= source.waiting > 1
            tail = min(len(source.tokens) + _AHEAD, sequence.reserve)
            alone = not source.grouped and len(source.tokens) <= _ALONE and (B + 1) * max(longest, tail) <= left
            if not alone:
                tail -= len(source.tokens) // PAGE * PAGE
            if (B + 1) * max(longest, tail) > left:
                break
            B, longest = B + 1, max(longest, tail)
            fitting.append((sequence, not alone))
        return fitting

    def compact(self) -> None:
        self._runner.compact(self.rows)

    def preempt(self, row: int) -> None:
        """Put a running request back at the head of the queue, with what it has sampled."""
        rows, sequence = self.rows, self.rows.sequences[row]
        sequence.flops += sequence.decoded(self._runner.arch, int(rows.made_R[row]))
        sequence.tokens, sequence.logprobs = rows.tokens(row), rows.logprobs(row)
        sequence.reading = self.prompt((*sequence.prompt.tokens, *sequence.tokens))
        sequence.reading.waiting += 1
        rows.live_R[row] = False
        self.queue[sequence.id] = sequence
        self.queue.move_to_end(sequence.id, last=False)

    def _reclaim(self, keep: seq.Prompt | None = None) -> None:
        """Prompts that wait give up their pages, but for one."""
        for prompt in {sequence.source for sequence in self.queue.values()} - {keep}:
            self._runner.forget(prompt)

    def leave(self, sequence: seq.Sequence) -> None:
        """A request is out of the queue; what its prompt holds goes with the last one."""
        source = sequence.source
        source.waiting -= 1
        if not source.waiting:
            self._runner.forget(source)

    def prompt(self, tokens: tuple[int, ...]) -> seq.Prompt:
        prompt = self.prompts.get(tokens)
        if prompt is None:
            prompt = self.prompts[tokens] = seq.Prompt(tokens)
        return prompt
