"""The C functions against their definitions in float64: rounded once, no row sees another, nothing else is touched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.native.tensors import DTYPES, needs_library, randn, same, threads
from torch import Tensor

from trilaw.model.native import build, ops

SIZES = [1, 7, 16, 40, 576]
EPS = 1e-5


@pytest.fixture(params=["C", "PyTorch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the library, and as if there were none."""
    if request.param == "PyTorch":
        monkeypatch.setattr(ops, "functions", lambda: None)
    elif build.library() is None:
        pytest.skip(str(build.why_not()))
    return str(request.param)


def assert_rounded(found: Tensor, exact: Tensor, way: str, atol: float = 1e-30) -> None:
    """One rounding to the result's format, and little before it; PyTorch's operators may round twice."""
    last = {torch.float32: 0.0, torch.bfloat16: 2.0**-8 if way == "C" else 2.0**-6}[found.dtype]
    torch.testing.assert_close(found.double(), exact, rtol=last + 4e-6, atol=atol, equal_nan=True)


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    return gate.double() * torch.sigmoid(gate.double()) * up.double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("with_delta", [True, False])
def test_add_norm(way: str, dtype: torch.dtype, size: int, rows: int, with_delta: bool) -> None:
    x_ND, weight_D = randn(0, rows, size) * torch.logspace(-6, 4, rows)[:, None], randn(1, size)
    delta_ND = randn(2, rows, size).to(dtype) if with_delta else None
    sum_ND = x_ND.clone() if delta_ND is None else x_ND + delta_ND.float()
    rms_N1 = (sum_ND.double().square().mean(1, keepdim=True) + EPS).sqrt()
    found_ND = ops.add_norm(x_ND, delta_ND, weight_D, EPS, dtype)
    assert found_ND.dtype == dtype
    assert same(x_ND, sum_ND)
    assert_rounded(found_ND, weight_D.double() * sum_ND.double() / rms_N1, way)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [7, 40])
def test_add_norm_of_zeros_and_of_nan(way: str, dtype: torch.dtype, size: int) -> None:
    x_ND, delta_ND = randn(0, 4, size), randn(1, 4, size).to(dtype)
    x_ND[1], delta_ND[1] = 0, 0
    delta_ND[2] = -1
    x_ND[2] = 1
    x_ND[3, size - 1] = math.nan
    found_ND = ops.add_norm(x_ND, delta_ND, randn(2, size), EPS, dtype)
    assert not found_ND[1:3].any()
    assert bool(torch.isfinite(found_ND[:3]).all())
    assert bool(found_ND[3].isnan().all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("halves", [True, False], ids=["halves of one tensor", "apart"])
def test_gated(way: str, dtype: torch.dtype, size: int, rows: int, halves: bool) -> None:
    both = (randn(0, rows, 2 * size) * 8).to(dtype)
    gate_NI, up_NI = both.chunk(2, 1)
    if not halves:
        gate_NI, up_NI = gate_NI.contiguous(), up_NI.contiguous()
    found_NI = ops.gated(gate_NI, up_NI)
    assert found_NI.is_contiguous()
    assert found_NI.dtype == dtype
    assert_rounded(found_NI, silu_product(gate_NI, up_NI), way)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [3, 20], ids=["whole vector", "rest"])
def test_gated_saturates(way: str, dtype: torch.dtype, place: int) -> None:
    values = [-1e4, -200.0, -88.5, -87.0, -1e-30, 0.0, 1e-30, 87.0, 88.5, 200.0, 1e4, math.inf, math.nan]
    gate_NI, up_NI = (torch.zeros(len(values) * 2, 21).to(dtype) for _ in range(2))
    gate_NI[:, place] = torch.tensor(values * 2).to(dtype)
    up_NI[:, place] = torch.tensor([1e4] * len(values) + [-1e4] * len(values)).to(dtype)
    found_NI = ops.gated(gate_NI, up_NI)
    assert_rounded(found_NI, silu_product(gate_NI, up_NI), way, atol=1e-29)
    gate_NI[:, place] = -math.inf
    assert not ops.gated(gate_NI, up_NI)[:, place].isfinite().any()


