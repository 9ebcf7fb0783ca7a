"""Attention over shared pages and own tails against plain attention over each row's keys side by side."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.engine import native_rows
from trilaw.engine.attention import Pass, Piece, Rows
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE, Node
from trilaw.engine.torch_rows import TorchRows, _width, attend, merge, plan
from trilaw.model.decoding import supported

CPU = torch.device("cpu")


def plain(q_HE: torch.Tensor, k_SKE: torch.Tensor, v_SKE: torch.Tensor) -> torch.Tensor:
    """One query a head over all keys, in float64, by the definition."""
    H, K = len(q_HE), k_SKE.shape[1]
    rows = []
    for h in range(H):
        k_SE, v_SE = k_SKE[:, h * K // H].double(), v_SKE[:, h * K // H].double()
        rows.append(torch.softmax(k_SE @ q_HE[h].double() * q_HE.shape[1] ** -0.5, 0) @ v_SE)
    return torch.stack(rows).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_halves_merge_into_the_whole(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, generator=generator).to(dtype) for n in (4, 50, 50))
    bias = torch.zeros(2, 1, 1, 50).to(dtype)
    whole, lse = attend(q, k, v, bias, 0.3)
    left, left_lse = attend(q, k[:, :, :17], v[:, :, :17], bias[..., :17], 0.3)
    right, right_lse = attend(q, k[:, :, 17:], v[:, :, 17:], bias[..., 17:], 0.3)
    bound = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(merge(left, left_lse, right, right_lse), whole, atol=bound, rtol=bound)
    torch.testing.assert_close(
        lse, torch.logsumexp(0.3 * (q.float() @ k.float().mT), -1, keepdim=True), atol=1e-2, rtol=1e-3
    )


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_and_pieces_against_plain_attention(data: st.DataObject) -> None:
    K, G, E = data.draw(st.sampled_from([(1, 4, 8), (2, 2, 8), (3, 1, 4), (2, 3, 16), (1, 9, 64)]))
    arch = Arch(16, 8, 8, layers=1, heads=K * G, kv_heads=K, head_dim=E, max_positions=4000)
    memory = Memory(arch, torch.float32, CPU, 40_000 * arch.kv_bytes_per_token(4))
    pool, tails = memory.pages, memory.tails
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    chains: list[list[Node]] = []
    for group in range(data.draw(st.integers(1, 4))):
        length = data.draw(st.sampled_from([0, 1, 2, 9, 10]))
        assert memory.arrange(length, 0, 0, 0)
        nodes = [pool.new((group, i)) for i in range(length)]
        chains += [nodes] * data.draw(st.integers(1, 5))
    chains = [chains[i] for i in torch.randperm(len(chains), generator=generator).tolist()]
    B = len(chains)
    places = torch.randint(0, 12, (B,), generator=generator)
    pieces = []
    for start, end in data.draw(st.lists(st.sampled_from([(0, 5), (0, 40), (33, 35), (64, 100)]), max_size=3)):
        need = -(-end // PAGE)
        assert memory.arrange(need, B, 12, 12)
        pieces.append(Piece([pool.new((7, i)).page for i in range(need)], start, end))
    assert memory.arrange(0, B, 12, 12)
    for stored in (pool.keys[0], pool.values[0], tails.keys[0], tails.values[0]):
        stored.copy_(torch.randn(stored.shape, generator=generator))
    N = B + sum(p.end - p.start for p in pieces)
    q, k, v = (torch.randn(1, N, n, E, generator=generator) for n in (K * G, K, K))
    rows: Rows
    if supported(arch, CPU, torch.float32):
        rows = native_rows.NativeRows(arch, memory, native_rows.plan(chains), places.numpy())
    else:
        rows = TorchRows(arch, memory, plan(chains, memory, CPU, torch.float32), places, int(places.max()) + 1)
    cache = Pass(arch, memory, rows, B, pieces)
    y = cache.attend(0, q, k, v)[0]
    assert y.shape == (N, K * G, E)
    for row, nodes in enumerate(chains):
        assert torch.equal(tails.keys[0][row, :, places[row]], k[0, row])
        both = []
        for stored, tail in ((pool.keys[0], tails.keys[0]), (pool.values[0], tails.values[0])):
            prefix = stored[:, pool.slots([n.page for n in nodes])]
            both.append(torch.cat((prefix, tail[row, :, : int(places[row]) + 1]), 1).transpose(0, 1))
        torch.testing.assert_close(y[row], plain(q[0, row], *both), atol=2e-6, rtol=1e-5)
    at = B
    for piece in pieces:
        slots = pool.slots(piece.pages)
        assert torch.equal(
            pool.keys[0][:, slots[piece.start : piece.end]], k[0, at : at + piece.end - piece.start].transpose(0, 1)
        )
        for position in range(piece.start, piece.end):
            seen = slots[: position + 1]
            expected = plain(q[0, at], pool.keys[0][:, seen].transpose(0, 1), pool.values[0][:, seen].transpose(0, 1))
            torch.testing.assert_close(y[at], expected, atol=2e-6, rtol=1e-5)
            at += 1


def test_the_width_of_a_block() -> None:
    assert _width([1] * 9) == 1
    assert _width([16] * 8) == 16
    assert _width([1] * 100 + [16]) < 4  # one wide group does not pad a hundred narrow ones
    assert _width([15, 16, 14]) == 16
