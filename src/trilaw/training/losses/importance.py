"""Truncated importance weights: learning from samples of a policy that is nearly, but not quite, the one in training.

An 8-bit sampler draws from q, the trainer differentiates p. The mean over q of (p / q) A grad log p is the gradient that is meant; a ratio far above 1
would let single tokens rule the batch, so it is cut at a cap, at the price of a bias for just these tokens (Ionides 2008, "Truncated
importance sampling", doi:10.1198/106186008X320456; for quantized rollouts: Yao et al. 2025, "Your efficient RL framework secretly brings
you off-policy RL training"). Per token, as there; the ratio carries no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def truncated_importance(logprobs_N: Tensor, sampled_N: Tensor, cap: float) -> Tensor:
    """min(p / q, cap) [N], detached. logprobs_N: of the policy in training; sampled_N: those under which the tokens were drawn."""
    return torch.exp(logprobs_N.detach() - sampled_N).clamp_(max=cap)
