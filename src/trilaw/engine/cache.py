"""Keys and values of the running rows: a rectangle [rows, positions] a layer, always dense, that grows and shrinks with need.

Row i of the batch is row i of the cache. A pass through the model sees the cache by one of two views, each with the `extend` that
the model calls once a layer: `filling` takes whole prompts, `appending` one token a row.

Unused places are zero or hold finite numbers of the past, never garbage: attention gives them weight 0, and 0 times NaN is NaN.

Shapes: R rows allocated, B rows in use, K key-value heads, S positions, E head size, T tokens of the longest prompt, P prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.core.arch import Arch

CHUNK = 64  # positions are allocated in multiples of this


class Cache:
    """At most `limit` cells (rows x positions); a cell holds one token's keys and values of all layers."""

    def __init__(self, arch: Arch, limit: int, dtype: torch.dtype, device: torch.device) -> None:
        self.limit = limit
        self.rows = 0
        self.positions = 0
        self._arch, self._dtype, self._device = arch, dtype, device
        self.keys: list[Tensor] = []  # a layer each, [R, K, S, E]
        self.values: list[Tensor] = []
        self.clear()

    @property
    def nbytes(self) -> int:
        return self.rows * self.positions * self._arch.kv_bytes_per_token(self._dtype.itemsize)

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self.rows = self.positions = 0
        empty = torch.zeros(0, self._arch.kv_heads, 0, self._arch.head_dim, dtype=self._dtype, device=self._device)
        self.keys = [empty] * self._arch.layers
        self.values = [empty] * self._arch.layers

    def fit(self, rows: int, positions: int) -> None:
        """Have room for so many; what is stored in the first rows and positions stays. rows x positions must be within the limit."""
        if rows <= self.rows and positions <= self.positions:
            return
        R = max(self.rows, 1 << (rows - 1).bit_length())
        S = max(self.positions, -(-positions // CHUNK) * CHUNK)
        if self.limit < R * S:  # the rectangle cannot keep both sides: as long as need be, and spare rows if they fit
            S = min(-(-positions // CHUNK) * CHUNK, self.limit // rows)
            R = max(rows, min(1 << (rows - 1).bit_length(), self.limit // S))
        shape = (R, self._arch.kv_heads, S, self._arch.head_dim)
        kept, span = min(R, self.rows), min(S, self.positions)
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):  # one layer at a time: the peak is one layer's copy
                stored[layer] = torch.zeros(shape, dtype=self._dtype, device=self._device)
                stored[layer][:kept, :, :span] = old[:kept, :, :span]
        self.rows, self.positions = R, S

    def copy(self, source_B: Tensor, target_B: Tensor, span: int) -> None:
        """The first `span` positions of the source rows into the target rows (all are read before any is written)."""
        for stored in (*self.keys, *self.values):
            stored[target_B, :, :span] = stored[source_B, :, :span]

    def filling(self, row_P: Tensor) -> Filling:
        return Filling(self, row_P)

    def appending(self, position_B: Tensor, span: int) -> Appending:
        rows = len(position_B)
        return Appending(self, torch.arange(rows, device=position_B.device), position_B, rows, span)


@dataclass(frozen=True)
class Filling:
    """The pass over prompts: row p of the batch goes to row_P[p] of the cache, from position 0; queries see the prompt alone."""

    cache: Cache
    row_P: Tensor

    def extend(self, layer: int, k_PKTE: Tensor, v_PKTE: Tensor) -> tuple[Tensor, Tensor]:
        T = k_PKTE.shape[2]
        self.cache.keys[layer][self.row_P, :, :T] = k_PKTE
        self.cache.values[layer][self.row_P, :, :T] = v_PKTE
        return k_PKTE, v_PKTE


@dataclass(frozen=True)
class Appending:
    """The decoding pass: one token a row at its own position; queries see the first `span` positions."""

    cache: Cache
    row_B: Tensor
    position_B: Tensor
    rows: int
    span: int

    def extend(self, layer: int, k_BK1E: Tensor, v_BK1E: Tensor) -> tuple[Tensor, Tensor]:
        k_RKSE, v_RKSE = self.cache.keys[layer], self.cache.values[layer]
        k_RKSE[self.row_B, :, self.position_B] = k_BK1E[:, :, 0]
        v_RKSE[self.row_B, :, self.position_B] = v_BK1E[:, :, 0]
        return k_RKSE[: self.rows, :, : self.span], v_RKSE[: self.rows, :, : self.span]
