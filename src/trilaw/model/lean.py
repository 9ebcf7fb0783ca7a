"""The parts of a Llama block with gradients by hand: they keep less for backward than autograd does, in no more time.

For a token autograd keeps x and x / rms(x) of a norm, and gate, up, silu(gate) and silu(gate) * up of a SwiGLU; here it is x and one number,
and gate and up. The rest is computed again in backward: a few passes over memory beside the matrix products, paid for by memory that need
not be fetched and filled. Where there is a C library each is one function a direction. For weights in float32 or float64, as training has them;
autocast may lower the products.

Linear maps under bfloat16 autocast are products of our own (`native/matmul.py`), which take float32 weights as they are and add a weight's
gradient to the one that is kept, in float32: no copies of weights in bfloat16, no rounding of their gradients, no additions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.gradients import kept_gradient
from trilaw.model.native import ops
from trilaw.model.native.library import HALF
from trilaw.model.native.matmul import Packed, knows, left, multiply, right


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


class _Maps(torch.autograd.Function):
    """x W^T + b for several (W, b), by products of our own; base + x W^T + b for a single one, in the dtype of the base."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor | None, *weights: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights[::2])
        rows = left(x.flatten(0, -2))
        dtype = torch.bfloat16 if base is None else base.dtype
        base_NO = None if base is None else base.flatten(0, -2)
        maps = zip(weights[::2], weights[1::2], strict=True)
        made = (multiply(rows, right(w), b, base_MN=base_NO, dtype=dtype) for w, b in maps if w is not None)
        return tuple(y_NO.view(*x.shape[:-1], -1) for y_NO in made)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        x_columns, d_x_NI, found = right(x.flatten(0, -2).T, turns=True), None, []
        for place, (weight_OI, slope) in enumerate(zip(weights, slopes, strict=True)):
            slope_NO = slope.flatten(0, -2)
            d_x_NI = multiply(left(slope_NO), right(weight_OI.T), base_MN=d_x_NI, out_MN=d_x_NI, dtype=x.dtype)
            wants_bias = ctx.needs_input_grad[3 + 2 * place]
            found += [
                _add_slope(weight_OI, slope_NO, x_columns),
                slope_NO.sum(0, dtype=weight_OI.dtype) if wants_bias else None,
            ]
        return None if d_x_NI is None else d_x_NI.view(x.shape), slopes[0] if ctx.needs_input_grad[1] else None, *found


class _GatedDown(torch.autograd.Function):
    """y = base + (silu(gate) * up) W^T + b."""

    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, base: Tensor | None, weight_DI: Tensor, bias_D: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(gate, up, weight_DI)
        if ops.knows(gate, up):
            inner = ops.gated(gate.flatten(0, -2), up.flatten(0, -2)).view(gate.shape)
        else:
            inner = F.silu(gate).mul_(up)
        if not multiplies(inner, weight_DI):
            y = F.linear(inner, weight_DI, bias_D)
            return y if base is None else base + y
        base_ND = None if base is None else base.flatten(0, -2)
        dtype = inner.dtype if base is None else base.dtype
        y_ND = multiply(left(inner.flatten(0, -2)), right(weight_DI), bias_D, base_MN=base_ND, dtype=dtype)
        return y_ND.view(*gate.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight_DI = ctx.saved_tensors
        slope_ND = slope.flatten(0, -2)
        ours = multiplies(gate, weight_DI)
        if ours:
            d_inner = multiply(left(slope_ND), right(weight_DI.T)).view(gate.shape)
        else:
            d_inner = slope.to(gate.dtype) @ weight_DI.to(gate.dtype)
        if ops.knows(gate, up, d_inner):
            slopes = ops.gated_slopes(gate.flatten(0, -2), up.flatten(0, -2), d_inner.flatten(0, -2))
            d_gate, d_up, inner = (y.view(gate.shape) for y in slopes)
        else:
            active = F.silu(gate)
            inner = active * up
            d_up = active.mul_(d_inner)
            d_gate = torch.ops.aten.silu_backward(d_inner.mul_(up), gate)
        inner_NI = inner.flatten(0, -2)
        if ours:
            d_weight_DI = _add_slope(weight_DI, slope_ND, right(inner_NI.T, turns=True))
        else:
            d_weight_DI = (slope_ND.to(gate.dtype).T @ inner_NI).to(weight_DI.dtype)
        d_bias_D = slope_ND.sum(0, dtype=weight_DI.dtype) if ctx.needs_input_grad[4] else None
        return d_gate, d_up, slope if ctx.needs_input_grad[2] else None, d_weight_DI, d_bias_D


def _add_slope(weight_OI: Tensor, slope_NO: Tensor, x_columns: Packed) -> Tensor | None:
    """The gradient of a map's weight from that of what it gives; None if it was added to the one that is kept."""
    kept_OI = kept_gradient(weight_OI)
    d_weight_OI = multiply(
        left(slope_NO.T, turns=True), x_columns, base_MN=kept_OI, out_MN=kept_OI, dtype=torch.float32
    )
    return d_weight_OI if kept_OI is None else None


def rms_norm(x: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor:
    """weight * x / rms(x) over the last dimension, rounded to `dtype` (None: that of x)."""
    y: Tensor = _RMSNorm.apply(x, weight_D, eps, dtype or x.dtype)  # type: ignore[no-untyped-call]
    return y


def embed(tokens: Tensor, table_VD: Tensor) -> Tensor:
    """The rows [..., D] of the table that the tokens name."""
    y: Tensor = _Embed.apply(tokens, table_VD)  # type: ignore[no-untyped-call]
    return y


def multiplies(x: Tensor, *weights: Tensor) -> bool:
    """Whether `maps` takes them: bfloat16 numbers and float32 weights, where there are products for them."""
    return x.dtype == torch.bfloat16 and all(w.dtype == torch.float32 for w in weights) and knows(x, *weights)


def maps(x: Tensor, *weights: tuple[Tensor, Tensor | None], base: Tensor | None = None) -> tuple[Tensor, ...]:
    """x W^T + b over the last dimension, in bfloat16, for each (W, b); `base` plus that, in its dtype, where there is a single one."""
    y: tuple[Tensor, ...] = _Maps.apply(x, base, *(w for pair in weights for w in pair))  # type: ignore[no-untyped-call]
    return y


def gated_down(
    gate: Tensor, up: Tensor, weight_DI: Tensor, bias_D: Tensor | None, base: Tensor | None = None
) -> Tensor:
    """The linear map (weight_DI, bias_D) of silu(gate) * up, both [..., I]; plus `base`, if there is one, in its dtype."""
    y: Tensor = _GatedDown.apply(gate, up, base, weight_DI, bias_D)  # type: ignore[no-untyped-call]
    return y
