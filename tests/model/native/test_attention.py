"""Attention in C against its definition in float64; no row or sequence sees another, no token what comes after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.native.tensors import DTYPES, needs_halves, needs_library, randn, same, threads
from torch import Tensor

from trilaw.model.native import attention, library

KINDS = [
    pytest.param(torch.float32, marks=needs_library, id="float32"),
    pytest.param(torch.bfloat16, marks=needs_halves, id="bfloat16"),
]


@dataclass(frozen=True)
class Rows:
    """Rows with their pages and tails. Whatever must not be read is NaN."""

    q_BHE: Tensor
    k_BKE: Tensor
    v_BKE: Tensor
    blocks: Sequence[Sequence[int]]
    pages: Sequence[Sequence[int]]  # of each block
    page_size: int
    place_B: np.ndarray
    page_keys_KSE: Tensor
    page_values_KSE: Tensor
    tail_keys_RKSE: Tensor
    tail_values_RKSE: Tensor

    @property
    def scale(self) -> float:
        return float(self.q_BHE.shape[-1] ** -0.5)

    def attend(self) -> tuple[Tensor, Tensor, Tensor]:
        """The result, and the tails after it."""
        tails = (self.tail_keys_RKSE.clone(), self.tail_values_RKSE.clone())
        blocks = attention.Blocks(self.blocks, self.pages, self.page_size)
        cache = (self.page_keys_KSE, self.page_values_KSE, *tails)
        return attention.attend(self.q_BHE, self.k_BKE, self.v_BKE, blocks, self.place_B, *cache, self.scale), *tails

    def only(self, row: int) -> Rows:
        """The row in a batch of its own."""
        one = slice(row, row + 1)
        block = next(i for i, rows in enumerate(self.blocks) if row in rows)
        batch = (self.q_BHE[one].clone(), self.k_BKE[one].clone(), self.v_BKE[one].clone(), [[0]], [self.pages[block]])
        pages = (self.page_keys_KSE, self.page_values_KSE)
        tails = (self.tail_keys_RKSE[one], self.tail_values_RKSE[one])
        return Rows(*batch, self.page_size, self.place_B[one].copy(), *pages, *tails)

    def exact(self, row: int) -> tuple[Tensor, Tensor]:
        """The row's result in float64, and how far float32 scores and sums may be from it."""
        block = next(i for i, rows in enumerate(self.blocks) if row in rows)
        slots = [page * self.page_size + i for page in self.pages[block] for i in range(self.page_size)]

        def whole(pages_KSE: Tensor, tail_KSE: Tensor, new_KE: Tensor) -> Tensor:
            tail_KSE = tail_KSE[:, : self.place_B[row]]
            return torch.cat((pages_KSE[:, slots], tail_KSE, new_KE[:, None]), 1).double()

        k_KSE = whole(self.page_keys_KSE, self.tail_keys_RKSE[row], self.k_BKE[row])
        v_KSE = whole(self.page_values_KSE, self.tail_values_RKSE[row], self.v_BKE[row])
        q_KGE = self.q_BHE[row].double().unflatten(0, (len(k_KSE), -1)) * self.scale
        y_KGE = torch.softmax(q_KGE @ k_KSE.mT, -1) @ v_KSE
        error_KG1 = (q_KGE.abs() @ k_KSE.abs().mT).amax(-1, keepdim=True) * 2.0**-21
        return y_KGE.flatten(0, 1), ((error_KG1 * 2 + 1e-6) * v_KSE.abs().amax((1, 2))[:, None, None]).flatten(0, 1)

    def check(self) -> None:
        found_BHE, *tails = self.attend()
        assert found_BHE.shape == self.q_BHE.shape
        for row in range(len(found_BHE)):
            exact_HE, error_H1 = self.exact(row)
            last = 2.0**-8 if found_BHE.dtype == torch.bfloat16 else 0.0
            assert bool(((found_BHE[row].double() - exact_HE).abs() <= error_H1 + exact_HE.abs() * last).all())
        before = (self.tail_keys_RKSE, self.tail_values_RKSE)
        for found, tail, new in zip(tails, before, (self.k_BKE, self.v_BKE)):
            expected = tail.clone()
            expected[torch.arange(len(new)), :, torch.from_numpy(self.place_B)] = new
            assert same(found, expected)


