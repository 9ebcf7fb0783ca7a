"""Linear maps of few rows against F.linear."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.model import thin
from trilaw.model.layers import Linear


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(384, 128), (576, 576), (577, 96), (97, 1024), (4096, 256)]),  # 577 and 97 are prime
    st.sampled_from([(0,), (1,), (5,), (16,), (17,), (64,), (1, 1), (2, 3), (2, 2, 2)]),
    st.booleans(),
    st.booleans(),
)
def test_it_is_the_linear_map(shape: tuple[int, int], rows: tuple[int, ...], biased: bool, strided: bool) -> None:
    generator = torch.Generator().manual_seed(sum(shape) + sum(rows))
    weight_OI, bias_O = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
    x = torch.randn(*rows, shape[1] * 2, generator=generator)
    x = x[..., ::2] if strided else x[..., : shape[1]].contiguous()
    bias = bias_O if biased else None
    expected = F.linear(x, weight_OI, bias)
    with torch.no_grad():
        found = thin.linear(x, weight_OI, bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Appends the number of blocks of every product that goes by blocks."""
    seen: list[int] = []
    plain = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: seen.append(len(a)) or plain(a, b))
    return seen


@pytest.mark.parametrize(
    ("outputs", "inputs", "rows", "expected"),
    [
        (512, 128, 1, True),
        (512, 128, 17, False),
        (64, 64, 1, False),
        (49152, 576, 128, True),
        (49152, 576, 145, False),
        (50257, 64, 1, False),
    ],
)
def test_blocks_are_for_few_rows_of_a_weight_that_is_not_small(
    monkeypatch: pytest.MonkeyPatch, outputs: int, inputs: int, rows: int, expected: bool
) -> None:
    seen = blocks(monkeypatch)
    with torch.no_grad():
        thin.linear(torch.ones(rows, inputs), torch.ones(outputs, inputs))
    assert bool(seen) == expected


def test_every_thread_has_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = blocks(monkeypatch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 48)
    with torch.no_grad():
        thin.linear(torch.ones(1, 576), torch.ones(576, 576))
    assert seen == [64]


def test_gradients_and_autocast_stay_with_the_plain_map(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = blocks(monkeypatch)
    linear = Linear(576, 576)
    torch.nn.init.ones_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    x = torch.ones(2, 576)
    linear(x).sum().backward()
    assert linear.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    assert not seen
    with torch.no_grad():
        assert linear(x).dtype == torch.float32
    assert seen
