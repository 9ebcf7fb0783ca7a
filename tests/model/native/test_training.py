"""What training adds: gradients of norm, SwiGLU and rotation, and the passes over logits, against float64 and autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.model.native.tensors import DTYPES, needs_library, randn, same, threads
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.model.native import build, library, ops, softmax
from trilaw.model.native.matmul import left
from trilaw.model.rope import Rotary, rotate, rotate_both

BOUND = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def near(found: Tensor, exact: Tensor) -> bool:
    return bool((found.double() - exact).norm() <= BOUND[found.dtype] * exact.norm() + 1e-12)


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 3), (3, 7), (5, 16), (9, 40), (130, 576)])
def test_slopes_of_a_norm(dtype: torch.dtype, rows: int, size: int) -> None:
    x, weight, slope = randn(1, rows, size), randn(2, size), randn(3, rows, size).to(dtype)
    exact = [y.double().requires_grad_() for y in (x, weight)]
    (F.rms_norm(exact[0], (size,), exact[1], 1e-5)).backward(slope.double())
    found = ops.norm_slopes(x, weight, 1e-5, slope)
    assert all(near(a, b.grad) for a, b in zip(found, exact, strict=True) if b.grad is not None)
    with threads(2):
        assert all(
            same(a, b)
            for a, b in zip(
                ops.norm_slopes(x, weight, 1e-5, slope), ops.norm_slopes(x, weight, 1e-5, slope), strict=True
            )
        )


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 7), (5, 16), (9, 40), (130, 1536)])
def test_slopes_of_swiglu(dtype: torch.dtype, rows: int, size: int) -> None:
    gate, up, slope = (4 * randn(seed, rows, size).to(dtype) for seed in (1, 2, 3))
    exact = [y.double().requires_grad_() for y in (gate, up)]
    inner = F.silu(exact[0]) * exact[1]
    inner.backward(slope.double())
    d_gate, d_up, again = ops.gated_slopes(gate, up, slope)
    assert near(again, inner.detach())
    assert exact[0].grad is not None
    assert exact[1].grad is not None
    assert near(d_gate, exact[0].grad)
    assert near(d_up, exact[1].grad)


@needs_library
def test_saturated_gates_have_finite_slopes() -> None:
    gate, ones = torch.tensor([[-1e4, 1e4, 0.0, -88.0] * 5]), torch.ones(1, 20)
    d_gate, d_up, _ = ops.gated_slopes(gate, ones, ones)
    assert torch.allclose(d_gate[0, :3], torch.tensor([0.0, 1.0, 0.5]))
    assert torch.allclose(d_up, F.silu(gate))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES)
def test_turning_back_is_the_other_way(dtype: torch.dtype) -> None:
    x, angle = randn(1, 6, 3, 48).to(dtype), randn(2, 6, 24)
    y = ops.rotate_(ops.rotate_(x.clone(), angle.cos(), angle.sin()), angle.cos(), angle.sin(), back=True)
    assert near(y, x.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_queries_and_keys_are_turned_as_by_plain_operations(dtype: torch.dtype) -> None:
    arch = Arch(64, 32, 48, layers=1, heads=4, kv_heads=2, head_dim=16, max_positions=64)
    tables = Rotary(arch)(torch.arange(9)[None], torch.float32)
    q, k = (randn(seed, 1, 9, heads, 16).to(dtype).requires_grad_() for seed, heads in ((1, 4), (2, 2)))
    found = rotate_both(q, k, *tables)
    expected = [rotate(x.detach().double().requires_grad_(), *(t.double() for t in tables)) for x in (q, k)]
    assert all(a.dtype == dtype and near(a.detach(), b.detach()) for a, b in zip(found, expected, strict=True))
    for x, y, heads in ((q, found[0], 4), (k, found[1], 2)):
        slope = randn(5, 1, 9, heads, 16).to(dtype)
        (d_x,) = torch.autograd.grad(y, x, slope, retain_graph=True)
        exact = x.detach().double().requires_grad_()
        (d_exact,) = torch.autograd.grad(rotate(exact, *(t.double() for t in tables)), exact, slope.double())
        assert near(d_x, d_exact)


@pytest.mark.parametrize("way", ["C", "C, bfloat16", "PyTorch"])
@pytest.mark.parametrize("rows", [1, 7, 25])
@pytest.mark.parametrize("size", [1, 5, 16, 130])
def test_passes_over_logits(way: str, rows: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dtype, library_ = torch.bfloat16 if "bfloat16" in way else torch.float32, library.functions()
    if way == "PyTorch":
        monkeypatch.setattr(softmax, "functions", lambda: None)
    elif library_ is None or (dtype == torch.bfloat16 and not library.multiplies_halves(library_)):
        pytest.skip(build.why_not() or "the library has no bfloat16 products")
    x, head, first = randn(1, rows, 9).to(dtype), 2 * randn(4, size, 9), 100
    logits = x.double() @ head.to(dtype).double().T
    some = [100, 99 + size, 99, 100 + size, 0, 100 + size // 2, 100] * 4  # some of them in other slices
    targets, found = torch.tensor(some[:rows]), torch.full((rows,), 9.0)
    slope, factor = randn(2, rows), randn(3, rows)
    if dtype == torch.bfloat16:
        kept, top, total = softmax.packed_exponentials(left(x), head, targets, first, found)
    else:
        kept, top, total = softmax.exponentials(x, head, targets, first, found)
    inside = (targets >= first) & (targets < first + size)
    place = (targets - first).clamp(0, size - 1)
    expected = torch.where(inside, logits[torch.arange(rows), place], 9.0)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-5)  # also in bfloat16: logits are not rounded
    assert torch.allclose(top.double(), logits.amax(1), rtol=1e-5, atol=1e-5)
    exact = (logits - logits.amax(1, keepdim=True)).exp()
    assert kept.dtype == dtype
    assert near(kept, exact)
    assert torch.allclose(total.double(), exact.sum(1), rtol=1e-4)
    expected = kept.double() * factor.double()[:, None]
    expected[torch.arange(rows), place] += slope.double() * inside
    turned = softmax.logit_slopes_(kept, factor, targets, first, slope)
    assert turned.data_ptr() == kept.data_ptr()
    assert near(turned, expected)
