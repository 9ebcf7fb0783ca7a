"""Keys and values of prompts: pages of `PAGE` tokens, each stored once, counted by its users, and found again by its tokens.

Full pages form a tree (a trie whose letters are pages; RadixAttention, Zheng et al. 2023, arXiv:2312.07104, has the same with edges of
any length): the path from the root spells a prefix, and a later prompt that begins with it reads only the rest. A page that nobody
holds stays in the tree until its room is needed; the one not used for longest goes first, children before parents. Pages are never
written after they are full; a page that is only partly filled belongs to one prompt, stands outside the tree, and rows copy it.

Departure from PagedAttention (Kwon et al. 2023, arXiv:2309.06180): what a row samples itself lies in `tails`, not in pages.

Shapes: P pages, K key-value heads, E head size; a slot is page x PAGE + place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trilaw.core.arch import Arch

PAGE = 32  # tokens


@dataclass(eq=False)
class Node:
    """One page in use."""

    tokens: tuple[int, ...]
    page: int
    parent: Node | None = None  # None too for a page outside the tree
    depth: int = 0  # 1 for a prompt's first page; 0 outside the tree
    holders: int = 0  # prompts and rows that need it
    used: int = 0  # clock of the last use
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)


class Pages:
    """The pool and its books. Who makes nodes sees to it that the pool has room (`memory.Memory`)."""

    def __init__(self, arch: Arch, dtype: torch.dtype, device: torch.device) -> None:
        self._arch, self._dtype, self._device = arch, dtype, device
        self._root = Node((), -1)
        self._clock = 0
        self.capacity = 0
        self.changes = 0  # how often pages moved
        self.nodes: dict[int, Node] = {}  # by page
        self._free: list[int] = []
        self.keys: list[Tensor] = []  # a layer each, [K, P x PAGE, E]
        self.values: list[Tensor] = []
        self.resize(0)

    @property
    def used(self) -> int:
        return len(self.nodes)

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def held(self) -> int:
        """Pages that cannot be evicted."""
        return sum(node.holders > 0 for node in self.nodes.values())

    def match(self, tokens: Sequence[int]) -> list[Node]:
        """The full pages stored for the beginning of `tokens`, short of the last token: the model must still read that one."""
        self._clock += 1
        found: list[Node] = []
        node = self._root
        for start in range(0, len(tokens) - PAGE, PAGE):
            following = node.children.get(tuple(tokens[start : start + PAGE]))
            if following is None:
                break
            following.used = self._clock
            found.append(following)
            node = following
        return found

    def new(self, tokens: Sequence[int]) -> Node:
        """A page outside the tree, held by the caller; its content is not set."""
        page = self._free.pop()
        node = self.nodes[page] = Node(tuple(tokens), page, holders=1)
        return node

    def link(self, parent: Node | None, node: Node) -> Node:
        """Put a full page into the tree after `parent` (None: at the root). Returns the page to use from now on, held in its place:
        an equal one that was there already, in which case `node` is given back."""
        parent = parent or self._root
        there = parent.children.get(node.tokens)
        if there is not None:
            self.hold([there])
            self.release([node])
            return there
        node.parent, node.depth = parent, parent.depth + 1
        node.used = parent.used if node.depth > 1 else self._clock  # never later than its parent: `evict` counts on it
        parent.children[node.tokens] = node
        return node

    def hold(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            node.holders += 1

    def release(self, nodes: Sequence[Node]) -> None:
        """Full pages stay in the tree; those outside it are free at once when nobody holds them."""
        for node in nodes:
            node.holders -= 1
            if node.holders == 0 and node.depth == 0:
                self._drop(node)

    def evict(self, count: int) -> None:
        """Free the `count` pages not used for longest among those that nobody holds."""
        if count <= 0:
            return
        idle = [node for node in self.nodes.values() if node.holders == 0]
        for node in sorted(idle, key=lambda n: (n.used, -n.depth))[:count]:
            self._drop(node)

    def resize(self, capacity: int) -> None:
        """Have `capacity` pages, no fewer than are in use; pages move to the front when the pool shrinks."""
        capacity = max(capacity, self.used)
        self.changes += 1
        order = sorted(self.nodes)
        source_N = self.slots(order)
        shape = (self._arch.kv_heads, capacity * PAGE, self._arch.head_dim)
        for stored in (self.keys, self.values):
            for layer in range(self._arch.layers):
                pool = torch.zeros(shape, dtype=self._dtype, device=self._device)
                if order:
                    pool[:, : len(source_N)] = stored[layer][:, source_N]
                if layer < len(stored):
                    stored[layer] = pool
                else:
                    stored.append(pool)
        self.nodes = {place: self.nodes[page] for place, page in enumerate(order)}
        for place, node in self.nodes.items():
            node.page = place
        self.capacity = capacity
        self._free = list(range(capacity - 1, len(order) - 1, -1))

    def clear(self) -> None:
        """Forget all that nobody holds, and give the memory back if that is all."""
        self.evict(self.used)
        if not self.nodes:
            self.resize(0)

    def slots(self, pages: Sequence[int]) -> Tensor:
        """int64 [len(pages) x PAGE]: the slots of these pages, in order."""
        page_N = torch.tensor(pages, dtype=torch.int64, device=self._device)
        return (page_N[:, None] * PAGE + torch.arange(PAGE, device=self._device)).flatten()

    def complaints(self) -> Iterator[str]:
        """What is wrong with the books."""
        if self.used + self.free != self.capacity or {*self.nodes, *self._free} != set(range(self.capacity)):
            yield "pages free and pages used are not all pages"
        reached: dict[int, Node] = {}
        stack = [*self._root.children.values()]
        while stack:
            node = stack.pop()
            reached[node.page] = node
            stack.extend(node.children.values())
            if any(child.parent is not node or child.depth != node.depth + 1 for child in node.children.values()):
                yield "the tree of pages is broken"
            if node.holders == 0 and any(child.holders for child in node.children.values()):
                yield "a page is held and its parent is not"
        for page, node in self.nodes.items():
            if node.page != page or (node.depth > 0) != (reached.get(page) is node):
                yield "a page is not where the tree has it"
            if node.holders < (node.depth == 0):
                yield "a page is used by nobody"

    def _drop(self, node: Node) -> None:
        if node.parent is not None:
            del node.parent.children[node.tokens]
            node.parent = None
        del self.nodes[node.page]
        self._free.append(node.page)
