"""The rectangle of the rows' own keys and values: growth keeps what is stored, moves are exact, the limit holds."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.engine.tails import CHUNK, Tails

ARCH = Arch(16, 8, 8, layers=2, heads=2, kv_heads=2, head_dim=4, max_positions=1000)
WIDE = 1 << 20


def made() -> Tails:
    return Tails(ARCH, torch.float32, torch.device("cpu"))


def test_growth_keeps_and_clears() -> None:
    tails = made()
    assert tails.cells == 0
    tails.fit(3, 5, 5, WIDE)
    assert (tails.rows, tails.positions) == (4, CHUNK)
    keys = torch.randn(2, 2, 5, 4)
    tails.keys[1][[2, 0], :, :5] = keys
    tails.values[1][[2, 0], :, :5] = keys + 1
    tails.fit(9, CHUNK + 1, CHUNK + 1, WIDE)
    assert (tails.rows, tails.positions) == (16, 2 * CHUNK)
    assert torch.equal(tails.keys[1][[2, 0], :, :5], keys)
    assert torch.equal(tails.values[1][[2, 0], :, :5], keys + 1)
    assert int((tails.keys[1] != 0).sum()) == keys.numel()
    tails.clear()
    assert tails.cells == 0


def test_growth_goes_towards_the_longest_row_to_come() -> None:
    tails = made()
    tails.fit(1, 5, 150, WIDE)
    assert tails.positions == 3 * CHUNK
    tails.fit(1, 200, 5000, WIDE)
    assert tails.positions == 5 * CHUNK  # half as much again
    tails.fit(2, 321, 5000, 1000)
    assert (tails.rows, tails.positions) == (2, 6 * CHUNK)


def test_moves_read_all_before_they_write() -> None:
    tails = made()
    tails.fit(4, 8, 8, WIDE)
    before = torch.randn(4, 2, 8, 4)
    tails.keys[0][:4, :, :8] = before
    tails.move(torch.tensor([0, 1]), torch.tensor([1, 3]), 6)
    assert torch.equal(tails.keys[0][1, :, :6], before[0, :, :6])
    assert torch.equal(tails.keys[0][3, :, :6], before[1, :, :6])
    assert torch.equal(tails.keys[0][3, :, 6:8], before[3, :, 6:8])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2000), st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), min_size=1, max_size=8))
def test_any_sequence_of_needs_stays_within_the_limit(limit: int, needs: list[tuple[int, int]]) -> None:
    tails = made()
    for rows, positions in needs:
        if rows * positions <= limit:
            tails.fit(rows, positions, 2 * positions, limit)
            assert tails.rows >= rows
            assert tails.positions >= positions
            assert tails.cells <= limit
            assert tails.keys[0].shape == (tails.rows, 2, tails.positions, 4)
