"""The model and its cache: one forward pass over the rows' newest tokens and pieces of prompts, and what enters and leaves the cache.

Prompts are read in pieces beside the running rows (Agrawal et al. 2023, "SARATHI", arXiv:2308.16369): one pass, one set of matrix
products over all tokens, so that a long prompt does not make the others wait.

Shapes: B rows, N tokens of a pass, P prompts that are complete, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.engine import native_rows, torch_rows
from trilaw.engine.attention import Pass, Piece
from trilaw.engine.attention import Rows as Attend
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE, Node
from trilaw.engine.rows import Rows
from trilaw.engine.sequence import Prompt
from trilaw.engine.sequence import Sequence as Order
from trilaw.model import decoding, int8
from trilaw.model.decoding import DecodingLM
from trilaw.model.llama import CausalLM
from trilaw.model.native.attention import Blocks
from trilaw.model.registry import empty

QUANTIZATIONS = ("int8",)


class Runner:
    """The model to sample from, shared with the trainer or (in another number format) a copy, and the cache that its passes fill."""

    def __init__(
        self,
        model: CausalLM,
        dtype: torch.dtype | None,
        quantization: str | None,
        max_kv_bytes: int | None,
        consume: bool = False,
    ) -> None:
        self.arch = model.arch
        self.device = model.device
        self.quantization = quantization
        self.dtype = dtype or model.dtype
        self._own: CausalLM | None = None  # a copy in another dtype, where one is held
        self.model = self._take(model, consume)
        self.dtype = self.model.dtype  # a quantized model has its own
        self.memory = Memory(self.arch, self.dtype, self.device, max_kv_bytes)
        self._pages = self.memory.pages
        self._native = decoding.supported(self.arch, self.device, self.dtype)
        self._shared: list[torch_rows.Prefixes] | Blocks = []
        self._planned = (-1, -1)  # the changes of rows and of pages that `_shared` stands for

    def load(self, model: CausalLM) -> None:
        """Use these weights, and forget all that was computed with the old ones. No row may be running.

        Raises ModelError if they have another architecture or device."""
        if _shape(model.arch) != _shape(self.arch) or model.device != self.device:
            raise ModelError("The new weights have another architecture or device; make a new Engine for them.")
        self.model = self._take(model)
        self._pages.evict(self._pages.used)

    def begin(self, prompt: Prompt) -> None:
        """Take the pages that are stored already for a prompt of which nothing is read."""
        if prompt.done == 0:
            prompt.nodes = self._pages.match(prompt.tokens)
            self._pages.hold(prompt.nodes)
            prompt.done = len(prompt.nodes) * PAGE

    def reserve(self, prompt: Prompt, count: int, rows: Rows) -> bool:
        """Get the pages for the next `count` tokens of a prompt; False if there is no memory for them."""
        first, last = len(prompt.nodes), -(-(prompt.done + count) // PAGE)
        if not self.memory.arrange(last - first, *self._extent(rows)):
            return False
        prompt.nodes += [self._pages.new(prompt.tokens[i * PAGE : (i + 1) * PAGE]) for i in range(first, last)]
        return True

    def forget(self, prompt: Prompt) -> None:
        """Give back what a prompt holds: nobody waits for it, or its pages are needed more elsewhere."""
        self._pages.release(prompt.nodes)
        prompt.nodes, prompt.done, prompt.logits_V = [], 0, None
        if not prompt.waiting:
            prompt.fresh, prompt.flops = 0, 0.0

    def fits(self, rows: Rows) -> bool:
        """Room for the newest token of every row, made if need be."""
        return self.memory.arrange(0, *self._extent(rows))

    def forward(self, rows: Rows, reading: Mapping[Prompt, int]) -> Tensor:
        """The newest token of every row and the next tokens of these prompts, for which pages are reserved, through the model.

        Returns the rows' logits [B, V]; a prompt that is complete gets its own.
        """
        B = len(rows)
        pieces = [Piece([n.page for n in p.nodes], p.done, p.done + count) for p, count in reading.items()]
        tokens_N, positions_N = rows.last_R[:B], self._tensor(rows.positions())
        if reading:
            read = [
                token for p, piece in zip(reading, pieces, strict=True) for token in p.tokens[piece.start : piece.end]
            ]
            tokens_N = torch.cat((tokens_N, torch.tensor(read, device=self.device)))
            spans = [torch.arange(piece.start, piece.end, device=self.device) for piece in pieces]
            positions_N = torch.cat((positions_N, *spans))
        cache = Pass(self.arch, self.memory, self._attend(rows), B, pieces)
        hidden_ND = self.model(tokens_N[None], positions_BT=positions_N[None], cache=cache)[0]
        self._read(reading, hidden_ND[B:])
        return self.model.logits(hidden_ND[:B])

    def admit(self, rows: Rows, orders: Sequence[tuple[Order, bool]]) -> None:
        """Rows for requests whose prompts are read: they hold the full pages (True) or copy them; the last, partly filled, is copied."""
        first, copied = len(rows), []
        for order, shares in orders:
            source = order.source
            full = len(source.tokens) // PAGE if shares else 0
            order.nodes = source.nodes[:full]
            self._pages.hold(order.nodes)
            copied.append(source.nodes[full:])
            rows.append(order, full * PAGE)
        if not self.fits(rows):
            raise AssertionError("engine: rows were let in that do not fit into the cache")
        self.memory.fill(range(first, len(rows)), copied)

    @torch.inference_mode()  # called outside of steps too, by `load_weights`
    def compact(self, rows: Rows) -> None:
        """Drop the dead rows, here and in the cache."""
        dropped, source, target = rows.compact()
        for order in dropped:
            self._pages.release(order.nodes)
            order.nodes = []
        if source:
            self.memory.tails.move(
                torch.tensor(source, device=self.device),
                torch.tensor(target, device=self.device),
                int(rows.places().max()),
            )

    @torch.inference_mode()  # called outside of steps too, by `cancel` and `fork`
    def freeze(self, rows: Rows, row: int, count: int) -> None:
        """Store the full pages among the first `count` tokens of a row (prompt included) in the tree, if there is memory for it."""
        order = rows.sequences[row]
        tokens = (*order.prompt.tokens, *rows.tokens(row))[: min(count, int(rows.positions()[row]))]
        nodes = self._pages.match((*tokens, -1))  # -1: `match` leaves the last token out
        self._pages.hold(nodes)
        known, full = len(nodes), len(tokens) // PAGE
        if full > known and self.memory.arrange(full - known, *self._extent(rows)):
            new = [self._pages.new(tokens[i * PAGE : (i + 1) * PAGE]) for i in range(known, full)]
            self.memory.freeze(row, known * PAGE - int(rows.base_R[row]), new)
            self._link(nodes, new)
        self._pages.release(nodes)

    def _read(self, reading: Mapping[Prompt, int], hidden_ND: Tensor) -> None:
        """The pieces are in the cache: full pages go into the tree, prompts that are complete get their logits."""
        complete, at, last = [], -1, []
        for prompt, count in reading.items():
            linked = prompt.done // PAGE
            start, prompt.done = prompt.done, prompt.done + count
            prompt.fresh += count
            pairs = (prompt.done * (prompt.done + 1) - start * (start + 1)) / 2
            prompt.flops += self.arch.forward_flops(count, pairs, int(prompt.done == len(prompt.tokens)))
            at += count
            nodes, rest = prompt.nodes[:linked], prompt.nodes[prompt.done // PAGE :]
            self._link(nodes, prompt.nodes[linked : prompt.done // PAGE])
            prompt.nodes = nodes + rest
            if prompt.done == len(prompt.tokens):
                complete.append(prompt)
                last.append(at)
        if complete:
            logits_PV = self.model.logits(hidden_ND[torch.tensor(last, device=self.device)])
            for prompt, logits_V in zip(complete, logits_PV, strict=True):
                prompt.logits_V = logits_V

    def _link(self, nodes: list[Node], new: Sequence[Node]) -> None:
        for node in new:
            nodes.append(self._pages.link(nodes[-1] if nodes else None, node))

    def _extent(self, rows: Rows) -> tuple[int, int, int]:
        """Rows, positions and longest tail to come, as `Memory.arrange` takes them."""
        return len(rows), int(rows.places().max(initial=-1 if len(rows) == 0 else 0)) + 1, rows.longest

    def _attend(self, rows: Rows) -> Attend:
        """The rows' attention in this pass; who shares what is worked out when rows or pages have changed."""
        places, chains = rows.places(), [order.nodes for order in rows.sequences]
        fresh = self._planned != (rows.changes, self._pages.changes)
        self._planned = (rows.changes, self._pages.changes)
        if self._native:
            if fresh or not isinstance(self._shared, Blocks):
                self._shared = native_rows.plan(chains)
            return native_rows.NativeRows(self.arch, self.memory, self._shared, places)
        if fresh or isinstance(self._shared, Blocks):
            self._shared = torch_rows.plan(chains, self.memory, self.device, self.dtype)
        span = int(places.max(initial=-1)) + 1
        return torch_rows.TorchRows(self.arch, self.memory, self._shared, self._tensor(places), span)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _take(self, model: CausalLM, consume: bool = False) -> CausalLM | DecodingLM:
        """The model to sample from: this one, or the engine's own form of it."""
        if self.quantization:
            return int8.prepare(model, consume=consume)
        if decoding.supported(self.arch, self.device, self.dtype):
            return decoding.prepare(model, self.dtype, consume=consume)
        if model.dtype == self.dtype:
            return model
        if self._own is None:
            self._own = empty(self.arch).to(self.device, self.dtype).requires_grad_(False).eval()
        self._own.load_state_dict(model.state_dict())
        return self._own


def _shape(arch: Arch) -> Arch:
    """What of an architecture the weights and their use depend on."""
    return replace(arch, bos_id=None, eos_ids=(), extra={})
