"""The passes of a token's log-probability over a slice of logits, and back, in C where there is a library, else by PyTorch's operators.

Shapes: N tokens, v words of the slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trilaw.model.native import ops
from trilaw.model.native.library import HALF, functions
from trilaw.model.native.matmul import Packed, right


def exponentials(
    x_ND: Tensor, head_vD: Tensor, targets_N: Tensor, first: int, found_N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the float32 logits x head^T of a slice that begins with word `first`: exp(logits - top), top, and the sum of the exponentials. found_N
    gets the logits of the targets that are in the slice."""
    logits_Nv = x_ND @ head_vD.T.to(x_ND.dtype)
    c = functions() if logits_Nv.dtype == torch.float32 and ops.knows(logits_Nv) else None
    if c is None:
        at_N, inside_N = _within(targets_N, first, logits_Nv)
        found_N.copy_(torch.where(inside_N, logits_Nv.gather(1, at_N[:, None])[:, 0], found_N))
        top_N = logits_Nv.amax(dim=-1)
        above_Nv = logits_Nv.sub_(top_N[:, None]).exp_()
        return above_Nv, top_N, above_Nv.sum(dim=-1)
    top_N, total_N = torch.empty(2, len(logits_Nv))
    outputs = (x.data_ptr() for x in (top_N, total_N, found_N))
    addresses = (logits_Nv.data_ptr(), targets_N.data_ptr(), first, *outputs)
    c.trilaw_exponentials(*logits_Nv.shape, *addresses, torch.get_num_threads())
    return logits_Nv, top_N, total_N


def packed_exponentials(
    x: Packed, head_vD: Tensor, targets_N: Tensor, first: int, found_N: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by bfloat16 products with float32 sums: x as their left operand. The exponentials are bfloat16 then."""
    c = functions()
    if c is None:
        raise AssertionError("native products without a library")
    head = right(head_vD)
    kept_Nv = torch.empty(x.rows, head.rows, dtype=torch.bfloat16)
    top_N, total_N = torch.empty(2, x.rows)
    operands = (x.inputs, x.rows, head.rows, x.numbers.data_ptr(), head.numbers.data_ptr())
    outputs = (y.data_ptr() for y in (top_N, total_N, found_N, kept_Nv))
    c.trilaw_head(*operands, targets_N.data_ptr(), first, *outputs, torch.get_num_threads())
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