@needs_library
def test_halfway_cases_go_to_the_even_bfloat16() -> None:
    """A gate this large passes as it is: each result is the product of two small whole numbers, rounded once."""
    number_N = torch.arange(100, 256, dtype=torch.bfloat16)
    gate_NI, up_NI = (x.contiguous() for x in torch.broadcast_tensors(number_N[:, None], number_N))
    product_NI = gate_NI.float() * up_NI.float()
    for signed_NI in (up_NI, -up_NI):
        assert same(ops.gated(gate_NI, signed_NI), (product_NI * signed_NI.sign()).to(torch.bfloat16))
        assert same(
            ops.gated(gate_NI[:, 1:], signed_NI[:, 1:]), (product_NI * signed_NI.sign()).to(torch.bfloat16)[:, 1:]
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [2, 14, 16, 40, 64, 128])
@pytest.mark.parametrize("rows", [1, 33])
def test_rotate_within_a_wider_tensor(way: str, dtype: torch.dtype, size: int, rows: int) -> None:
    heads, first = 3, 5
    wide = randn(0, rows, first + heads * size + 7).to(dtype)
    angle_NF = randn(1, rows, size // 2) * 3
    cos_NF, sin_NF = angle_NF.cos(), angle_NF.sin()
    before = wide.clone()
    part = slice(first, first + heads * size)
    x_NHE = wide[:, part].unflatten(1, (heads, size))
    found_NHE = ops.rotate_(x_NHE, cos_NF, sin_NF)
    assert found_NHE.data_ptr() == x_NHE.data_ptr()
    a, b = before[:, part].unflatten(1, (heads, size)).double().chunk(2, -1)
    cos, sin = cos_NF[:, None].double(), sin_NF[:, None].double()
    assert_rounded(x_NHE, torch.cat((a * cos - b * sin, b * cos + a * sin), -1), way, atol=1e-6)
    wide[:, part] = before[:, part]
    assert same(wide, before)


@needs_library
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(DTYPES), st.sampled_from(SIZES), st.integers(2, 17), st.integers(1, 2), st.data())
def test_rows_between_products_do_not_see_each_other(
    dtype: torch.dtype, size: int, rows: int, count: int, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, rows - 1))
    other = (row + 1) % rows
    x_ND, weight_D, wide = randn(rows, rows, size), randn(1, size), randn(2, rows, 4 * size).to(dtype)
    cos_NF, sin_NF = randn(3, rows, size), randn(4, rows, size)
    x_ND[other] = wide[other] = math.nan

    def all_three(rows: slice) -> list[Tensor]:
        x, y = x_ND[rows].clone(), wide[rows].clone()
        normed = ops.add_norm(x, y[:, :size].contiguous(), weight_D, EPS, dtype)
        gated = ops.gated(y[:, size : 2 * size], y[:, 2 * size : 3 * size])
        turned = ops.rotate_(y[:, 2 * size :].unflatten(1, (1, 2 * size)), cos_NF[rows], sin_NF[rows])
        return [normed, x, gated, turned]

    with threads(count):
        together = [found[row] for found in all_three(slice(None))]
    with threads(1):
        alone = [found[0] for found in all_three(slice(row, row + 1))]
    assert all(map(same, together, alone))


VOCABULARIES = [1, 5, 127, 128, 129, 1000, 49152]
LAST = math.nextafter(1.0, 0.0)
COLDEST = torch.finfo(torch.float32).tiny


