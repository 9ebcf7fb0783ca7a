"""The passes of a token's log-probability over a slice of logits, and back, in C where there is a library, else by PyTorch's operators.

Shapes: N tokens, v words of the slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trilaw.model.native import ops
from trilaw.model.native.library import HALF, functions


def exponentials(
    logits_Nv: Tensor, targets_N: Tensor, first: int, found_N: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """exp(logits - top) in `dtype`, top, and the sum of the exponentials; found_N gets the logits of the targets that are in the slice, which
    begins with word `first`. logits_Nv, float32, is used up."""
    c = functions() if ops.knows(logits_Nv) and dtype in HALF else None
    if c is None:
        at_N, inside_N = _within(targets_N, first, logits_Nv)
        found_N.copy_(torch.where(inside_N, logits_Nv.gather(1, at_N[:, None])[:, 0], found_N))
        top_N = logits_Nv.amax(dim=-1)
        above_Nv = logits_Nv.sub_(top_N[:, None]).exp_()
        return above_Nv.to(dtype), top_N, above_Nv.sum(dim=-1)
    top_N, total_N = (torch.empty(len(logits_Nv)) for _ in range(2))
    kept_Nv = logits_Nv if dtype == torch.float32 else torch.empty_like(logits_Nv, dtype=dtype)
    outputs = (x.data_ptr() for x in (top_N, total_N, found_N, kept_Nv))
    addresses = (logits_Nv.data_ptr(), targets_N.data_ptr(), first, *outputs)
    c.trilaw_exponentials(*logits_Nv.shape, *addresses, HALF[dtype], torch.get_num_threads())
    return kept_Nv, top_N, total_N


def logit_slopes_(kept_Nv: Tensor, factor_N: Tensor, targets_N: Tensor, first: int, slope_N: Tensor) -> Tensor:
    """kept * factor, plus slope at the targets that are in the slice: in place."""
    c = functions() if ops.knows(kept_Nv) else None
    if c is None:
        at_N, inside_N = _within(targets_N, first, kept_Nv)
        kept_Nv.mul_(factor_N[:, None].to(kept_Nv.dtype))
        return kept_Nv.scatter_add_(1, at_N[:, None], (slope_N * inside_N)[:, None].to(kept_Nv.dtype))
    addresses = (kept_Nv.data_ptr(), factor_N.data_ptr(), targets_N.data_ptr(), first, slope_N.data_ptr())
    c.trilaw_logit_slopes(*kept_Nv.shape, *addresses, HALF[kept_Nv.dtype], torch.get_num_threads())
    return kept_Nv


def _within(targets_N: Tensor, first: int, logits_Nv: Tensor) -> tuple[Tensor, Tensor]:
    """The targets as places in a slice that begins with word `first` (some place for those of other slices), and which are of this one."""
    at_N, width = targets_N - first, logits_Nv.shape[1]
    return at_N.clamp(0, width - 1), (at_N >= 0) & (at_N < width)
