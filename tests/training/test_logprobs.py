from __future__ import annotations

import pytest
import torch

from trilaw.model.native import library
from trilaw.training.logprobs import token_logprobs


@pytest.mark.parametrize("words", [1, 4, 10_000])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tied", [False, True])
def test_sliced_head_equals_plain_computation(words: int, recompute: bool, temperature: float, tied: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    N, D, V = 13, 8, 11
    table = torch.randn(V, D, generator=generator)
    weight = torch.randn(V, D, generator=generator)
    ids, targets = torch.randint(V, (N,), generator=generator), torch.randint(V, (N,), generator=generator)
    advantage = torch.randn(N, generator=generator)

    def gradients(sliced: bool) -> tuple[torch.Tensor, ...]:
        embedding = table.clone().requires_grad_()
        head = embedding if tied else weight.clone().requires_grad_()
        hidden = torch.tanh(embedding[ids])
        hidden.retain_grad()
        if sliced:
            logprobs = token_logprobs(hidden, head, targets, temperature=temperature, recompute=recompute, words=words)
        else:
            logprobs = torch.log_softmax(hidden @ head.T / temperature, -1)[torch.arange(N), targets]
        (advantage * logprobs).sum().backward()
        return logprobs.detach(), hidden.grad, embedding.grad, head.grad

    for got, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_gradient_matches_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 3, generator=generator)
    head = torch.randn(5, 3, generator=generator).requires_grad_()
    targets = torch.tensor([0, 4, 2, 2])
    token_logprobs(hidden, head, targets, temperature=1.3, words=2).sum().backward()
    step = 1e-2
    for index in ((0, 0), (2, 1), (4, 2)):
        nudge = torch.zeros_like(head)
        nudge[index] = step
        up, down = (
            float(token_logprobs(hidden, head.detach() + s * nudge, targets, temperature=1.3).double().sum())
            for s in (1, -1)
        )
        assert (up - down) / (2 * step) == pytest.approx(float(head.grad[index]), abs=2e-3)


def test_float32_head_under_autocast() -> None:
    generator = torch.Generator().manual_seed(2)
    hidden, head = torch.randn(6, 16, generator=generator), torch.randn(9, 16, generator=generator)
    targets = torch.arange(6)
    plain = token_logprobs(hidden, head, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert token_logprobs(hidden, head, targets).equal(plain)


def test_what_stays_for_backward_is_used_once_and_then_computed_again() -> None:
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(6, 16, generator=generator).requires_grad_()
    head, targets = torch.randn(9, 16, generator=generator).requires_grad_(), torch.arange(6)
    loss = token_logprobs(hidden, head, targets, words=4).sum()
    first = torch.autograd.grad(loss, (hidden, head), retain_graph=True)
    again = torch.autograd.grad(loss, (hidden, head))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_no_tokens() -> None:
    assert token_logprobs(torch.zeros(0, 4), torch.zeros(3, 4), torch.zeros(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize("recompute", [False, True])
def test_bfloat16_head_rounds_what_goes_in_and_nothing_else(recompute: bool) -> None:
    if not library.multiplies_halves(library.functions()):
        pytest.skip("no bfloat16 products with float32 sums here")
    generator = torch.Generator().manual_seed(3)
    hidden, head = (3 * torch.randn(n, 32, generator=generator) for n in (20, 50))
    targets, slope = torch.randint(50, (20,), generator=generator), torch.randn(20, generator=generator)

    def gradients(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        x, w = (y.bfloat16().float().requires_grad_() for y in (hidden, head))
        logprobs = token_logprobs(x, w, targets, recompute=recompute, words=16, dtype=dtype)
        (slope * logprobs).sum().backward()
        assert x.grad is not None
        assert w.grad is not None
        return logprobs.detach(), x.grad, w.grad

    rounded, plain = gradients(torch.bfloat16), gradients(torch.float32)
    torch.testing.assert_close(rounded[0], plain[0], atol=1e-4, rtol=1e-5)  # logits are not rounded
    for a, b in zip(rounded[1:], plain[1:], strict=True):
        assert 0 < (a - b).norm() < 0.01 * b.norm()  # their gradients are