def make(
    dtype: torch.dtype,
    *,
    size: int = 64,
    groups: int = 3,
    kv_heads: int = 2,
    blocks: Sequence[tuple[int, int]] = ((1, 0), (3, 2), (2, 1)),
    places: Sequence[int] = (0, 1, 31, 32, 33, 70),
    page_size: int = 32,
    seed: int = 0,
    score: float = 1.0,
    common: float = 0.0,
) -> Rows:
    """blocks: rows and pages of each. places: the rows' go through these. common: added to each score."""
    generator = torch.Generator().manual_seed(seed)
    B, heads, positions = sum(rows for rows, _ in blocks), groups * kv_heads, max(places) + 3
    order = torch.randperm(B, generator=generator).tolist()
    count = sum(pages for _, pages in blocks)
    slot = torch.randperm(count + 2, generator=generator).tolist()
    ends, page_ends = np.cumsum([rows for rows, _ in blocks]), np.cumsum([pages for _, pages in blocks])
    rows = [order[end - n : end] for end, (n, _) in zip(ends, blocks)]
    pages = [slot[end - n : end] for end, (_, n) in zip(page_ends, blocks)]
    used = [page * page_size + i for page in slot[:count] for i in range(page_size)]
    place_B = np.array([places[i % len(places)] for i in range(B)], np.int64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def push(keys: Tensor) -> Tensor:
        keys[..., -1] = common
        return keys

    qkv = normal(B, heads + 2 * kv_heads, size)
    qkv[:, :heads] *= score
    qkv[:, :heads, -1] = size**0.5
    push(qkv[:, heads : heads + kv_heads])
    q, k, v = qkv.to(dtype).split([heads, kv_heads, kv_heads], 1)
    tail_keys, tail_values = push(normal(B, kv_heads, positions, size)), normal(B, kv_heads, positions, size)
    for tail in (tail_keys, tail_values):
        for row, place in enumerate(place_B):
            tail[row, :, place:] = math.nan
    page_keys, page_values = (torch.full((kv_heads, len(slot) * page_size, size), math.nan) for _ in range(2))
    page_keys[:, used] = push(normal(kv_heads, len(used), size))
    page_values[:, used] = normal(kv_heads, len(used), size)
    cache = (x.to(dtype) for x in (page_keys, page_values, tail_keys, tail_values))
    return Rows(q, k, v, rows, pages, page_size, place_B, *cache)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 32, 48, 64, 80, 96, 128])
def test_attend_for_any_number_of_heads(dtype: torch.dtype, size: int) -> None:
    for groups in range(1, 10):
        make(dtype, size=size, groups=groups, kv_heads=1 + groups % 3, seed=groups).check()


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("page_size", [1, 16, 32, 40, 64])
@pytest.mark.parametrize("size", [48, 64])
def test_attend_for_any_blocks(dtype: torch.dtype, page_size: int, size: int) -> None:
    for seed, blocks in enumerate([[(1, 0)], [(1, 3)], [(5, 0)], [(17, 2)], [(2, 1), (1, 0), (4, 3), (1, 1)]]):
        make(dtype, size=size, page_size=page_size, blocks=blocks, seed=seed).check()


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [48, 64])
@pytest.mark.parametrize(("score", "common"), [(0.0, 0.0), (300.0, 0.0), (1.0, 1e4), (1.0, -1e4), (1e4, 0.0)])
def test_attend_is_stable(dtype: torch.dtype, size: int, score: float, common: float) -> None:
    make(dtype, size=size, groups=4, score=score, common=common).check()


