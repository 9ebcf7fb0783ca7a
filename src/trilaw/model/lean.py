"""RMSNorm and the end of SwiGLU with gradients by hand: they keep less for backward than autograd does, in no more time.

For a token autograd keeps x and x / rms(x) of a norm, and gate, up, silu(gate) and silu(gate) * up of a SwiGLU; here it is x and one number,
and gate and up. The rest is computed again in backward: a few passes over memory beside the matrix products, paid for by memory that need
not be fetched and filled. For weights in float32 or float64, as training has them; autocast may lower the products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RMSNorm(torch.autograd.Function):
    """With s = 1 / rms(x):  y = w s x,   dx = s w g - x s^3 <w g, x> / D,   dw = the sum of s g x over all tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        y: Tensor = (x * scale).mul_(weight_D)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight_D, scale = ctx.saved_tensors
        both = slope * x
        d_weight_D = scale.flatten() @ both.flatten(0, -2)
        along = (both @ weight_D)[..., None].mul_(scale**3).div_(-x.shape[-1])
        return torch.addcmul((slope * weight_D).mul_(scale), x, along), d_weight_D, None


class _GatedDown(torch.autograd.Function):
    """y = (silu(gate) * up) W^T + b."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight_DI)
        return F.linear(F.silu(gate).mul_(up), weight_DI, bias_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        gate, up, weight_DI = ctx.saved_tensors
        slope_ND = slope.flatten(0, -2)
        active = F.silu(gate)
        d_weight_DI = (slope_ND.T @ (active * up).flatten(0, -2)).to(weight_DI.dtype)
        d_inner = slope @ weight_DI.to(slope.dtype)
        d_up = active.mul_(d_inner)
        d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        d_bias_D = slope_ND.sum(0, dtype=weight_DI.dtype) if ctx.needs_input_grad[3] else None
        return d_gate, d_up, d_weight_DI, d_bias_D


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """weight * x / rms(x) over the last dimension."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps)  # type: ignore[no-untyped-call]
    return y


def gated_down(gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
    """The linear map (weight_DI, bias_D) of silu(gate) * up, both [..., I]."""
    y: Tensor = _GatedDown.apply(gate, up, weight_DI, bias_D)  # type: ignore[no-untyped-call]
    return y
