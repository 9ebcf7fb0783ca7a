"""Advantages: how much better each sample was than the others of its problem. [P, G] rewards in, [P, G] advantages out.

group_mean: r - mean of the group (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783). leave_one_out: r - mean of the OTHERS (RLOO, Ahmadian
et al. 2024, arXiv:2402.14740), which is group_mean times G / (G - 1). Scaling by a standard deviation is off by default: the group's
own over-weights problems that are nearly always or nearly never solved. A group without spread has advantage 0 throughout.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Baseline = Literal["group_mean", "leave_one_out"]
Scale = Literal["none", "group", "batch"]


def advantages(rewards_PG: Tensor, *, baseline: Baseline = "group_mean", scale: Scale = "none") -> Tensor:
    """float32 [P, G]. `scale`: divide by the population standard deviation of nothing, of the group, or of the whole batch."""
    size = rewards_PG.shape[1]
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    # Exactly 0 where all rewards are equal, whatever rounding the mean has.
    centred_PG = torch.where(spread(rewards_PG)[:, None], centred_PG, 0.0)
    if baseline == "leave_one_out" and size > 1:
        centred_PG = centred_PG * (size / (size - 1))
    if scale == "group":
        deviation = rewards_PG.std(dim=1, keepdim=True, correction=0)
    elif scale == "batch":
        deviation = rewards_PG.std(correction=0)
    else:
        return centred_PG
    return torch.where(deviation > 0, centred_PG / deviation.clamp_min(1e-12), 0.0)


def spread(rewards_PG: Tensor) -> Tensor:
    """bool [P]: which groups have samples of different reward, that is, something to learn from."""
    return rewards_PG.amax(dim=1) > rewards_PG.amin(dim=1)
