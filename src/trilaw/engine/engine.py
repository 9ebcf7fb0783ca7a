"""The local sampler: continuous batching, so that requests enter and leave while others run.

    step: make room -> choose what to read -> one forward pass -> sample and finish -> admit, sample, finish

After Orca (Yu et al. 2022): the batch is made up anew at every step. Prompts are read in pieces beside the running rows, stored once
in `pages` and shared by all requests that begin alike; what a row samples lies in `tails`. Rows are a table, so a step costs the same
Python for one row as for hundreds. `scheduler` says who runs and who waits.

A sample depends on its prompt, parameters and seed, not on the batch it ran in (up to the rounding of matrix products, whose kernels
vary with the number of rows).

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trilaw.core.errors import ModelError, RequestError, nearest
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import Request, Sample, StopReason, Usage
from trilaw.engine import requests as door
from trilaw.engine import sequence as seq
from trilaw.engine.pages import PAGE
from trilaw.engine.runner import QUANTIZATIONS, Runner
from trilaw.engine.sampling import RowParams, draw
from trilaw.engine.scheduler import Scheduler
from trilaw.model.llama import CausalLM

_IDLE_BYTES = 256 << 20  # a larger cache is given back when nothing runs, so that training has the memory


class Engine:
    """Samples from a model in this process; meets `core.protocols.Sampler`. Not thread-safe: one thread drives it."""

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 512,
        max_kv_bytes: int | None = None,
        dtype: torch.dtype | None = None,
        quantization: str | None = None,
        weights_version: int = 0,
        keep_samples: bool = False,
        consume: bool = False,
    ) -> None:
        """max_batch: rows that run at once. max_kv_bytes: the most that keys and values may take (default: 40 % of the memory that is
        free when the engine is made; taken as needed). dtype: of products and cache, None: the model's own. Weights may be copied (packed, or in
        another format), so what trains them calls `load_weights` after each update. consume: the model is not needed elsewhere, so its weights
        may go as they are packed. quantization: "int8" samples from an 8-bit copy
        (`model.int8`), faster on a CPU and a little off the model: log-probabilities are those of the copy. keep_samples: what ended samples computed stays in the
        cache until its room is needed, so that `fork` can go on from them, and later prompts that begin with them are read faster.

        Raises RequestError for a limit that lets nothing run or an unknown or contradicting format, ModelError where the device has no 8-bit products.
        """
        if max_batch < 1:
            raise RequestError(f"max_batch is {max_batch}, it must be at least 1.")
        if quantization not in (None, *QUANTIZATIONS):
            raise RequestError(f"There is no quantization '{quantization}'{nearest(quantization, QUANTIZATIONS)}.")
        if quantization and dtype not in (None, torch.float32):
            raise RequestError(
                f"dtype {dtype} and quantization '{quantization}' contradict each other; give one of them."
            )
        self.arch = model.arch
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.weights_version = weights_version
        self.keep_samples = keep_samples
        self._runner = Runner(model, dtype, quantization, max_kv_bytes, consume)
        self._memory = self._runner.memory
        self._scheduler = Scheduler(self._runner, max_batch)
        self._rows, self._queue = self._scheduler.rows, self._scheduler.queue
        self._params: RowParams | None = None  # of all rows, as they were after so many changes:
        self._params_of = -1
        self._ended: list[Sample] = []  # what the next step hands out
        self._submitted = 0

    @property
    def max_kv_bytes(self) -> int:
        """The most that keys and values may take."""
        return self._memory.limit * self._memory.bytes_per_cell

    @property
    def pending(self) -> int:
        """Requests queued or running, and cancelled ones that no step has handed out yet."""
        return len(self._queue) + self._rows.live + len(self._ended)

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests, all or none.

        Raises RequestError for a used id, a parameter out of range or contradicting another, an empty prompt, a token outside the
        vocabulary, a prompt that fills the context, or more tokens than `max_kv_bytes` can ever hold. A sample ends where the context does, whatever
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
                prompt = prompts.get(id(request.prompt)) or self._scheduler.prompt(
                    door.tokenize(request, self.tokenizer)
                )
                room = door.room(prompt.tokens, request.params.max_tokens, self.arch, self._memory)
            except RequestError as error:
                if len(requests) == 1:
                    raise
                raise RequestError(f"Request '{request.id}': {error}") from None
            prompts[id(request.prompt)] = prompt
            params = request.params if room == request.params.max_tokens else replace(request.params, max_tokens=room)
            accepted.append(
                seq.Sequence(request.id, prompt, params, request.seed, now, self._submitted + len(accepted))
            )
        self._submitted += len(accepted)
        for sequence in accepted:
            self._scheduler.add(sequence)

    def fork(self, source: str | Sample, at_token: int, requests: Sequence[Request]) -> None:
        """Go on from the first `at_token` tokens of a sample, once for each request: submits them with the sample's prompt and these
        tokens in front of their own prompt, which is token ids or raw text, and may be empty.

        source: the id of a request that is queued or running, which goes on undisturbed, or a sample that ended (see `keep_samples`).
        Nothing stored is computed again except what fills no page; what is no longer stored is read like any prompt.
        Raises RequestError like `submit`, for an unknown id, and for an `at_token` that the sample does not have.
        """
        row = None
        if isinstance(source, Sample):
            prompt, tokens = source.prompt_tokens, source.tokens
        else:
            row, sequence = self._find(source)
            prompt = sequence.prompt.tokens
            tokens = tuple(sequence.tokens if row is None else self._rows.tokens(row))
        if not 0 <= at_token <= len(tokens):
            raise RequestError(f"at_token is {at_token}, and the sample has {len(tokens)} tokens.")
        start = (*prompt, *tokens[:at_token])
        forks = [replace(r, prompt=(*start, *door.continuation(r, self.tokenizer))) for r in requests]
        if row is not None:
            self._runner.freeze(self._rows, row, len(start))
        self.submit(forks)

    def step(self) -> list[Sample]:
        """Make one token for every row, read a piece of the prompts that wait, and let in those that are read; the samples that ended.

        Raises ModelError if the logits are not finite; all requests are dropped then.
        """
        with torch.inference_mode():
            self._scheduler.make_room()
            reading = self._scheduler.choose()
            if self._rows.live or reading:
                decoded_BV = self._runner.forward(self._rows, reading)
                if self._rows.live:
                    self._finish(0, self._sample(0, decoded_BV))
            first, logits_BV = self._scheduler.admit()
            if logits_BV is not None:
                self._finish(first, self._sample(first, logits_BV))
            if not self._rows.live:
                self._rest()
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, ids: Sequence[str]) -> None:
        """End these requests; the next step hands them out with the tokens that they had. Ids that have ended are passed over."""
        running = {sequence.id: row for row, sequence in self._running().items()}
        for id in dict.fromkeys(ids):
            if id in self._queue:
                sequence = self._queue.pop(id)
                self._scheduler.leave(sequence)
                text = self.tokenizer.decode(sequence.tokens)
                self._ended.append(self._make(sequence, sequence.tokens, sequence.logprobs, text, "cancelled"))
            elif id in running:
                self._end(running[id], "cancelled")

    def partial(self, request_id: str) -> str:
        """The text so far, without half characters or what may become a stop string: a later text only adds to it.

        Raises RequestError for an id that is neither queued nor running.
        """
        row, sequence = self._find(request_id)
        tokens = sequence.tokens if row is None else self._rows.tokens(row)
        return seq.settled(self.tokenizer.decode(tokens), sequence.params.stop)

    def load_weights(self, model: CausalLM, version: int) -> None:
        """Sample from these weights from now on, as `version`; nothing computed with the old ones is used again.

        Raises RequestError while requests are queued or running, ModelError if the architecture is another.
        """
        if self._queue or self._rows.live:
            raise RequestError(
                f"The weights cannot change while {self.pending} requests are pending; finish or cancel them first."
            )
        self._scheduler.compact()  # rows that were cancelled let go of their pages
        self._runner.load(model)
        self.weights_version = version

    def check_integrity(self) -> None:
        """Raises AssertionError if the books of queue, rows and cache do not agree."""
        rows, queued = self._rows, list(self._queue.values())
        B, running = len(rows), list(self._running().values())
        waiting = dict.fromkeys(self._scheduler.prompts.values(), 0)
        for sequence in queued:
            waiting[sequence.source] += 1
        holders = Counter(node for prompt in waiting for node in prompt.nodes)
        holders.update(node for sequence in rows.sequences for node in sequence.nodes)
        ids = [s.id for s in (*queued, *running)] + [s.request_id for s in self._ended]
        finished = rows.made_R[:B] >= rows.limit_R[:B]
        tails = self._memory.tails
        for holds, complaint in (
            (self.max_batch >= B, "more rows than max_batch"),
            (not rows.live_R[B:].any(), "a row beyond the batch is marked as running"),
            (len(set(ids)) == len(ids) == self.pending, "a request is held twice, or not counted"),
            (self._memory.cells <= self._memory.limit, "the cache exceeds its limit"),
            (B == 0 or tails.rows >= B, "the cache lacks rows"),
            (B == 0 or tails.positions >= rows.places().max(), "the cache lacks positions"),
            (all(len(s.nodes) * PAGE == rows.base_R[i] for i, s in enumerate(rows.sequences)), "a row lacks pages"),
            (not (rows.live_R[:B] & finished).any(), "a row runs past max_tokens"),
            (not (rows.live_R[:B] & (rows.made_R[:B] < 1)).any(), "a running row has no token"),
            (all(p.waiting == n for p, n in waiting.items()), "a prompt miscounts the requests that wait for it"),
            (
                all(p.waiting or (p.logits_V is None and not p.nodes) for p in waiting),
                "a prompt is kept that nobody waits for",
            ),
            (all(n.holders == holders[n] for n in self._memory.pages.nodes.values()), "a page miscounts its holders"),
            *((False, complaint) for complaint in self._memory.pages.complaints()),
        ):
            if not holds:
                raise AssertionError(f"engine integrity: {complaint}")

    def _running(self) -> dict[int, seq.Sequence]:
        return {row: s for row, s in enumerate(self._rows.sequences) if self._rows.live_R[row]}

    def _find(self, request_id: str) -> tuple[int | None, seq.Sequence]:
        """The row of a request (None while it is queued) and the request. Raises RequestError for an unknown id."""
        if request_id in self._queue:
            return None, self._queue[request_id]
        for row, sequence in self._running().items():
            if sequence.id == request_id:
                return row, sequence
        known = (*self._queue, *(s.id for s in self._running().values()))
        raise RequestError(f"No request '{request_id}' is queued or running{nearest(request_id, known)}.")

    def _sample(self, first: int, logits_BV: Tensor) -> Tensor:
        """Draw and record the next token of rows `first` and up. Returns bool [B - first]: was it one that ends its row?"""
        if first or self._params is None or self._params_of != self._rows.changes:
            params = [sequence.params for sequence in self._rows.sequences[first:]]
            self._params = RowParams.of(params, self.tokenizer.eos_ids, self._runner.device)
            self._params_of = self._rows.changes
        token_B, logprob_B = draw(logits_BV, self._params, self._rows.uniforms(first))
        if not bool(torch.isfinite(logprob_B).all()):
            self._abandon()
            raise ModelError(
                f"The model's logits are not finite (weights version {self.weights_version}): the weights are broken; go back to an earlier checkpoint."
            )
        self._rows.record(first, token_B, logprob_B)
        stops_B = self._params.stops(token_B)
        if first:  # these are not the parameters of all rows
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
        if self.keep_samples:
            self._runner.freeze(self._rows, row, len(sequence.prompt.tokens) + len(tokens))
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
            cached_tokens=0 if sequence.fresh is None else len(prompt) - sequence.fresh,
            completion_tokens=len(tokens),
            seconds=time.monotonic() - sequence.submitted,
            flops=sequence.flops + sequence.decoded(self.arch, len(tokens)),
        )
        return Sample(sequence.id, prompt, tuple(tokens), text, tuple(logprobs), stop, self.weights_version, usage)

    def _rest(self) -> None:
        """Nothing runs: rows let go of their pages, and a large cache is given back if nothing waits either."""
        self._scheduler.compact()
        if not self._queue and self._memory.nbytes > _IDLE_BYTES:
            self._memory.clear()

    def _abandon(self) -> None:
        """Drop every request, and the cache with what the broken weights left in it."""
        while self._queue:
            self._scheduler.leave(self._queue.popitem()[1])
        self._rows.live_R[:] = False
        self._scheduler.compact()
        self._memory.clear()
