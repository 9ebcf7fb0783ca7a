"""Products of whole matrices against exact sums of the same rounded numbers, in every layout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.native.tensors import DTYPES, needs_halves, randn, same, threads
from torch import Tensor

from trilaw.model.native.matmul import knows, left, multiply, right

pytestmark = needs_halves

SIZES = st.sampled_from([1, 2, 3, 11, 12, 13, 16, 31, 32, 33, 40, 65, 100])
INPUTS = st.sampled_from([1, 2, 3, 15, 16, 17, 64, 129, 700, 1536, 1600])  # the last two are summed in turns


def laid(seed: int, rows: int, inputs: int, dtype: torch.dtype, across: bool, wide: int) -> Tensor:
    """A matrix whose rows, or columns, lie `wide` numbers further apart than they are long."""
    if across:
        return randn(seed, inputs, rows + wide).to(dtype)[:, :rows].T
    return randn(seed, rows, inputs + wide).to(dtype)[:, :inputs]


def product(a_MK: Tensor, b_NK: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the rounded numbers in float64, and the size of what is added up."""
    a, b = a_MK.to(torch.bfloat16).double(), b_NK.to(torch.bfloat16).double()
    return a @ b.T, a.abs() @ b.abs().T


@settings(max_examples=150, deadline=None)
@given(
    SIZES,
    SIZES,
    INPUTS,
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    *[st.booleans()] * 4,
    st.sampled_from([0, 1, 24]),
)
def test_every_layout(
    rows: int,
    outputs: int,
    inputs: int,
    a_dtype: torch.dtype,
    b_dtype: torch.dtype,
    a_across: bool,
    b_across: bool,
    biased: bool,
    add: bool,
    wide: int,
) -> None:
    a, b = laid(1, rows, inputs, a_dtype, a_across, wide), laid(2, outputs, inputs, b_dtype, b_across, wide)
    bias = randn(3, outputs) if biased else None
    held = randn(4, rows + 2, outputs)
    exact, size = product(a, b)
    exact = exact + (0.0 if bias is None else bias.double())
    out, turned = held.clone(), (left(a, turns=True), right(b, turns=True))
    with threads(1):
        multiply(*turned, bias, base_MN=out[1:-1] if add else None, out_MN=out[1:-1])
    assert torch.equal(out[[0, -1]], held[[0, -1]])
    expected = exact + held[1:-1].double() if add else exact
    assert bool(((out[1:-1].double() - expected).abs() <= 4e-6 * size + 1e-6 * expected.abs() + 1e-7).all())
    with threads(2):
        again = left(a, turns=True), right(b, turns=True)
        assert same(multiply(*again, bias, base_MN=held[1:-1] if add else None, dtype=torch.float32), out[1:-1])
        base = held[1:-1].to(torch.bfloat16) if add else None
        rounded = multiply(left(a), right(b), bias, base_MN=base)
    expected = exact if base is None else exact + base.double()
    assert rounded.dtype == torch.bfloat16
    assert bool(((rounded.double() - expected).abs() <= 4e-6 * size + 2.0**-8 * expected.abs() + 1e-7).all())


def test_the_largest_shapes_of_a_small_model() -> None:
    a, b = randn(1, 600, 576).to(torch.bfloat16), randn(2, 1536, 576)
    exact, size = product(a, b)
    assert bool(((multiply(left(a), right(b), dtype=torch.float32).double() - exact).abs() <= 4e-6 * size).all())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_breaks_no_other(value: float) -> None:
    a, b = randn(1, 30, 25), randn(2, 50, 25)
    a[3, 24] = value
    found = multiply(left(a), right(b), dtype=torch.float32)
    assert not found[3].isfinite().any()
    assert found[[i for i in range(30) if i != 3]].isfinite().all()


def test_numbers_that_lie_apart_are_copied() -> None:
    a, b = randn(1, 12, 40)[::2, ::2], torch.tensor(2.0).expand(5, 20)
    exact, size = product(a, b)
    assert bool(((multiply(left(a), right(b), dtype=torch.float32).double() - exact).abs() <= 4e-6 * size).all())


def test_what_it_does_not_take() -> None:
    a, narrow = randn(1, 6, 8), torch.zeros(6, 6, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="contiguous"):
        multiply(left(a), right(a), out_MN=torch.zeros(6, 12)[:, ::2])
    with pytest.raises(ValueError, match="one dtype"):
        multiply(left(a), right(a), base_MN=narrow, dtype=torch.float32)
    with pytest.raises(ValueError, match="do not make"):
        multiply(left(a), right(randn(1, 6, 9)))
    with pytest.raises(ValueError, match="in turns"):
        multiply(left(randn(1, 6, 1600), turns=True), right(randn(1, 6, 1600), turns=True), out_MN=narrow)
    assert knows(a, a.to(torch.bfloat16))
    assert not knows(a, a.double())
