"""Who gets the cache's memory: `pages` (prompts, shared) and `tails` (rows) under one limit, counted in cells.

A cell holds one token's keys and values of all layers. Both sides take what they need; pages that nobody holds are what gives way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.engine.pages import PAGE, Node, Pages
from trilaw.engine.tails import Tails
from trilaw.model.memory import free_bytes

_SHARE = 0.4  # of free memory, the default limit
_KEPT = 0.25  # of the limit: the pool grows this far before pages that nobody holds are given up


class Memory:
    def __init__(self, arch: Arch, dtype: torch.dtype, device: torch.device, max_kv_bytes: int | None) -> None:
        """max_kv_bytes None: 40 % of the memory that is free now. Raises RequestError for a limit below two pages."""
        self.bytes_per_cell = arch.kv_bytes_per_token(dtype.itemsize)
        self.limit = (int(_SHARE * free_bytes(device)) if max_kv_bytes is None else max_kv_bytes) // self.bytes_per_cell
        if self.limit < 2 * PAGE + 2:
            raise RequestError(
                f"max_kv_bytes allows {self.limit} tokens, an engine for this model needs {2 * PAGE + 2} at least: "
                f"{(2 * PAGE + 2) * self.bytes_per_cell:,} bytes."
            )
        self.pages = Pages(arch, dtype, device)
        self.tails = Tails(arch, dtype, device)
        self.device, self.dtype = device, dtype

    @property
    def cells(self) -> int:
        """Allocated."""
        return self.pages.capacity * PAGE + self.tails.cells

    @property
    def nbytes(self) -> int:
        return self.cells * self.bytes_per_cell

    @staticmethod
    def need(tokens: int) -> int:
        """The most cells that a request of so many tokens, new ones included, can take when it is alone: its pages are counted up to
        whole ones, and the end of its prompt stands in both places for a moment."""
        return tokens + 2 * PAGE

    def arrange(self, pages: int, rows: int, positions: int, longest: int) -> bool:
        """Make room for so many new pages beside the held ones, and for rows x positions of tails; False if the limit forbids it.

        Pages that nobody holds are evicted where need be, so hold what `match` found before. Pages may move.
        """
        pool, tails = self.pages, self.tails
        fits = rows <= tails.rows and positions <= tails.positions
        if fits and pages <= pool.free:
            return True
        held, most = pool.held, (self.limit - rows * positions) // PAGE
        if held + pages > most:
            return False
        kept = min(max(pool.capacity, int(_KEPT * self.limit) // PAGE), most)  # the pool's size while nothing else asks
        pool.evict(pool.used + pages - max(held + pages, kept))
        if pool.capacity > most:
            pool.resize(most)
        wanted = pool.used + pages
        if wanted > pool.capacity:
            tails.fit(rows, positions, longest, self.limit - wanted * PAGE)
            roomy = (self.limit - tails.cells) // PAGE
            pool.resize(max(wanted, min(max(2 * pool.capacity, 8), kept, roomy)))
        else:
            tails.fit(rows, positions, longest, self.limit - pool.capacity * PAGE)
        return True

    def fill(self, rows: Sequence[int], sources: Sequence[Sequence[Node]]) -> None:
        """Copy pages to the beginning of each row's tail, one list a row; the tails must have the room."""
        width = max(map(len, sources), default=0)
        if width == 0:
            return
        span = min(width * PAGE, self.tails.positions)
        slots_RS = self.pages.slots(
            [
                (nodes[i].page if i < len(nodes) else nodes[-1].page if nodes else 0)
                for nodes in sources
                for i in range(width)
            ]
        ).view(len(rows), -1)[:, :span]
        row_R = torch.tensor(rows, device=self.device)
        for pool, tails in zip((self.pages.keys, self.pages.values), (self.tails.keys, self.tails.values), strict=True):
            for stored, tail in zip(pool, tails, strict=True):
                tail[row_R, :, :span] = stored[:, slots_RS].transpose(0, 1)

    def freeze(self, row: int, start: int, nodes: Sequence[Node]) -> None:
        """Copy a row's tail, from its place `start` on, into these pages."""
        slots_N = self.pages.slots([node.page for node in nodes])
        span = slice(start, start + len(slots_N))
        for pool, tails in zip((self.pages.keys, self.pages.values), (self.tails.keys, self.tails.values), strict=True):
            for stored, tail in zip(pool, tails, strict=True):
                stored[:, slots_N] = tail[row, :, span]

    def clear(self) -> None:
        """Forget all that nobody holds and give the memory back; no row may be running."""
        self.tails.clear()
        self.pages.clear()
