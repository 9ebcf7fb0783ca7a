"""Attention of one pass: the rows' newest tokens, by whoever is given (`torch_rows`, `native_rows`), and pieces of prompts, over the keys
and values in `memory`.

Shapes: N tokens of the pass, B rows, P pieces of prompts, T tokens of the longest piece, H query heads, K key-value heads, E head size,
S positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE
from trilaw.model.attention import attend_within


class Rows(Protocol):
    """Stores the newest keys and values of all rows in their tails, and attends."""

    def __call__(self, layer: int, q_BHE: Tensor, k_BKE: Tensor, v_BKE: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Piece:
    """Tokens start..end of a prompt, whose pages (those of 0..end) are there."""

    pages: Sequence[int]
    start: int
    end: int


@dataclass(frozen=True)
class _Batch:
    """Pieces of about one length, padded on the right."""

    token_PT: Tensor  # index into the pass; padding repeats the last one
    slot_PS: Tensor  # of the prompts' pages
    bias_P1TS: Tensor | None  # None: all begin at 0, plain causal attention
    real_M: Tensor  # what is no padding, flat over [P, T]


class Pass:
    """What a forward pass sees as its cache: tokens 0..B-1 are the rows' newest, the pieces' tokens follow one after the other."""

    def __init__(self, arch: Arch, memory: Memory, rows: Rows, count: int, pieces: Sequence[Piece]) -> None:
        """count: of the rows."""
        self._memory, self._rows, self._B = memory, rows, count
        self._kv_heads = arch.kv_heads
        slots = [memory.pages.slots(piece.pages)[piece.start : piece.end] for piece in pieces]
        self._slot_N = torch.cat(slots) if slots else None  # where the pieces' tokens go
        self._batches = list(_batches(pieces, self._B, memory))

    def attend(self, layer: int, q_1NHE: Tensor, k_1NKE: Tensor, v_1NKE: Tensor) -> Tensor:
        q_NHE, k_NKE, v_NKE, B = q_1NHE[0], k_1NKE[0], v_1NKE[0], self._B
        if self._slot_N is None:
            return self._rows(layer, q_NHE, k_NKE, v_NKE)[None]
        y_NHE = torch.empty_like(q_NHE, memory_format=torch.contiguous_format)
        if B:
            y_NHE[:B] = self._rows(layer, q_NHE[:B], k_NKE[:B], v_NKE[:B])
        keys_KNE, values_KNE = self._memory.pages.keys[layer], self._memory.pages.values[layer]
        keys_KNE[:, self._slot_N] = k_NKE[B:].transpose(0, 1)
        values_KNE[:, self._slot_N] = v_NKE[B:].transpose(0, 1)
        for batch in self._batches:
            y_NHE[batch.token_PT.flatten()[batch.real_M]] = self._piece(layer, batch, q_NHE, k_NKE, v_NKE)[batch.real_M]
        return y_NHE[None]

    def _piece(self, layer: int, batch: _Batch, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> Tensor:
        """The outputs of the tokens of a batch, padding too, flat over [P, T]."""
        q_PTHE = q_NHE[batch.token_PT]
        if batch.bias_P1TS is None:
            y_PTHE = attend_within(q_PTHE, k_NKE[batch.token_PT], v_NKE[batch.token_PT])
        else:
            pages = self._memory.pages
            y_PTHE = F.scaled_dot_product_attention(
                q_PTHE.transpose(1, 2),
                pages.keys[layer][:, batch.slot_PS].transpose(0, 1),
                pages.values[layer][:, batch.slot_PS].transpose(0, 1),
                attn_mask=batch.bias_P1TS,
                enable_gqa=q_NHE.shape[1] != self._kv_heads,
            ).transpose(1, 2)
        return y_PTHE.flatten(0, 1)


def _batches(pieces: Sequence[Piece], first: int, memory: Memory) -> Iterator[_Batch]:
    """Pieces by length, cut into batches whose padding is less than what they hold."""
    starts, at = [], first
    for piece in pieces:
        starts.append(at)
        at += piece.end - piece.start
    batch: list[int] = []
    order = sorted(range(len(pieces)), key=lambda i: pieces[i].end - pieces[i].start)
    for i in order:
        longest = pieces[i].end - pieces[i].start
        if batch and (len(batch) + 1) * longest > 2 * (longest + sum(pieces[j].end - pieces[j].start for j in batch)):
            yield _batch([pieces[j] for j in batch], [starts[j] for j in batch], memory)
            batch = []
        batch.append(i)
    if batch:
        yield _batch([pieces[j] for j in batch], [starts[j] for j in batch], memory)


def _batch(pieces: Sequence[Piece], starts: Sequence[int], memory: Memory) -> _Batch:
    device = memory.device
    lengths = [piece.end - piece.start for piece in pieces]
    T, S = max(lengths), max(piece.end for piece in pieces)
    length_P1 = torch.tensor(lengths, device=device)[:, None]
    token_PT = (
        torch.minimum(torch.arange(T, device=device), length_P1 - 1) + torch.tensor(starts, device=device)[:, None]
    )
    width = -(-S // PAGE)
    pages = [page for piece in pieces for page in (*piece.pages, *[piece.pages[0]] * width)[:width]]
    slot_PS = memory.pages.slots(pages).view(len(pieces), -1)[:, :S]
    real_M = (torch.arange(T, device=device) < length_P1).flatten().nonzero()[:, 0]
    if all(piece.start == 0 for piece in pieces):  # then S is T
        return _Batch(token_PT, slot_PS, None, real_M)
    position_PT = torch.tensor([p.start for p in pieces], device=device)[:, None] + torch.arange(T, device=device)
    after_PTS = torch.arange(S, device=device) > position_PT[:, :, None]
    bias_PTS = torch.zeros(after_PTS.shape, dtype=memory.dtype, device=device).masked_fill_(after_PTS, -torch.inf)
    return _Batch(token_PT, slot_PS, bias_PTS[:, None], real_M)
