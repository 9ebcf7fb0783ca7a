"""The local sampler: continuous batching, so that requests enter and leave while others run.

    step: admit -> prefill the new rows | decode all rows -> sample -> finish

After Orca (Yu et al. 2022): the batch is made up anew at every step. Equal prompts are computed once and their keys and values
copied. The cache is a dense rectangle, so a decoding step is a few large operations over rows 0..B-1 and costs the same Python for one
row as for hundreds; rows that end stay until `_DROP` of the batch has ended, then all go at once and waiting requests take their places.

A sample depends on its prompt, parameters and seed, not on the batch it ran in (up to the rounding of matrix products, whose kernels
vary with the number of rows).

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from trilaw.core.errors import ModelError, RequestError, nearest
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import Request, Sample, StopReason, Usage
from trilaw.engine import requests as door
from trilaw.engine import sequence as seq
from trilaw.engine.rows import Rows
from trilaw.engine.runner import Runner
from trilaw.engine.sampling import RowParams, draw
from trilaw.model.llama import CausalLM

_DROP = 0.15  # share of dead rows at which they are dropped
_IDLE_BYTES = 256 << 20  # a larger cache is given back when nothing runs, so that training has the memory


class Engine:
    """Samples from a model in this process; meets `core.protocols.Sampler`. Not thread-safe: one thread drives it."""

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 512,
        max_cache_tokens: int | None = None,
        dtype: torch.dtype | None = None,
        weights_version: int = 0,
    ) -> None:
        """max_batch: rows that run at once. max_cache_tokens: rows x positions that the cache may take (default: what fits into
        4 GiB, and never less than one full context). dtype: None, or the model's own, shares the model's parameters with whoever
        trains them; another one makes a copy, which `load_weights` refreshes.

        Raises RequestError for a limit that lets nothing run.
        """
        if max_batch < 1:
            raise RequestError(f"max_batch is {max_batch}, it must be at least 1.")
        if max_cache_tokens is not None and max_cache_tokens < 2:
            raise RequestError(f"max_cache_tokens is {max_cache_tokens}, it must be at least 2.")
        self.arch = model.arch
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.weights_version = weights_version
        self._runner = Runner(model, dtype, max_cache_tokens)
        self._cache = self._runner.cache
        self.max_cache_tokens = self._cache.limit
        self._rows = Rows(max_batch, self._runner.device)
        self._params: RowParams | None = None  # of all rows; None after the rows changed
        self._queue: OrderedDict[str, seq.Sequence] = OrderedDict()
        self._ended: list[Sample] = []  # what the next step hands out
        self._prompts: WeakValueDictionary[tuple[int, ...], seq.Prompt] = WeakValueDictionary()

    @property
    def pending(self) -> int:
        """Requests queued or running, and cancelled ones that no step has handed out yet."""
        return len(self._queue) + self._rows.live + len(self._ended)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests, all or none.

        Raises RequestError for a used id, a parameter out of range or contradicting another, an empty prompt, a token outside the
        vocabulary, a prompt that fills the context, or more tokens than the cache holds. A sample ends where the context does, whatever
        its max_tokens.
        """
        used = {*self._queue, *(s.id for s in self._running().values()), *(s.request_id for s in self._ended)}
        now = time.monotonic()
        prompts: dict[int, seq.Prompt] = {}  # by identity: the samples of a problem carry the same object
        accepted: list[seq.Sequence] = []
        for request in requests:
            if request.id in used:
                raise RequestError(f"Request '{request.id}': this id is in use; give every request an id of its own.")
            used.add(request.id)
            try:
                door.check_params(request.params, self.arch.vocab_size)
                prompt = prompts.get(id(request.prompt)) or self._prompt(door.tokenize(request, self.tokenizer))
                room = door.room(prompt.tokens, request.params.max_tokens, self.arch, self.max_cache_tokens)
            except RequestError as error:
                if len(requests) == 1:
                    raise
                raise RequestError(f"Request '{request.id}': {error}") from None
            prompts[id(request.prompt)] = prompt
            params = request.params if room == request.params.max_tokens else replace(request.params, max_tokens=room)
            accepted.append(seq.Sequence(request.id, prompt, params, request.seed, now))
        for sequence in accepted:
            sequence.prompt.waiting += 1
            self._queue[sequence.id] = sequence

    def step(self) -> list[Sample]:
        """Read the prompts of new rows, or make one token for every row; the samples that ended by it.

        Raises ModelError if the logits are not finite; all requests are dropped then.
        """
        with torch.inference_mode():
            first = self._admit()
            if self._rows.live:
                if first < len(self._rows):
                    logits_BV = self._runner.prefill(self._rows, first)
                else:
                    first, logits_BV = 0, self._runner.decode(self._rows)
                self._finish(first, self._sample(first, logits_BV))
        if not self._rows.live and not self._queue and self._cache.nbytes > _IDLE_BYTES:
            self._cache.clear()
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, ids: Sequence[str]) -> None:
        """End these requests; the next step hands them out with the tokens that they had. Ids that have ended are passed over."""
        running = {sequence.id: row for row, sequence in self._running().items()}
        for id in dict.fromkeys(ids):
            if id in self._queue:
                sequence = self._queue.pop(id)
                sequence.prompt.waiting -= 1
                if not sequence.prompt.waiting:
                    sequence.prompt.logits_V = None
                self._ended.append(self._make(sequence, [], [], "", "cancelled"))
            elif id in running:
                self._end(running[id], "cancelled")

    def partial(self, request_id: str) -> str:
        """The text so far, without half characters or what may become a stop string: a later text only adds to it.

        Raises RequestError for an id that is neither queued nor running.
        """
        if request_id in self._queue:
            return ""
        for row, sequence in self._running().items():
            if sequence.id == request_id:
                return seq.settled(self.tokenizer.decode(self._rows.tokens(row)), sequence.params.stop)
        known = (*self._queue, *(s.id for s in self._running().values()))
        raise RequestError(f"No request '{request_id}' is queued or running{nearest(request_id, known)}.")

    def load_weights(self, model: CausalLM, version: int) -> None:
        """Sample from these weights from now on, as `version`; nothing computed with the old ones is used again.

        Raises RequestError while requests are queued or running, ModelError if the architecture is another.
        """
        if self._queue or self._rows.live:
            raise RequestError(
                f"The weights cannot change while {self.pending} requests are pending; finish or cancel them first."
            )
        self._runner.load(model)
        self.weights_version = version

    def check_integrity(self) -> None:
        """Raises AssertionError if the books of queue, rows and cache do not agree."""
        rows, queued = self._rows, list(self._queue.values())
        B, running = len(rows), list(self._running().values())
        waiting = dict.fromkeys(self._prompts.values(), 0)
        for sequence in queued:
            waiting[sequence.prompt] += 1
        ids = [s.id for s in (*queued, *running)] + [s.request_id for s in self._ended]
        finished = rows.made_R[:B] >= rows.limit_R[:B]
        for holds, complaint in (
            (self.max_batch >= B, "more rows than max_batch"),
            (not rows.live_R[B:].any(), "a row beyond the batch is marked as running"),
            (len(set(ids)) == len(ids) == self.pending, "a request is held twice, or not counted"),
            (B * rows.longest_reserve <= self.max_cache_tokens, "the reserves exceed the cache"),
            (self._cache.rows * self._cache.positions <= self.max_cache_tokens, "the cache exceeds its limit"),
            (B == 0 or self._cache.rows >= B, "the cache lacks rows"),
            (B == 0 or self._cache.positions >= rows.positions().max(), "the cache lacks positions"),
            (not (rows.live_R[:B] & finished).any(), "a row runs past max_tokens"),
            (not (rows.live_R[:B] & (rows.made_R[:B] < 1)).any(), "a running row has no token"),
            (all(p.waiting == n for p, n in waiting.items()), "a prompt miscounts the requests that wait for it"),
            (all(p.logits_V is None or p.waiting for p in waiting), "logits are kept that nobody waits for"),
        ):
            if not holds:
                raise AssertionError(f"engine integrity: {complaint}")

    def _prompt(self, tokens: tuple[int, ...]) -> seq.Prompt:
        prompt = self._prompts.get(tokens)
        if prompt is None:
            prompt = self._prompts[tokens] = seq.Prompt(tokens)
        return prompt

    def _running(self) -> dict[int, seq.Sequence]:
        return {row: s for row, s in enumerate(self._rows.sequences) if self._rows.live_R[row]}

    def _admit(self) -> int:
        """Drop dead rows if they are many, then let waiting requests in, first come first served, while their reserve fits.

        Returns the first new row (the number of rows if there is none).
        """
        rows = self._rows
        if len(rows) - rows.live > _DROP * len(rows):
            self._runner.compact(rows)
            self._params = None
        first, longest = len(rows), rows.longest_reserve
        while self._queue and len(rows) < self.max_batch:
            sequence = next(iter(self._queue.values()))
            longest = max(longest, sequence.reserve)
            if (len(rows) + 1) * longest > self.max_cache_tokens:
                break
            self._queue.popitem(last=False)
            sequence.prompt.waiting -= 1
            rows.append(sequence)
            self._params = None
        return first

    def _sample(self, first: int, logits_BV: Tensor) -> Tensor:
        """Draw and record the next token of rows `first` and up. Returns bool [B - first]: was it one that ends its row?"""
        if self._params is None or first:
            self._params = RowParams.of(
                [s.params for s in self._rows.sequences[first:]], self.tokenizer.eos_ids, self._runner.device
            )
        token_B, logprob_B = draw(logits_BV, self._params, self._rows.uniforms(first))
        if not bool(torch.isfinite(logprob_B).all()):
            self._abandon()
            raise ModelError(
                f"The model's logits are not finite (weights version {self.weights_version}): the weights are broken; go back to an earlier checkpoint."
            )
        self._rows.record(first, token_B, logprob_B)
        stops_B = self._params.stops(token_B)
        if first:
            self._params = None
        return stops_B

    def _finish(self, first: int, stops_B: Tensor) -> None:
        """End the rows, from `first` on, whose newest token ends them, completes a stop string, or is the last one allowed."""
        rows, B = self._rows, len(self._rows)
        stops = stops_B.cpu().numpy()
        for row in rows.with_strings(first):
            if not stops[row - first]:
                text = rows.sequences[row].stopped_text(rows.tokens(row), self.tokenizer)
                if text is not None:
                    self._end(row, "stop", text)
        over = rows.live_R[first:B] & (stops | (rows.made_R[first:B] >= rows.limit_R[first:B]))
        for row in (over.nonzero()[0] + first).tolist():
            self._end(row, "stop" if stops[row - first] else "length")

    def _end(self, row: int, stop: StopReason, text: str | None = None) -> None:
        """Turn a running row into a sample; the row is dead from here on."""
        sequence, tokens = self._rows.sequences[row], self._rows.tokens(row)
        if text is None:
            text = self.tokenizer.decode(tokens[:-1] if stop == "stop" else tokens)
        self._ended.append(self._make(sequence, tokens, self._rows.logprobs(row), text, stop))
        self._rows.live_R[row] = False

    def _make(
        self, sequence: seq.Sequence, tokens: list[int], logprobs: list[float], text: str, stop: StopReason
    ) -> Sample:
        prompt = sequence.prompt.tokens
        usage = Usage(
            prompt_tokens=len(prompt),
            cached_tokens=len(prompt) if sequence.shared else 0,
            completion_tokens=len(tokens),
            seconds=time.monotonic() - sequence.submitted,
            flops=sequence.flops(self.arch, len(tokens)),
        )
        return Sample(sequence.id, prompt, tuple(tokens), text, tuple(logprobs), stop, self.weights_version, usage)

    def _abandon(self) -> None:
        """Drop every request, and the cache with what the broken weights left in it."""
        self._queue.clear()
        self._rows.live_R[:] = False
        self._rows.compact()
        self._cache.clear()
        self._prompts.clear()
        self._params = None
