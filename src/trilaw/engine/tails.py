"""Keys and values that belong to one row: what it sampled, and the end of its prompt that fills no page. A rectangle
[rows, positions] a layer, always dense, that grows and shrinks with need.

Row i of the batch is row i of the rectangle; its place 0 holds the token after the row's shared prefix. Why not pages here as well: a
decoding step must see each row's keys side by side, so pages would be gathered anew at every step. A copy of all tails costs about as
much as the attention over them (both read them once), and tails are the larger part of the cache when groups share their prompts.
The rectangle's price is that every row takes the room of the longest.

Unused places are zero or hold finite numbers of the past, never garbage: attention gives them weight 0, and 0 times NaN is NaN.

Shapes: R rows allocated, K key-value heads, S positions allocated, E head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trilaw.core.arch import Arch

CHUNK = 64  # positions are allocated in multiples of this


class Tails:
    def __init__(self, arch: Arch, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = 0
        self.positions = 0
        self._arch, self._dtype, self._device = arch, dtype, device
        self.keys: list[Tensor] = []  # a layer each, [R, K, S, E]
        self.values: list[Tensor] = []
        self.clear()

    @property
    def cells(self) -> int:
        return self.rows * self.positions

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self.rows = self.positions = 0
        empty = torch.zeros(0, self._arch.kv_heads, 0, self._arch.head_dim, dtype=self._dtype, device=self._device)
        self.keys = [empty] * self._arch.layers
        self.values = [empty] * self._arch.layers

    def fit(self, rows: int, positions: int, longest: int, limit: int) -> None:
        """Have room for so many rows and positions in at most `limit` cells; what is stored in the first of both stays.
        positions is 1 at least if there are rows.

        longest: the most positions that a row may come to need; a rectangle that must grow anyway grows towards it.
        """
        if rows <= self.rows and positions <= self.positions and self.cells <= limit:
            return
        if rows == 0:
            self.clear()
            return
        R = max(self.rows, 1 << (rows - 1).bit_length())
        S = max(self.positions, positions)
        if positions > self.positions:
            S = max(positions, min(longest, max(4 * CHUNK, self.positions + self.positions // 2)))
        S = -(-S // CHUNK) * CHUNK
        if limit < R * S:  # both sides cannot be had: positions as need be, and spare rows if they fit
            S = min(-(-positions // CHUNK) * CHUNK, limit // rows)
            R = max(rows, min(1 << (rows - 1).bit_length(), limit // S))
        shape = (R, self._arch.kv_heads, S, self._arch.head_dim)
        kept, span = min(R, self.rows), min(S, self.positions)
        for stored in (self.keys, self.values):
            for layer, old in enumerate(stored):  # one layer at a time: the peak is one layer's copy
                stored[layer] = torch.zeros(shape, dtype=self._dtype, device=self._device)
                stored[layer][:kept, :, :span] = old[:kept, :, :span]
        self.rows, self.positions = R, S

    def move(self, source_B: Tensor, target_B: Tensor, span: int) -> None:
        """The first `span` positions of the source rows into the target rows (all are read before any is written)."""
        for stored in (*self.keys, *self.values):
            stored[target_B, :, :span] = stored[source_B, :, :span]
