"""The parts of a Llama block with gradients by hand: they keep less for backward than autograd does, in no more time.

For a token autograd keeps x and x / rms(x) of a norm, and gate, up, silu(gate) and silu(gate) * up of a SwiGLU; here it is x and one number,
and gate and up. The rest is computed again in backward: a few passes over memory beside the matrix products, paid for by memory that need
not be fetched and filled. Where there is a C library each is one function a direction. For weights in float32 or float64, as training has them;
autocast may lower the products.

A linear map under bfloat16 autocast is three products (`native/matmul.py`) that take the float32 weights as they are, and add its gradient to
the one that is kept, in float32: no copies of weights in bfloat16, no rounding of their gradients, no additions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.gradients import kept_gradient
from trilaw.model.native import matmul, ops
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


class _Embed(torch.autograd.Function):
    """The rows of a table. Most of a gradient in the table's shape would be zeros: it is made once a step, and added to."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table_VD: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, table_VD)
        return F.embedding(tokens, table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor | None]:
        tokens, table_VD = ctx.saved_tensors
        kept_VD = kept_gradient(table_VD)
        d_table_VD = torch.zeros_like(table_VD) if kept_VD is None else kept_VD
        d_table_VD.index_add_(0, tokens.flatten(), slope.flatten(0, -2).to(d_table_VD.dtype))
        return None, d_table_VD if kept_VD is None else None


class _Linear(torch.autograd.Function):
    """y = x W^T + b in bfloat16, by products of our own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return matmul.matmul(x.flatten(0, -2), weight_OI, bias_O).view(*x.shape[:-1], len(weight_OI))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x, weight_OI = ctx.saved_tensors
        slope_NO = slope.flatten(0, -2)
        d_x = matmul.matmul(slope_NO, weight_OI.T, dtype=x.dtype).view(x.shape)
        return d_x, *_slopes_of_map(ctx, slope_NO, x.flatten(0, -2), weight_OI)


class _GatedDown(torch.autograd.Function):
    """y = (silu(gate) * up) W^T + b."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight_DI)
        if ops.knows(gate, up):
            inner = ops.gated(gate.flatten(0, -2), up.flatten(0, -2)).view(gate.shape)
        else:
            inner = F.silu(gate).mul_(up)
        if multiplies(inner, weight_DI):
            return matmul.matmul(inner.flatten(0, -2), weight_DI, bias_D).view(*gate.shape[:-1], len(weight_DI))
        return F.linear(inner, weight_DI, bias_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        gate, up, weight_DI = ctx.saved_tensors
        slope_ND = slope.flatten(0, -2)
        if multiplies(slope, weight_DI):
            d_inner = matmul.matmul(slope_ND, weight_DI.T).view(gate.shape)
        else:
            d_inner = slope @ weight_DI.to(slope.dtype)
        if ops.knows(gate, up, d_inner) and gate.dtype == d_inner.dtype:
            slopes = ops.gated_slopes(gate.flatten(0, -2), up.flatten(0, -2), d_inner.flatten(0, -2))
            d_gate, d_up, inner = (y.view(gate.shape) for y in slopes)
        else:
            active = F.silu(gate)
            inner = active * up
            d_up = active.mul_(d_inner)
            d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        return d_gate, d_up, *_slopes_of_map(ctx, slope_ND, inner.flatten(0, -2), weight_DI)


def _slopes_of_map(ctx: Any, slope_NO: Tensor, x_NI: Tensor, weight_OI: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a linear map's weight and bias, the last two inputs of a function, from that of what it gives."""
    d_bias_O = slope_NO.sum(0, dtype=weight_OI.dtype) if ctx.needs_input_grad[-1] else None
    if not multiplies(slope_NO, weight_OI):
        return (slope_NO.T @ x_NI).to(weight_OI.dtype), d_bias_O
    kept_OI = kept_gradient(weight_OI)
    if kept_OI is None:
        return matmul.matmul(slope_NO.T, x_NI.T, dtype=torch.float32), d_bias_O
    matmul.matmul(slope_NO.T, x_NI.T, out=kept_OI, add=True)
    return None, d_bias_O


def rms_norm(x: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """weight * x / rms(x) over the last dimension, rounded to `dtype` (None: that of x)."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps, dtype or x.dtype)  # type: ignore[no-untyped-call]
    return y


def embed(tokens: Tensor, table_VD: Tensor) -> Tensor:
    """The rows [..., D] of the table that the tokens name."""
    y: Tensor = _Embed.apply(tokens, table_VD)  # type: ignore[no-untyped-call]
    return y


def multiplies(x: Tensor, weight_OI: Tensor) -> bool:
    """Whether `linear` takes them: bfloat16 numbers and float32 weights, where there are products for them."""
    return x.dtype == torch.bfloat16 and weight_OI.dtype == torch.float32 and matmul.knows(x, weight_OI)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b over the last dimension, in bfloat16."""
    y: Tensor = _Linear.apply(x, weight_OI, bias_O)  # type: ignore[no-untyped-call]
    return y


def gated_down(gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None) -> Tensor:
    """The linear map (weight_DI, bias_D) of silu(gate) * up, both [..., I]."""
    y: Tensor = _GatedDown.apply(gate, up, weight_DI, bias_D)  # type: ignore[no-untyped-call]
    return y
