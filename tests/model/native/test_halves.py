"""bfloat16 products with float32 sums against float64, and rows that do not see each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilaw.model.native import build, ops

if not ops.multiplies_halves(ops.functions()):
    pytest.skip(build.why_not() or "this processor has no AVX512-BF16", allow_module_level=True)

SHAPES = [(1, 2), (31, 4), (33, 62), (100, 100), (160, 576), (291, 192), (4100, 24)]


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_product_of_the_rounded_numbers(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight_OI = randn(0, *shape)
    product, rounded_OI = ops.Halves(weight_OI), weight_OI.to(torch.bfloat16).double()
    for rows in (1, 2, 3, 4, 5, 7, 8, 13, 17):
        x_NI = (randn(rows, rows, 2 * shape[1]) * torch.logspace(-3, 3, rows)[:, None]).to(dtype)[:, : shape[1]]
        found_NO, x_rounded_NI = product(x_NI), x_NI.to(torch.bfloat16).double()
        assert found_NO.dtype == torch.float32
        bound_NO = (x_rounded_NI.abs() @ rounded_OI.abs().T) * 2e-6
        assert bool(((found_NO.double() - x_rounded_NI @ rounded_OI.T).abs() <= bound_NO).all())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 17), st.integers(1, 2), st.booleans(), st.data())
def test_rows_do_not_see_each_other(
    shape: tuple[int, int], rows: int, threads: int, broken: bool, data: st.DataObject
) -> None:
    product, x_NI = ops.Halves(randn(0, *shape)), randn(rows, rows, shape[1]).to(torch.bfloat16)
    row = data.draw(st.integers(0, rows - 1))
    if broken:
        x_NI[torch.arange(rows) != row] = math.nan
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together_NO = product(x_NI)
        torch.set_num_threads(1)
        assert torch.equal(together_NO[row], product(x_NI[row : row + 1].clone())[0])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_has_no_finite_result(value: float) -> None:
    x_NI = randn(0, 5, 20)
    x_NI[2, 19] = value
    found_NO = ops.Halves(randn(1, 40, 20))(x_NI)
    assert not found_NO[2].isfinite().any()
    assert bool(found_NO[[0, 1, 3, 4]].isfinite().all())