@needs_library
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_of_attention_do_not_see_each_other(data: st.DataObject) -> None:
    rows = make(
        data.draw(st.sampled_from(DTYPES)),
        size=data.draw(st.sampled_from([16, 48, 64, 80, 128])),
        groups=data.draw(st.integers(1, 9)),
        kv_heads=data.draw(st.integers(1, 3)),
        blocks=data.draw(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=4)),
        places=data.draw(st.lists(st.sampled_from([0, 1, 15, 31, 32, 33, 64]), min_size=1, max_size=5)),
        page_size=data.draw(st.sampled_from([8, 32, 40])),
        seed=data.draw(st.integers(0, 99)),
    )
    B = len(rows.q_BHE)
    row = data.draw(st.integers(0, B - 1))
    if data.draw(st.booleans()):
        for tensor in (rows.q_BHE, rows.k_BKE, rows.v_BKE, rows.tail_keys_RKSE, rows.tail_values_RKSE):
            tensor[torch.arange(B) != row] = math.nan
    with threads(data.draw(st.integers(1, 2))):
        together, *tails = (found[row] for found in rows.attend())
    with threads(1):
        alone, *tails_alone = (found[0] for found in rows.only(row).attend())
    assert same(together, alone)
    assert all(map(same, tails, tails_alone))


@dataclass(frozen=True)
class Sequences:
    """Whole sequences, and the gradient of what comes out."""

    q_RSHE: Tensor
    k_RSKE: Tensor
    v_RSKE: Tensor
    slope_RSHE: Tensor

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.q_RSHE, self.k_RSKE, self.v_RSKE, self.slope_RSHE

    def map(self, change: Callable[[Tensor], Tensor]) -> Sequences:
        return Sequences(*map(change, self.all))

    def run(self, function: Callable[[Tensor, Tensor, Tensor], Tensor] = attention.causal) -> list[Tensor]:
        """The result and the gradients of q, k and v."""
        inputs = [x.detach().requires_grad_() for x in self.all[:3]]
        y_RSHE = function(*inputs)
        found = [y_RSHE.detach(), *torch.autograd.grad(y_RSHE, inputs, self.slope_RSHE)]
        for x, like in zip(found, (self.q_RSHE, *self.all[:3])):
            assert (x.shape, x.dtype) == (like.shape, like.dtype)
        return found

    def only(self, sequence: int) -> Sequences:
        return self.map(lambda x: x[sequence : sequence + 1].clone())

    def exact(self) -> list[Tensor]:
        return self.map(Tensor.double).run(plain)

    def error_of_scores(self) -> float:
        """How far a float32 score may be from the exact one."""
        q_RSKGE = self.q_RSHE.double().abs().unflatten(2, (self.k_RSKE.shape[2], -1))
        scores = torch.einsum("rskge,rtke->rkgst", q_RSKGE, self.k_RSKE.double().abs())
        return float(scores.amax()) * self.q_RSHE.shape[-1] ** -0.5 * 2.0**-21


def plain(q_RSHE: Tensor, k_RSKE: Tensor, v_RSKE: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_RSHE, k_RSKE, v_RSKE))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def sequences(
    dtype: torch.dtype,
    count: int,
    length: int,
    *,
    size: int = 64,
    groups: int = 2,
    kv_heads: int = 2,
    seed: int = 0,
    score: float = 1.0,
    common: float = 0.0,
) -> Sequences:
    """Queries, keys and values lie in one tensor. score: times each score. common: added to each."""
    heads = groups * kv_heads
    qkv = randn(seed, count, length, heads + 2 * kv_heads, size)
    qkv[:, :, :heads] *= score
    if common:
        qkv[:, :, :heads, -1] = size**0.5
        qkv[:, :, heads : heads + kv_heads, -1] = common
    slope = randn(seed + 1, count, length, heads, size).to(dtype)
    return Sequences(*qkv.to(dtype).split([heads, kv_heads, kv_heads], 2), slope)


