"""The pool of pages and the tree over them: what is found again, what is shared, what is given up first."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE, Node, Pages

ARCH = Arch(16, 8, 8, layers=2, heads=2, kv_heads=2, head_dim=4, max_positions=1000)
CPU = torch.device("cpu")
CELL = ARCH.kv_bytes_per_token(4)


def text(*pages: int) -> tuple[int, ...]:
    """PAGE tokens for each number."""
    return tuple(number for number in pages for _ in range(PAGE))


def store(pages: Pages, *numbers: int) -> list[Node]:
    """Put a prefix into the tree, as reading a prompt does; the caller holds the nodes."""
    nodes = pages.match((*text(*numbers), 0))
    pages.hold(nodes)
    for number in numbers[len(nodes) :]:
        if not pages.free:
            pages.resize(pages.capacity + 1)
        nodes.append(pages.link(nodes[-1] if nodes else None, pages.new(text(number))))
    return nodes


def sound(pages: Pages) -> bool:
    return list(pages.complaints()) == []


def test_a_prefix_is_found_page_by_page_and_never_the_last_token() -> None:
    pages = Pages(ARCH, torch.float32, CPU)
    nodes = store(pages, 1, 2, 3)
    assert pages.match((*text(1, 2, 3), 9)) == nodes
    assert pages.match(text(1, 2, 3)) == nodes[:2]  # the model must read one token
    assert pages.match((*text(1, 2), 9)) == nodes[:2]
    assert pages.match((*text(1, 5), 9)) == nodes[:1]
    assert pages.match((*text(2), 9)) == []
    assert sound(pages)


def test_equal_pages_are_stored_once() -> None:
    pages = Pages(ARCH, torch.float32, CPU)
    pages.resize(3)
    first, second = pages.new(text(1)), pages.new(text(1))
    assert pages.link(None, first) is first
    assert pages.link(None, second) is first
    assert (pages.used, first.holders) == (1, 2)
    assert sound(pages)


def test_the_page_unused_for_longest_goes_first_and_children_before_parents() -> None:
    pages = Pages(ARCH, torch.float32, CPU)
    old, young = store(pages, 1, 2), store(pages, 3, 4)
    held = store(pages, 1, 5)
    for nodes in (old, young):
        pages.release(nodes)
    pages.match((*text(1, 2), 0))  # makes 1, 2 the younger
    pages.evict(1)
    assert pages.match((*text(3, 4), 0)) == young[:1]
    pages.evict(100)
    assert sorted(pages.nodes.values(), key=lambda n: n.depth) == held
    assert sound(pages)
    pages.release(held)
    pages.clear()
    assert (pages.capacity, pages.used) == (0, 0)


def test_pages_keep_their_content_when_they_move() -> None:
    pages = Pages(ARCH, torch.float32, CPU)
    nodes = store(pages, 1, 2, 3)
    for stored in (*pages.keys, *pages.values):
        stored.normal_()
    kept = pages.keys[1][:, pages.slots([n.page for n in nodes[:2]])].clone()
    pages.release(nodes[2:])
    pages.evict(1)
    for capacity in (9, 2):
        pages.resize(capacity)
        assert torch.equal(pages.keys[1][:, pages.slots([n.page for n in nodes[:2]])], kept)
        assert sound(pages)
    assert pages.free == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_free_and_used_pages_are_all_pages_and_the_limit_holds(data: st.DataObject) -> None:
    memory = Memory(ARCH, torch.float32, CPU, data.draw(st.integers(70, 900)) * CELL)
    pages, held, rows = memory.pages, list[list[Node]](), 0
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["store", "store", "loose", "release", "rows", "clear"]))
        if action in ("store", "loose"):
            numbers = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4))
            nodes = pages.match((*text(*numbers), 0)) if action == "store" else []
            pages.hold(nodes)
            new = numbers[len(nodes) :]
            if memory.arrange(len(new), rows, min(rows, 1), 1):
                for number in new:
                    node = pages.new(text(number))
                    nodes.append(pages.link(nodes[-1] if nodes else None, node) if action == "store" else node)
                held.append(nodes)
            else:
                assert (pages.held + len(new)) * PAGE + rows > memory.limit - PAGE
                pages.release(nodes)
        elif action == "release" and held:
            pages.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        elif action == "rows":
            wanted, positions = data.draw(st.integers(0, 8)), data.draw(st.integers(1, 60))
            fits = pages.held * PAGE + wanted * positions <= memory.limit
            assert memory.arrange(0, wanted, positions, 2 * positions) >= (
                pages.held <= (memory.limit - wanted * positions) // PAGE
            )
            rows = wanted if fits else 0
        elif action == "clear":
            memory.clear()
            rows = 0
        assert pages.used + pages.free == pages.capacity
        assert pages.held == len({node for nodes in held for node in nodes})
        assert memory.cells <= memory.limit
        assert sound(pages)


def test_the_limit_is_a_share_of_free_memory_by_default() -> None:
    memory = Memory(ARCH, torch.float32, CPU, None)
    assert memory.limit * CELL > 1 << 20
    with pytest.raises(
        RequestError, match=r"max_kv_bytes allows 65 tokens, an engine for this model needs 66 at least: 8,448 bytes"
    ):
        Memory(ARCH, torch.float32, CPU, 65 * CELL)
