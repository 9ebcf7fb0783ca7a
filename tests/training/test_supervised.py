"""A step of learning given tokens, and what held-out tokens cost, against plain log-softmax."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trilaw.model.llama import CausalLM
from trilaw.training.batch import Completion
from trilaw.training.supervised import learn, token_nats

from .test_grpo import Spy, same

BATCH = [
    Completion((1, 2), (3, 4, 5)),
    Completion((6,) * 9, (7,)),
    Completion((1, 2), (11, 12)),
    Completion((8, 9, 10), (1, 63, 5, 5, 2, 40)),
]


def plain(model: CausalLM) -> list[torch.Tensor]:
    nats = []
    for one in BATCH:
        logits_TV = model.logits(model(torch.tensor([one.prompt + one.tokens])))[0]
        nats.append(F.cross_entropy(logits_TV[len(one.prompt) - 1 : -1], torch.tensor(one.tokens), reduction="none"))
    return nats


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("micro_tokens", [1, 6, 12, 1000])
def test_a_step_is_the_gradient_of_the_token_mean(tiny_model: CausalLM, micro_tokens: int, recompute: bool) -> None:
    loss = torch.cat(plain(tiny_model)).mean()
    torch.autograd.backward(loss)
    expected = {name: weight.grad for name, weight in tiny_model.named_parameters() if weight.grad is not None}
    tiny_model.zero_grad(set_to_none=True)
    spy = Spy(tiny_model)
    update = learn(tiny_model, spy, 1, BATCH, micro_tokens, recompute=recompute)  # type: ignore[arg-type]
    assert update.loss == pytest.approx(loss.item(), abs=1e-6)
    same(spy.gradient, expected)


def test_flops_count_what_passes_the_layers_once_whatever_is_computed_again(tiny_model: CausalLM) -> None:
    arch, spy = tiny_model.arch, Spy(tiny_model)
    flops = {
        (micro_tokens, recompute): learn(tiny_model, spy, 1, BATCH, micro_tokens, recompute=recompute).flops  # type: ignore[arg-type]
        for micro_tokens in (1, 1000)
        for recompute in (False, True)
    }
    pairs = (4 * 5 + 9 * 10 + 3 * 4 + 8 * 9) // 2
    assert flops[1000, False] == flops[1000, True] == arch.train_flops(2 + 2 + 1 + 9 + 8, pairs, 12)
    assert flops[1, False] == flops[1, True] == arch.train_flops(4 + 9 + 3 + 8, pairs, 12)  # the prompt of two, twice


def test_nats_come_in_the_order_of_the_batch(tiny_model: CausalLM) -> None:
    for micro_tokens in (1, 12, 1000):
        for got, expected in zip(token_nats(tiny_model, BATCH, micro_tokens), plain(tiny_model), strict=True):
            torch.testing.assert_close(got, expected.detach(), atol=1e-5, rtol=1e-5)
            assert not got.requires_grad