def assert_near(found: Tensor, exact: Tensor) -> None:
    if found.dtype == torch.float32:
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)
    else:
        assert float((found.double() - exact).norm()) <= 1e-2 * float(exact.norm()) + 1e-5 * exact.numel() ** 0.5


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("size", [32, 64, 96, 128])
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 64, 100, 257])
def test_causal_and_its_gradients(dtype: torch.dtype, size: int, length: int) -> None:
    for groups in range(1, 5):
        count, kv_heads = 1 + groups % 2, 1 + groups % 3
        batch = sequences(dtype, count, length, size=size, groups=groups, kv_heads=kv_heads, seed=groups)
        for found, exact in zip(batch.run(), batch.exact()):
            assert_near(found, exact)


def between(x_RSHE: Tensor, dim: int, place: int = 0) -> Tensor:
    """Every other one along a dimension of a tensor that is NaN elsewhere."""
    both = [torch.full_like(x_RSHE, math.nan)] * 2
    both[place] = x_RSHE
    return torch.stack(both, dim + 1).select(dim + 1, place)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "heads before tokens": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "tokens before sequences": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "numbers before heads": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other sequence": lambda x: between(x, 0, 1),
    "every other token": lambda x: between(x, 1),
    "every other head": lambda x: between(x, 2, 1),
    "every other number": lambda x: between(x, 3),
    "parts of longer sequences": lambda x: F.pad(x, (0, 0, 0, 0, 2, 3), value=math.nan)[:, 2:-3],
    "one sequence for all": lambda x: x[:1].expand_as(x),
    "one token for all": lambda x: x[:, :1].expand_as(x),
    "one number for all": lambda x: x[:1, :1, :1, :1].expand_as(x),
}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("length", [1, 33])
def test_causal_of_tensors_however_they_lie(dtype: torch.dtype, layout: str, length: int) -> None:
    for count, kv_heads in ((1, 1), (1, 3), (3, 1), (3, 2)):
        laid = sequences(dtype, count, length, size=32, kv_heads=kv_heads).map(LAYOUTS[layout])
        plainly = laid.map(lambda x: x.clone(memory_format=torch.contiguous_format))
        expected = plainly.run()
        assert all(map(same, laid.run(), expected))
        q, k, v, slope = plainly.all
        for mixed in (
            Sequences(laid.q_RSHE, k, v, slope),
            Sequences(q, laid.k_RSKE, v, slope),
            Sequences(q, k, laid.v_RSKE, slope),
            Sequences(q, k, v, laid.slope_RSHE),
        ):
            assert all(map(same, mixed.run(), expected))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("score", "common"), [(0.0, 0.0), (300.0, 0.0), (1e4, 0.0), (1.0, 1e4), (1.0, -1e4)])
