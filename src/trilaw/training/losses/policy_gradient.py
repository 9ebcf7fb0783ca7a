"""The policy-gradient loss of GRPO with one update a batch: -sum(A log p) / tokens, with an optional pull to a reference model.

REINFORCE with a group baseline (Shao et al. 2024, arXiv:2402.03300; token-level normalisation: Yu et al. 2025, arXiv:2503.14476).
Samples come from the very weights that are trained, so the importance ratio is 1 and clipping has nothing to do: both are left out.
The normaliser is a count of the GLOBAL batch, so micro-batches return shares that add up. The pull is the k3 estimate of
KL(policy || reference), exp(d) - d - 1 with d = log p_ref - log p (Schulman 2020, "Approximating KL divergence").
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient(
    logprobs_N: Tensor, advantages_N: Tensor, total: int, *, reference_N: Tensor | None = None, kl: float = 0.0
) -> Tensor:
    """This micro-batch's share of the batch's loss.

    logprobs_N: of the sampled tokens, with gradient. advantages_N: each token has its sample's. total: tokens of the whole batch that
    the loss is averaged over. reference_N: the reference model's log-probabilities, needed when `kl` is above 0.
    """
    loss = -(advantages_N * logprobs_N).sum()
    if reference_N is not None and kl > 0:
        gap_N = reference_N - logprobs_N
        loss = loss + kl * (torch.exp(gap_N) - gap_N - 1).sum()
    return loss / total
