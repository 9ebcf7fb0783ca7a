"""The rows' newest tokens by one C function a layer (`model/native/attention.c`): on a CPU, where there is a library.

A page that several rows share is read once for all of them, and a key once for all queries of its head; nothing is gathered or padded.

Shapes: B rows, H query heads, K key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE, Node
from trilaw.model.native import attention

_WIDEST = 16  # rows of a block: enough to read a page once from memory, few enough to go around among the cores


def plan(chains: Sequence[Sequence[Node]]) -> attention.Blocks:
    """Rows by their shared pages (none for an empty chain)."""
    members: dict[int, list[int]] = {}
    for row, nodes in enumerate(chains):
        members.setdefault(nodes[-1].page if nodes else -1, []).append(row)
    blocks = [rows[i : i + _WIDEST] for rows in members.values() for i in range(0, len(rows), _WIDEST)]
    pages = [[node.page for node in chains[rows[0]]] for rows in blocks]
    return attention.Blocks(blocks, pages, PAGE)


class NativeRows:
    """Attention of the rows in one pass."""

    def __init__(self, arch: Arch, memory: Memory, blocks: attention.Blocks, place_B: np.ndarray) -> None:
        """place_B: where in its tail each row's newest token goes."""
        self._pages, self._tails, self._blocks, self._place_B = memory.pages, memory.tails, blocks, place_B
        self._scale = arch.head_dim**-0.5

    def __call__(self, layer: int, q_BHE: Tensor, k_BKE: Tensor, v_BKE: Tensor) -> Tensor:
        """Store the newest keys and values, and attend: [B, H, E]."""
        pages, tails = self._pages, self._tails
        cache = (pages.keys[layer], pages.values[layer], tails.keys[layer], tails.values[layer])
        return attention.attend(q_BHE, k_BKE, v_BKE, self._blocks, self._place_B, *cache, self._scale)
