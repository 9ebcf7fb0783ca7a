"""One optimizer step of GRPO on groups of samples and their rewards; the loss stands in `grpo.py`'s head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.core.types import Group
from trilaw.model.llama import CausalLM
from trilaw.training.advantages import advantages, spread
from trilaw.training.batch import Completion, auto_micro_tokens, micro_batches, passes
from trilaw.training.grpo_config import GrpoConfig
from trilaw.training.loop import completion_logprobs
from trilaw.training.losses.importance import truncated_importance
from trilaw.training.losses.policy_gradient import policy_gradient
from trilaw.training.optim import Optimizer


@dataclass(frozen=True)
class Update:
    """What one optimizer step was; `gap_*` compare the log-probabilities of sampler and trainer, in nats."""

    loss: float
    grad_norm: float
    learning_rate: float
    gap_max: float
    gap_mean: float
    flops: float


def learn(
    model: CausalLM,
    optimizer: Optimizer,
    step: int,
    groups: Sequence[Group],
    rewards_PG: Tensor,
    config: GrpoConfig,
    dtype: torch.dtype = torch.float32,
    reference: CausalLM | None = None,
) -> Update:
    """One optimizer step on the groups' samples. With nothing to learn from, the first group is only compared, and nothing moves."""
    informative_P = spread(rewards_PG) if reference is None else torch.ones(len(groups), dtype=torch.bool)
    active = bool(informative_P.any())
    advantages_PG = advantages(rewards_PG, baseline=config.baseline, scale=config.std)
    chosen = torch.nonzero(informative_P).flatten().tolist() if active else [0]
    samples = [sample for p in chosen for sample in groups[p].samples]
    batch = [Completion(sample.prompt_tokens, sample.tokens) for sample in samples]
    advantage_S = advantages_PG[chosen].flatten().to(model.device)
    counted = samples if config.denominator == "informative" else [s for group in groups for s in group.samples]
    total = sum(len(sample.tokens) for sample in counted)
    loss = gap_sum = gap_max = 0.0
    micro_tokens = config.micro_tokens or auto_micro_tokens(model.arch, model.device, config.recompute, dtype)
    parts = micro_batches(batch, micro_tokens, model.device)
    for part in parts:
        with torch.set_grad_enabled(active):
            logprobs_N = completion_logprobs(model, part, dtype, config.temperature, recompute=config.recompute)
        reference_N = None
        if reference is not None:
            with torch.no_grad():
                reference_N = completion_logprobs(reference, part, dtype, config.temperature)
        sampled_N = torch.tensor([lp for i in part.order for lp in samples[i].logprobs], device=model.device)
        if active:
            advantage_N = advantage_S[part.owner_N]
            if config.quantization is not None:
                advantage_N = advantage_N * truncated_importance(logprobs_N, sampled_N, config.quantization.cap)
            share = policy_gradient(logprobs_N, advantage_N, total, reference_N=reference_N, kl=config.kl)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        gap_N = (logprobs_N.detach() - sampled_N).abs()
        gap_sum, gap_max = gap_sum + float(gap_N.sum()), max(gap_max, float(gap_N.max()))
    norm, rate = optimizer.step(step)
    tokens, pairs, learned = passes(parts)
    forward = model.arch.forward_flops(tokens, pairs, learned)
    flops = forward * ((3 if active else 1) + (0 if reference is None else 1))
    return Update(loss, norm, rate, gap_max, gap_sum / learned, flops)
