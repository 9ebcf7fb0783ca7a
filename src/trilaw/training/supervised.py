"""Learning to predict given tokens, which pretrain and sft have in common: a step in micro-batches, and nats a token on held-out text.

FLOPs are those of the model: what is computed twice to save memory (logits, blocks under `recompute`) counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.model.llama import CausalLM
from trilaw.training.batch import Completion, micro_batches, passes
from trilaw.training.loop import completion_logprobs
from trilaw.training.losses.cross_entropy import cross_entropy
from trilaw.training.optim import Optimizer


@dataclass(frozen=True)
class Update:
    """What one optimizer step was; the loss is in nats a predicted token."""

    loss: float
    grad_norm: float
    learning_rate: float
    flops: float


def learn(
    model: CausalLM,
    optimizer: Optimizer,
    step: int,
    batch: Sequence[Completion],
    micro_tokens: int,
    dtype: torch.dtype = torch.float32,
    recompute: bool = False,
) -> Update:
    """One optimizer step on the mean cross-entropy of all completion tokens of the batch, `micro_tokens` tokens at a time."""
    parts = micro_batches(batch, micro_tokens, model.device)
    tokens, pairs, learned = passes(parts)
    loss = 0.0
    for part in parts:
        share = cross_entropy(completion_logprobs(model, part, dtype, recompute=recompute), learned)
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.item()
    norm, rate = optimizer.step(step)
    return Update(loss, norm, rate, model.arch.train_flops(tokens, pairs, learned))


@torch.no_grad()
def token_nats(
    model: CausalLM, batch: Sequence[Completion], micro_tokens: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """-log p of the tokens of each completion, float32, in the batch's order."""
    nats: list[Tensor] = [torch.empty(0)] * len(batch)
    for part in micro_batches(batch, micro_tokens, model.device):
        nats_N = -completion_logprobs(model, part, dtype)
        sizes = [len(batch[i].tokens) for i in part.order]
        for index, of_one in zip(part.order, torch.split(nats_N, sizes), strict=True):
            nats[index] = of_one
    return nats