def assert_drawn(logits_BV: Tensor, heat_B: Tensor | None, u_B: Tensor, greedy_B: Tensor | None = None) -> None:
    """Tokens by the inverse distribution in float64, but within 1e-6 of a boundary; log-probabilities to 1e-5."""
    token_B, logprob_B = ops.draw(logits_BV, heat_B, u_B, greedy_B)
    assert (token_B.dtype, logprob_B.dtype) == (torch.int64, torch.float32)
    heat_B1 = 1.0 if heat_B is None else heat_B.double().view(-1, 1)
    scaled_BV = logits_BV.double()
    scaled_BV = (scaled_BV - scaled_BV.amax(1, keepdim=True)) / heat_B1
    logprobs_BV = torch.log_softmax(scaled_BV, 1)
    until_BV = logprobs_BV.exp().cumsum(1)
    taken_B1 = token_B[:, None]
    end_B = until_BV.gather(1, taken_B1)[:, 0]
    start_B = torch.where(token_B > 0, until_BV.gather(1, (taken_B1 - 1).clamp(min=0))[:, 0], 0.0)
    within_B = (start_B - 1e-6 <= u_B) & (u_B <= end_B + 1e-6)
    if greedy_B is not None:
        within_B = torch.where(greedy_B, token_B == logits_BV.float().argmax(1), within_B)
    assert bool(within_B.all())
    assert bool((logits_BV.gather(1, taken_B1) > -math.inf).all())
    torch.testing.assert_close(logprob_B.double(), logprobs_BV.gather(1, taken_B1)[:, 0], atol=1e-5, rtol=1e-6)


