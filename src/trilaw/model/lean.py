"""RMSNorm and the end of SwiGLU with gradients by hand: they keep less for backward than autograd does, in no more time.

For a token autograd keeps x and x / rms(x) of a norm, and gate, up, silu(gate) and silu(gate) * up of a SwiGLU; here it is x and one number,
and gate and up. The rest is computed again in backward: a few passes over memory beside the matrix products, paid for by memory that need
not be fetched and filled. Where there is a C library each is one function a direction. For weights in float32 or float64, as training has them; autocast may lower the products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.native import ops
from trilaw.model.native.library import HALF


class _RMSNorm(torch.autograd.Function):
    """With s = 1 / rms(x):  y = w s x,   dx = s w g - x s^3 <w g, x> / D,   dw = the sum of s g x over all tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        ctx.eps, ctx.native = eps, dtype in HALF and ops.knows(x, weight_D)
        if ctx.native:
            ctx.save_for_backward(x, weight_D)
            return ops.add_norm(x.reshape(-1, x.shape[-1]), None, weight_D, eps, dtype).view(x.shape)
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        scale = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_D, scale)
        y: Tensor = (x * scale).mul_(weight_D).to(dtype)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if ctx.native:
            x, weight_D = ctx.saved_tensors
            d_x_ND, d_weight_D = ops.norm_slopes(x.flatten(0, -2), weight_D, ctx.eps, slope.flatten(0, -2))
            return d_x_ND.view(x.shape), d_weight_D, None, None
        x, weight_D, scale = ctx.saved_tensors
        slope = slope.to(x.dtype)
        both = slope * x
        d_weight_D = scale.flatten() @ both.flatten(0, -2)
        along = (both @ weight_D)[..., None].mul_(scale**3).div_(-x.shape[-1])
        return torch.addcmul((slope * weight_D).mul_(scale), x, along), d_weight_D, None, None


class _GatedDown(torch.autograd.Function):
    """y = (silu(gate) * up) W^T + b."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight_DI)
        if ops.knows(gate, up):
            inner = ops.gated(gate.flatten(0, -2), up.flatten(0, -2)).view(gate.shape)
        else:
            inner = F.silu(gate).mul_(up)
        return F.linear(inner, weight_DI, bias_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        gate, up, weight_DI = ctx.saved_tensors
        slope_ND = slope.flatten(0, -2)
        d_inner = slope @ weight_DI.to(slope.dtype)
        if ops.knows(gate, up, d_inner) and gate.dtype == d_inner.dtype:
            slopes = ops.gated_slopes(gate.flatten(0, -2), up.flatten(0, -2), d_inner.flatten(0, -2))
            d_gate, d_up, inner = (y.view(gate.shape) for y in slopes)
        else:
            active = F.silu(gate)
            inner = active * up
            d_up = active.mul_(d_inner)
            d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        d_weight_DI = (slope_ND.T @ inner.flatten(0, -2)).to(weight_DI.dtype)
        d_bias_D = slope_ND.sum(0, dtype=weight_DI.dtype) if ctx.needs_input_grad[3] else None
        return d_gate, d_up, d_weight_DI, d_bias_D


def rms_norm(x: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """weight * x / rms(x) over the last dimension, rounded to `dtype` (None: that of x)."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps, dtype or x.dtype)  # type: ignore[no-untyped-call]
    return y


def gated_down(gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
    """The linear map (weight_DI, bias_D) of silu(gate) * up, both [..., I]."""
    y: Tensor = _GatedDown.apply(gate, up, weight_DI, bias_D)  # type: ignore[no-untyped-call]
    return y