def test_causal_is_stable(dtype: torch.dtype, score: float, common: float) -> None:
    batch = sequences(dtype, 2, 100, groups=3, score=score, common=common)
    (found, *found_slopes), (exact, *slopes) = batch.run(), batch.exact()
    error = batch.error_of_scores()
    part = 2 * error + (2.0**-8 if dtype == torch.bfloat16 else 0.0) + 1e-5
    assert float((found.double() - exact).abs().amax()) <= part * float(batch.v_RSKE.abs().amax())
    assert all(bool(x.isfinite().all()) for x in found_slopes)
    assert float((found_slopes[2].double() - slopes[2]).norm()) <= part * float(slopes[2].norm())
    if dtype == torch.float32 and not common:
        largest = max(float(x.abs().amax()) for x in (batch.q_RSHE, batch.k_RSKE))
        for found, exact in zip(found_slopes[:2], slopes[:2]):
            bound = (4 * error + 1e-5) * float(exact.norm()) + 1e-6 * largest * exact.numel() ** 0.5
            assert float((found.double() - exact).norm()) <= bound


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("count", [1, 2], ids=["1 thread", "2 threads"])
@pytest.mark.parametrize("length", [1, 33, 100])
@pytest.mark.parametrize("value", [1.0, math.nan, math.inf], ids=str)
def test_sequences_do_not_see_each_other(dtype: torch.dtype, count: int, length: int, value: float) -> None:
    batch = sequences(dtype, 4, length, size=96, kv_heads=3)
    for x in batch.all:
        x[1] *= value
        x[2, length // 2] *= value
    with threads(count):
        together = batch.run()
    for sequence in (0, 3) if value != 1 else range(4):
        with threads(1):
            alone = batch.only(sequence).run()
        assert all(same(found[sequence], one[0]) for found, one in zip(together, alone))
    for found in together:
        assert bool(found[[0, 3]].isfinite().all())
        assert bool(found[1].isnan().all()) == (value != 1)
    assert bool(together[0][2, length // 2 :].isnan().all()) == (value != 1)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("end", [1, 2, 31, 32, 33, 40, 63, 64, 65, 99])
def test_what_comes_later_changes_nothing(dtype: torch.dtype, end: int) -> None:
    """Padding after a sequence is of no account, nor are its gradients, if none comes in from there."""
    batch = sequences(dtype, 2, 100)
    batch.slope_RSHE[:, end:] = 0
    short = batch.map(lambda x: x[:, :end].clone())
    expected = short.run()
    for later in (1.0, 0.0, -1000.0):
        for x in batch.all[:3]:
            x[:, end:] *= later
        y_RSHE, *slopes = batch.run()
        assert same(y_RSHE[:, :end], expected[0])
        for found, wanted in zip(slopes, expected[1:]):
            assert same(found[:, :end], wanted)
            assert not found[:, end:].any()
        batch = Sequences(*sequences(dtype, 2, 100).all[:3], batch.slope_RSHE)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("place", [0, 5, 32, 39])
def test_a_nan_stays_with_what_attends_to_it(dtype: torch.dtype, place: int) -> None:
    batch = sequences(dtype, 1, 40, groups=2, kv_heads=2)
    whole_SHE = batch.run()[0][0]

    def broken(which: int, head: int) -> Tensor:
        """The result with a NaN in one number of a head."""
        batch = sequences(dtype, 1, 40, groups=2, kv_heads=2)
        batch.all[which][0, place, head, 7] = math.nan
        return batch.run()[0][0]

    query_SHE, key_SHE, value_SHE = broken(0, 2), broken(1, 1), broken(2, 1)
    assert bool(query_SHE[place, 2].isnan().all())
    query_SHE[place, 2] = whole_SHE[place, 2]
    assert same(query_SHE, whole_SHE)
    assert bool(key_SHE[place:, 2:].isnan().all())
    key_SHE[place:, 2:] = whole_SHE[place:, 2:]
    assert same(key_SHE, whole_SHE)
    assert bool(value_SHE[place:, 2:, 7].isnan().all())
    start = place // 32 * 32  # a weight of zero times NaN is NaN for the tokens that are worked on together
    value_SHE[start:, 2:, 7] = whole_SHE[start:, 2:, 7]
    assert same(value_SHE, whole_SHE)


@needs_library
def test_what_causal_knows() -> None:
    def knows(size: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> bool:
        return attention.knows_causal(torch.empty(1, 3, 2, size, dtype=dtype, device=device))

    assert all(map(knows, (32, 64, 96, 128, 256)))
    assert not any(map(knows, (1, 8, 16, 31, 33, 48, 80, 100)))
    assert not any(knows(64, dtype) for dtype in (torch.float64, torch.float16))
    assert not any(knows(64, dtype, "meta") for dtype in DTYPES)
    assert knows(64, torch.bfloat16) == library.multiplies_halves(library.functions())
    assert not knows(48, torch.bfloat16)


def test_causal_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "functions", lambda: None)
    batch = sequences(torch.float32, 1, 3)
    assert not attention.knows_causal(batch.q_RSHE)
    with pytest.raises(AssertionError, match="without a library"):
        batch.run()
