"""Packed products against exact sums of the same rounded numbers, and rows that do not see each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.native.tensors import DTYPES, needs_bytes, needs_halves, randn, same, threads
from torch import Tensor

from trilaw.model.native import products
from trilaw.model.rotation import Rotation

SHAPES = [(1, 1), (5, 3), (31, 4), (32, 17), (33, 64), (100, 100), (128, 30), (160, 577), (291, 192), (4100, 24)]


def whole(x_RI: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 and the scale of each row; the product with 127 / amax is float32."""
    amax_R1 = x_RI.float().abs().amax(1, keepdim=True)
    part_R1 = torch.where(amax_R1 > 0, torch.tensor(127.0) / amax_R1, 0.0)
    return (x_RI.float() * part_R1).round().double(), (amax_R1 / 127).double()


def exact(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The product of the rounded numbers in float64, and the size of what is added up."""
    x_whole_NI, x_scale_N1 = whole(x_NI)
    scale_O1 = weight_OI.abs().amax(1, keepdim=True) / 127
    weight_whole_OI = torch.where(scale_O1 > 0, weight_OI / scale_O1, 0.0).round().double()
    y_NO = (x_whole_NI @ weight_whole_OI.T) * (x_scale_N1 * scale_O1.T)
    bias = torch.zeros(len(weight_OI)) if bias_O is None else bias_O
    return y_NO + bias.double(), y_NO.abs() + bias.double().abs()


def rounding(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """The most that half a step of each number makes in a product."""
    x_error_NO = x_NI.abs().amax(1, keepdim=True) * weight_OI.abs().sum(1)
    weight_error_NO = x_NI.abs().sum(1, keepdim=True) * weight_OI.abs().amax(1)
    return (x_error_NO + weight_error_NO) * (0.5 / 127) * 1.01


def assert_exact(found_NO: Tensor, exact_NO: Tensor, size_NO: Tensor) -> None:
    last = 2.0**-8 if found_NO.dtype == torch.bfloat16 else 0.0
    assert found_NO.shape == exact_NO.shape
    assert bool(((found_NO.double() - exact_NO).abs() <= 1e-6 * size_NO + last * exact_NO.abs()).all())


@needs_bytes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [True, False])
def test_sums_of_bytes_are_exact(
    shape: tuple[int, int], x_dtype: torch.dtype, dtype: torch.dtype, biased: bool
) -> None:
    weight_OI, bias_O = randn(0, *shape), randn(1, shape[0]) if biased else None
    product = products.Bytes(weight_OI, bias_O, dtype)
    for rows in (1, 2, 3, 4, 5, 7, 8, 13, 17):
        x_NI = (randn(rows, rows, shape[1]) * torch.logspace(-3, 3, rows)[:, None]).to(x_dtype)
        found_NO = product(x_NI)
        assert found_NO.dtype == dtype
        assert_exact(found_NO, *exact(x_NI, weight_OI, bias_O))


@needs_bytes
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("inputs", [4, 1000, 4096, 33000])
def test_the_largest_sums_do_not_overflow(inputs: int, sign: int) -> None:
    product = products.Bytes(torch.full((40, inputs), 3.0), None, torch.float32)
    torch.testing.assert_close(product(torch.full((9, inputs), sign * 2.0)), torch.full((9, 40), sign * 6.0 * inputs))


@needs_bytes
@pytest.mark.parametrize("place", [0, 16], ids=["whole vector", "rest"])
def test_ties_go_to_the_even_number(place: int) -> None:
    x_1I = torch.zeros(1, 24)
    ties = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 125.5])
    x_1I[0, place : place + 8] = ties
    found_1O = products.Bytes(torch.eye(24) * 127, None, torch.float32)(x_1I)
    assert torch.equal(found_1O[0, place : place + 8], ties.round() * 127)


@needs_bytes
def test_bytes_are_near_the_product_that_they_stand_for() -> None:
    weight_OI, x_NI = randn(0, 64, 576), randn(1, 9, 576)
    found_NO = products.Bytes(weight_OI, None, torch.float32)(x_NI)
    assert bool(((found_NO - F.linear(x_NI, weight_OI)).abs() <= rounding(x_NI, weight_OI)).all())


@needs_bytes
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_weights_of_zeros(dtype: torch.dtype) -> None:
    weight_OI, bias_O, x_NI = randn(0, 40, 30), randn(1, 40), randn(2, 11, 30)
    weight_OI[[0, 33]] = 0
    x_NI[[0, 9]] = 0
    for bias in (None, bias_O):
        found_NO = products.Bytes(weight_OI, bias, dtype)(x_NI)
        expected_O = torch.zeros(40).to(dtype) if bias is None else bias.to(dtype)
        assert torch.equal(found_NO[[0, 9]], expected_O.expand(2, -1))
        assert torch.equal(found_NO[:, [0, 33]], expected_O[[0, 33]].expand(11, -1))
        assert_exact(found_NO, *exact(x_NI, weight_OI, bias))
    assert not products.Bytes(torch.zeros(3, 5), None, dtype)(torch.zeros(2, 5)).any()


@needs_bytes
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs", [64, 192, 1536])
@pytest.mark.parametrize("rows", [1, 6])
def test_rotate_is_the_rotation_within_blocks(dtype: torch.dtype, inputs: int, rows: int) -> None:
    """Of whole numbers, which both ways turn without any rounding."""
    x_NI = torch.randint(-8, 9, (rows, inputs), generator=torch.Generator().manual_seed(inputs)).to(dtype)
    weight_OI, bias_O = randn(0, 50, inputs), randn(1, 50)
    turned_NI = Rotation(inputs, within_blocks=True)(x_NI.float())
    found_NO = products.Bytes(weight_OI, bias_O, torch.float32, rotate=True)(x_NI)
    assert torch.equal(found_NO, products.Bytes(weight_OI, bias_O, torch.float32)(turned_NI))
    assert_exact(found_NO, *exact(turned_NI, weight_OI, bias_O))


@needs_bytes
def test_rotated_weights_undo_the_rotation() -> None:
    weight_OI, x_NI, rotation = randn(0, 50, 128), randn(1, 5, 128), Rotation(128, within_blocks=True)
    found_NO = products.Bytes(rotation(weight_OI), None, torch.float32, rotate=True)(x_NI)
    bound_NO = rounding(rotation(x_NI), rotation(weight_OI))
    assert bool(((found_NO - F.linear(x_NI, weight_OI)).abs() <= bound_NO).all())


@needs_bytes
@pytest.mark.parametrize("inputs", [1, 32, 65, 100])
def test_only_blocks_of_64_are_rotated(inputs: int) -> None:
    with pytest.raises(ValueError, match=f"{inputs} inputs"):
        products.Bytes(torch.ones(3, inputs), None, torch.float32, rotate=True)


@needs_bytes
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(33, 17), (40, 64), (128, 100), (291, 192)]),
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(1, 17),
    st.booleans(),
    st.integers(1, 2),
    st.data(),
)
def test_rows_of_bytes_do_not_see_each_other(
    shape: tuple[int, int],
    x_dtype: torch.dtype,
    dtype: torch.dtype,
    rows: int,
    biased: bool,
    count: int,
    data: st.DataObject,
) -> None:
    outputs, inputs = shape
    bias_O = randn(1, outputs) if biased else None
    product = products.Bytes(randn(0, *shape), bias_O, dtype, rotate=inputs % 64 == 0)
    x_NI = randn(rows, rows, inputs).to(x_dtype)
    row = data.draw(st.integers(0, rows - 1))
    if data.draw(st.booleans()):
        x_NI[torch.arange(rows) != row] = math.inf
    with threads(count):
        together_NO = product(x_NI)
    with threads(1):
        assert torch.equal(together_NO[row], product(x_NI[row : row + 1].clone())[0])


@needs_bytes
@pytest.mark.parametrize("inputs", [20, 64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 19])
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_broken_row_of_bytes_has_no_finite_result(
    inputs: int, value: float, place: int, x_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    x_NI = randn(0, 5, inputs).to(x_dtype)
    x_NI[2, place] = value
    found_NO = products.Bytes(randn(1, 40, inputs), randn(2, 40), dtype, rotate=inputs == 64)(x_NI)
    assert not found_NO[2].isfinite().any()
    assert bool(found_NO[2].isnan().all()) or not math.isnan(value)
    assert bool(found_NO[[0, 1, 3, 4]].isfinite().all())


HALVES_SHAPES = [(1, 2), (31, 4), (33, 62), (100, 100), (160, 576), (291, 192), (4100, 24)]


@needs_halves
@pytest.mark.parametrize("shape", HALVES_SHAPES, ids=str)
@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("biased", [True, False])
def test_halves_are_the_product_of_the_rounded_numbers(
    shape: tuple[int, int], x_dtype: torch.dtype, biased: bool
) -> None:
    weight_OI, bias_O = randn(0, *shape), randn(1, shape[0]) if biased else None
    product, rounded_OI = products.Halves(weight_OI, bias_O), weight_OI.to(torch.bfloat16).double()
    added_O = 0.0 if bias_O is None else bias_O.double()
    for rows in (1, 2, 3, 4, 5, 7, 8, 13, 17):
        x_NI = (randn(rows, rows, 2 * shape[1]) * torch.logspace(-3, 3, rows)[:, None]).to(x_dtype)[:, : shape[1]]
        found_NO, x_rounded_NI = product(x_NI), x_NI.to(torch.bfloat16).double()
        assert found_NO.dtype == torch.float32
        exact_NO = x_rounded_NI @ rounded_OI.T + added_O
        bound_NO = (x_rounded_NI.abs() @ rounded_OI.abs().T) * 2e-6 + exact_NO.abs() * 2.0**-24
        assert bool(((found_NO.double() - exact_NO).abs() <= bound_NO).all())


@needs_halves
@pytest.mark.parametrize("shape", HALVES_SHAPES, ids=str)
@pytest.mark.parametrize("bias_dtype", [None, *DTYPES])
def test_halves_in_bfloat16_are_the_float32_sums_rounded_once(
    shape: tuple[int, int], bias_dtype: torch.dtype | None
) -> None:
    weight_OI, bias_O = randn(0, *shape), None if bias_dtype is None else randn(1, shape[0]).to(bias_dtype)
    wide, narrow = products.Halves(weight_OI, bias_O), products.Halves(weight_OI, bias_O, torch.bfloat16)
    for rows in (1, 2, 3, 4, 5, 7, 8, 13, 17):
        x_NI = randn(rows, rows, shape[1])
        assert same(narrow(x_NI), wide(x_NI).to(torch.bfloat16))


@needs_halves
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(HALVES_SHAPES),
    st.sampled_from(DTYPES),
    st.integers(1, 17),
    st.booleans(),
    st.integers(1, 2),
    st.booleans(),
    st.data(),
)
def test_rows_of_halves_do_not_see_each_other(
    shape: tuple[int, int],
    dtype: torch.dtype,
    rows: int,
    biased: bool,
    count: int,
    broken: bool,
    data: st.DataObject,
) -> None:
    bias_O = randn(1, shape[0]) if biased else None
    product, x_NI = products.Halves(randn(0, *shape), bias_O, dtype), randn(rows, rows, shape[1]).to(torch.bfloat16)
    row = data.draw(st.integers(0, rows - 1))
    if broken:
        x_NI[torch.arange(rows) != row] = math.nan
    with threads(count):
        together_NO = product(x_NI)
    with threads(1):
        assert same(together_NO[row], product(x_NI[row : row + 1].clone())[0])


@needs_halves
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_of_halves_has_no_finite_result(value: float) -> None:
    x_NI = randn(0, 5, 20)
    x_NI[2, 19] = value
    found_NO = products.Halves(randn(1, 40, 20))(x_NI)
    assert not found_NO[2].isfinite().any()
    assert bool(found_NO[[0, 1, 3, 4]].isfinite().all())


def bytes_of(weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return products.Bytes(weight_OI, bias_O, dtype, rotate=True)


@pytest.mark.parametrize(
    "pack", [pytest.param(bytes_of, marks=needs_bytes), pytest.param(products.Halves, marks=needs_halves)]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("outputs", [33, 300])
def test_a_row_is_the_same_among_any_number(
    pack: Callable[..., Callable[[Tensor], Tensor]], dtype: torch.dtype, biased: bool, outputs: int
) -> None:
    product = pack(randn(0, outputs, 192), randn(1, outputs) if biased else None, dtype)
    x_NI = randn(2, 40, 192)
    with threads(1):
        alone_NO = torch.cat([product(x_1I) for x_1I in x_NI.split(1)])
        for rows in range(1, 41):
            assert same(product(x_NI[:rows]), alone_NO[:rows])
            assert same(product(x_NI[-rows:]), alone_NO[-rows:])
    with threads(2):
        for rows in (3, 27, 40):
            assert same(product(x_NI[:rows]), alone_NO[:rows])


@needs_halves
@pytest.mark.parametrize("shape", [(1, 2), (33, 62), (160, 576)], ids=str)
def test_a_packed_weight_gives_its_rows_back(shape: tuple[int, int]) -> None:
    weight_OI = randn(0, *shape)
    chosen = torch.randint(shape[0], (3, 5), generator=torch.Generator().manual_seed(1)).flatten()
    assert same(products.Halves(weight_OI).rows(chosen), weight_OI.to(torch.bfloat16)[chosen])
