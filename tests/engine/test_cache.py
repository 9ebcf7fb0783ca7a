"""The rectangle of keys and values: growth keeps what is stored, copies are exact, the limit holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.engine.cache import CHUNK, Cache

ARCH = Arch(16, 8, 8, layers=2, heads=2, kv_heads=2, head_dim=4, max_positions=1000)


def made(limit: int = 10_000) -> Cache:
    return Cache(ARCH, limit, torch.float32, torch.device("cpu"))


def test_growth_keeps_and_clears() -> None:
    cache = made()
    assert cache.nbytes == 0
    cache.fit(3, 5)
    assert (cache.rows, cache.positions) == (4, CHUNK)
    keys = torch.randn(2, 2, 5, 4)
    cache.filling(torch.tensor([2, 0])).extend(1, keys, keys + 1)
    cache.fit(9, CHUNK + 1)
    assert (cache.rows, cache.positions) == (16, 2 * CHUNK)
    assert torch.equal(cache.keys[1][[2, 0], :, :5], keys)
    assert torch.equal(cache.values[1][[2, 0], :, :5], keys + 1)
    assert int((cache.keys[1] != 0).sum()) == keys.numel()
    assert cache.nbytes == 16 * 2 * CHUNK * ARCH.kv_bytes_per_token(4)
    cache.clear()
    assert cache.nbytes == 0


def test_appending_writes_each_row_at_its_own_position() -> None:
    cache = made()
    cache.fit(3, 10)
    new = torch.randn(3, 2, 1, 4)
    keys, values = cache.appending(torch.tensor([0, 4, 9]), 10).extend(0, new, -new)
    assert keys.shape == values.shape == (3, 2, 10, 4)
    for row, position in enumerate((0, 4, 9)):
        assert torch.equal(keys[row, :, position], new[row, :, 0])
        assert torch.equal(values[row, :, position], -new[row, :, 0])
    assert int((keys != 0).sum()) == new.numel()


def test_copies_read_all_before_they_write() -> None:
    cache = made()
    cache.fit(4, 8)
    before = torch.randn(4, 2, 8, 4)
    cache.filling(torch.arange(4)).extend(0, before, before)
    cache.copy(torch.tensor([0, 1]), torch.tensor([1, 3]), 6)
    assert torch.equal(cache.keys[0][1, :, :6], before[0, :, :6])
    assert torch.equal(cache.keys[0][3, :, :6], before[1, :, :6])
    assert torch.equal(cache.keys[0][3, :, 6:8], before[3, :, 6:8])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), min_size=1, max_size=8))
def test_any_sequence_of_needs_stays_within_the_limit(limit: int, needs: list[tuple[int, int]]) -> None:
    cache = made(limit)
    for rows, positions in needs:
        if rows * positions <= limit:
            cache.fit(rows, positions)
            assert cache.rows >= rows
            assert cache.positions >= positions
            assert cache.rows * cache.positions <= limit
            assert cache.keys[0].shape == (cache.rows, 2, cache.positions, 4)