def uniforms(seed: int, logits_BV: Tensor, heat_B: Tensor) -> Tensor:
    """The ends of [0, 1), whatever lies between, and places just beside the boundaries of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    B, V = logits_BV.shape
    u_B = torch.rand(B, generator=generator, dtype=torch.float64)
    until_BV = torch.softmax(logits_BV.double() / heat_B.double()[:, None], 1).cumsum(1)
    edge_B = until_BV.gather(1, torch.randint(0, V, (B, 1), generator=generator))[:, 0]
    beside_B = edge_B + torch.where(u_B < 0.5, -3e-6, 3e-6)
    u_B[B // 3 : 2 * B // 3] = beside_B.clamp(0, LAST)[B // 3 : 2 * B // 3]
    u_B[0], u_B[1] = 0.0, LAST
    return u_B


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", VOCABULARIES)
def test_draw(dtype: torch.dtype, size: int) -> None:
    logits_BV = (randn(0, 40, size) * 4).to(dtype)
    ones_B = torch.ones(40)
    assert_drawn(logits_BV, None, uniforms(1, logits_BV, ones_B))
    assert_drawn(logits_BV[:1], None, torch.tensor([0.3], dtype=torch.float64))
    heat_B = torch.tensor([0.01, 0.3, 1.0, 1.7, 30.0]).repeat(8)
    u_B = uniforms(2, logits_BV, heat_B)
    assert_drawn(logits_BV, heat_B, u_B)
    assert_drawn(logits_BV, heat_B[:, None], u_B)
    assert_drawn(logits_BV, heat_B, u_B, torch.arange(40) % 3 == 0)


@needs_library
@pytest.mark.parametrize("size", [1, 4, 128, 1024])
def test_u_walks_the_vocabulary_in_order(size: int) -> None:
    """Of equal tokens, whose boundaries are exact."""
    token_B = torch.arange(size)
    logits_BV, u_B = torch.full((size, size), -3.0), token_B.double() / size
    assert torch.equal(ops.draw(logits_BV, None, u_B, None)[0], token_B)
    below_B = torch.nextafter(u_B, torch.zeros_like(u_B))
    assert torch.equal(ops.draw(logits_BV, None, below_B, None)[0], (token_B - 1).clamp(min=0))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", VOCABULARIES)
def test_greedy_is_the_first_of_the_likeliest(dtype: torch.dtype, size: int) -> None:
    logits_BV = torch.randint(-2, 3, (9, size), generator=torch.Generator().manual_seed(0)).to(dtype)
    logits_BV[8] = 0
    u_B = torch.linspace(0, LAST, 9, dtype=torch.float64)
    token_B, _ = ops.draw(logits_BV, None, u_B, torch.ones(9, dtype=torch.bool))
    first_B = (logits_BV == logits_BV.amax(1, keepdim=True)).float().argmax(1)
    assert torch.equal(token_B, first_B)
    assert_drawn(logits_BV, None, u_B, torch.ones(9, dtype=torch.bool))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", VOCABULARIES)
def test_the_coldest_row_is_greedy_and_the_hottest_flat(dtype: torch.dtype, size: int) -> None:
    logits_BV = (randn(0, 6, size) * 4).to(dtype)
    u_B = torch.tensor([0.0, 0.5, LAST] * 2, dtype=torch.float64)
    heat_B = torch.tensor([COLDEST] * 3 + [1e30] * 3)
    token_B, logprob_B = ops.draw(logits_BV, heat_B, u_B, None)
    peak_B = logits_BV.amax(1)
    ties_B = (logits_BV == peak_B[:, None]).sum(1)
    assert torch.equal(logits_BV.gather(1, token_B[:, None])[:3, 0], peak_B[:3])
    torch.testing.assert_close(logprob_B[:3], -ties_B[:3].float().log(), atol=1e-6, rtol=0)
    torch.testing.assert_close(logprob_B[3:], torch.full((3,), -math.log(size)), atol=1e-5, rtol=0)
    assert_drawn(logits_BV, heat_B, u_B)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", VOCABULARIES[1:])
def test_a_token_without_probability_is_never_drawn(dtype: torch.dtype, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    logits_BV = (torch.randn(32, size, generator=generator) * 4).to(dtype)
    logits_BV[torch.rand(32, size, generator=generator) < 0.9] = -math.inf
    left_B = torch.randint(0, size, (32,), generator=generator)
    left_B[:2], left_B[2:4] = 0, size - 1
    logits_BV[torch.arange(32), left_B] = 1.0
    logits_BV[:8] = torch.where(torch.arange(size) == left_B[:8, None], logits_BV[:8], -math.inf)
    for u in (0.0, 1e-300, 2.0**-53, 0.5, LAST):
        for heat in (COLDEST, 0.5, 1.0, 1e30):
            u_B = torch.full((32,), u, dtype=torch.float64)
            token_B, _ = ops.draw(logits_BV, torch.full((32,), heat), u_B, None)
            assert torch.equal(token_B[:8], left_B[:8])
            assert_drawn(logits_BV, torch.full((32,), heat), u_B)


@needs_library
@pytest.mark.parametrize("gap", [86.0, 88.0, 95.0, 103.0, 110.0])
@pytest.mark.parametrize("size", [5, 128, 129, 1000])
def test_what_is_almost_without_probability_does_no_harm(size: int, gap: float) -> None:
    logits_BV = torch.full((3, size), -gap)
    logits_BV[0, 0] = logits_BV[1, size // 2] = logits_BV[2, size - 1] = 0.0
    for u in (0.0, 0.5, LAST):
        assert_drawn(logits_BV, None, torch.full((3,), u, dtype=torch.float64))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", VOCABULARIES)
def test_a_broken_row_has_no_log_probability(dtype: torch.dtype, size: int) -> None:
    logits_BV = randn(0, 8, size).to(dtype)
    logits_BV[1, 0], logits_BV[2, size - 1] = math.nan, math.nan
    logits_BV[3, size // 2] = math.inf
    logits_BV[4] = -math.inf
    logits_BV[5], logits_BV[6] = math.nan, math.inf
    u_B = torch.full((8,), 0.5, dtype=torch.float64)
    for greedy_B in (None, torch.arange(8) % 2 == 0):
        token_B, logprob_B = ops.draw(logits_BV, None, u_B, greedy_B)
        assert logprob_B.isnan().tolist() == [False, *[True] * 6, False]
        assert bool(((token_B >= 0) & (token_B < size)).all())


@needs_library
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(DTYPES), st.sampled_from(VOCABULARIES[:-1]), st.integers(2, 17), st.integers(1, 2), st.data())
def test_draws_do_not_see_each_other(dtype: torch.dtype, size: int, rows: int, count: int, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, rows - 1))
    wide_BV = randn(rows, rows, size + 3).to(dtype)
    logits_BV, heat_B = wide_BV[:, 2 : size + 2], torch.linspace(0.2, 2, rows)
    u_B = torch.rand(rows, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    logits_BV[(row + 1) % rows] = math.nan
    with threads(count):
        token_B, logprob_B = ops.draw(logits_BV, heat_B, u_B, None)
    one = slice(row, row + 1)
    with threads(1):
        token, logprob = ops.draw(logits_BV[one].clone(), heat_B[one], u_B[one], torch.zeros(1, dtype=torch.bool))
    assert torch.equal(token_B[one], token)
    assert same(logprob_B[one], logprob)
