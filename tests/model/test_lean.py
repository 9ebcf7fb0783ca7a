"""The gradients written by hand against finite differences and against autograd's, and what they keep."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from trilaw.core.arch import Arch
from trilaw.model.layers import Embedding, RMSNorm, SwiGLU, lowered
from trilaw.model.lean import gated_down, rms_norm
from trilaw.model.native.library import functions


def drawn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def plain_norm(x: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    return weight_D * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def test_finite_differences_agree() -> None:
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-5), (drawn(2, 3, 5), drawn(5, seed=1)))
    gate, up, weight, bias = drawn(2, 3, 4), drawn(2, 3, 4, seed=1), drawn(5, 4, seed=2), drawn(5, seed=3)
    assert torch.autograd.gradcheck(gated_down, (gate, up, weight, bias))
    assert torch.autograd.gradcheck(lambda *given: gated_down(*given, None), (gate, up, weight))


@pytest.mark.parametrize("shape", [(7, 64), (2, 9, 64), (1, 1, 64), (0, 64)])
def test_a_norm_is_that_of_plain_operations(shape: tuple[int, ...]) -> None:
    x, weight = drawn(*shape, dtype=torch.float32), drawn(64, dtype=torch.float32, seed=1)
    slope = drawn(*shape, dtype=torch.float32, seed=2).detach()
    got, expected = rms_norm(x, weight, 1e-5), plain_norm(x, weight)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), slope) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_norm_of_zeros_is_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    rms_norm(x, torch.ones(8), 1e-5).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.fixture
def swiglu() -> SwiGLU:
    arch = Arch(64, 32, 48, layers=1, heads=4, kv_heads=2, head_dim=8, max_positions=64, mlp_bias=True)
    module, generator = SwiGLU(arch), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(0.0, 0.2, generator=generator)
    return module


def gradients(module: SwiGLU, y: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    return list(torch.autograd.grad(y, (x, *module.parameters()), slope))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_swiglu_is_that_of_plain_operations_also_under_autocast(
    swiglu: SwiGLU, dtype: torch.dtype, bound: float
) -> None:
    x = drawn(2, 9, 32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = swiglu(x)
    expected = swiglu.down_proj(F.silu(swiglu.gate_proj(x)) * swiglu.up_proj(x))
    assert got.dtype == dtype
    assert (got - expected).norm() < bound * expected.norm()
    for a, b in zip(gradients(swiglu, got, x), gradients(swiglu, expected, x), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < bound * b.norm()


def kept(compute: Callable[[], object]) -> list[tuple[int, ...]]:
    """Shapes of what autograd keeps, weights aside."""
    shapes: dict[int, tuple[int, ...]] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if not isinstance(saved, torch.nn.Parameter) and saved.dim() > 2:
            shapes[saved.data_ptr()] = tuple(saved.shape)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        compute()
    return sorted(shapes.values())


def test_backward_keeps_an_input_and_a_number_and_gate_and_up(swiglu: SwiGLU) -> None:
    x = drawn(2, 9, 32, dtype=torch.float32)
    norm = RMSNorm(32, 1e-5)
    scale = [] if functions() else [(2, 9, 1)]  # C computes it again
    assert kept(lambda: norm(x)) == [*scale, (2, 9, 32)]
    assert kept(lambda: swiglu(x)) == [(2, 9, 48), (2, 9, 48)]  # and x, flat


def test_without_gradients_the_results_are_the_same(swiglu: SwiGLU) -> None:
    x = drawn(2, 9, 32, dtype=torch.float32)
    norm = RMSNorm(32, 1e-5)
    with torch.inference_mode():
        alone = norm(x), swiglu(x)
    torch.testing.assert_close((norm(x), swiglu(x)), alone, atol=1e-6, rtol=1e-6)


def learned(module: torch.nn.Module, x: torch.Tensor, parts: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """The gradients of the module's weights after `parts` backward passes, each on another part of x."""
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        weight.grad = None
    for part in x.chunk(parts):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = module(lowered(part) if part.is_floating_point() else part)
        y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_of_parts_are_added_up_in_float32(
    swiglu: SwiGLU, dtype: torch.dtype, bound: float, parts: int
) -> None:
    x = drawn(6, 9, 32, dtype=torch.float32).detach()
    found = learned(swiglu, x, parts, dtype)
    expected = learned(deepcopy(swiglu).double(), x.double(), parts, torch.float64)
    assert len(found) == len(expected) == 6
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < bound * b.norm()


def test_a_gradient_that_is_kept_is_added_to_in_place() -> None:
    table = Embedding(7, 4)
    torch.nn.init.normal_(table.weight)
    tokens = torch.tensor([[3, 3, 0], [6, 3, 1]])
    first = learned(table, tokens, 1, torch.float32)[0].clone()
    assert torch.equal(first[[2, 4, 5]], torch.zeros(3, 4))
    held = table.weight.grad
    assert held is not None
    table(tokens).backward(torch.ones(2, 3, 4))
    assert table.weight.grad is held
    counts = torch.tensor([1.0, 1, 0, 3, 0, 0, 1])
    torch.testing.assert_close(held, first + counts[:, None])


def test_whoever_watches_a_gradient_gets_it() -> None:
    table, seen = Embedding(7, 4), []
    torch.nn.init.normal_(table.weight)
    table.weight.register_hook(lambda gradient: seen.append(gradient.sum().item()))
    for _ in range(2):
        table(torch.tensor([1, 2])).sum().backward()
    assert seen == [8.0, 8.0]
    assert table.weight.grad is not None
    assert table.weight.grad.sum() == 16


def test_embedding_is_that_of_pytorch_also_with_gradients_asked_for() -> None:
    table = Embedding(7, 4)
    torch.nn.init.normal_(table.weight)
    tokens, slope = (
        torch.tensor([[3, 3, 0], [6, 3, 1]]),
        torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1)),
    )
    (found,) = torch.autograd.grad(table(tokens), table.weight, slope)
    (expected,) = torch.autograd.grad(F.embedding(tokens, table.weight), table.weight, slope)
    torch.testing.assert_close(found, expected)
