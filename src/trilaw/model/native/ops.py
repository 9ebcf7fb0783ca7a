"""The C functions on tensors, each with what it computes in PyTorch's operators, which do the work where there is no library.

All are for inference on a CPU: no gradients. Tensors are float32 or bfloat16; `x`, the residual stream, is float32 always. Tensors are
contiguous, but for gate and up, and for queries, keys and values, whose rows may lie further apart.

Shapes: N rows, B rows of a batch, D hidden size, I inner size, H heads, E head size, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trilaw.model.native.library import HALF, functions


def add_norm(x_ND: Tensor, delta_ND: Tensor | None, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x += delta, in place; then weight * x / rms(x) in `dtype`, which is delta's too. weight_D is float32."""
    out_ND = torch.empty_like(x_ND, dtype=dtype)
    if delta_ND is not None:
        delta_ND = delta_ND.contiguous()
    if (c := functions()) is None:
        if delta_ND is not None:
            x_ND += delta_ND
        return out_ND.copy_(F.rms_norm(x_ND, weight_D.shape, weight_D, eps))
    c.trilaw_add_norm(
        x_ND.shape[0],
        x_ND.shape[1],
        x_ND.data_ptr(),
        None if delta_ND is None else delta_ND.data_ptr(),
        weight_D.data_ptr(),
        eps,
        out_ND.data_ptr(),
        HALF[dtype],
        torch.get_num_threads(),
    )
    return out_ND


def gated(gate_NI: Tensor, up_NI: Tensor) -> Tensor:
    """silu(gate) * up, contiguous; the rows of both lie equally far apart."""
    if (c := functions()) is None:
        return F.silu(gate_NI) * up_NI
    out_NI = gate_NI.new_empty(gate_NI.shape)
    c.trilaw_gated(
        gate_NI.shape[0],
        gate_NI.shape[1],
        gate_NI.data_ptr(),
        up_NI.data_ptr(),
        gate_NI.stride(0),
        out_NI.data_ptr(),
        HALF[gate_NI.dtype],
        torch.get_num_threads(),
    )
    return out_NI


def rotate_(x_NHE: Tensor, cos_NF: Tensor, sin_NF: Tensor, *, back: bool = False) -> Tensor:
    """x turned by its position, in place: [x1 cos - x2 sin, x2 cos + x1 sin] over the halves of E. cos, sin: float32, F = E / 2. back: the
    other way."""
    if (c := functions()) is None:
        first, second = x_NHE.float().chunk(2, -1)
        cos, sin = cos_NF[:, None], -sin_NF[:, None] if back else sin_NF[:, None]
        return x_NHE.copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), -1))
    rows, heads, size = x_NHE.shape
    c.trilaw_rotate(
        rows,
        heads,
        size,
        x_NHE.data_ptr(),
        x_NHE.stride(0),
        cos_NF.data_ptr(),
        sin_NF.data_ptr(),
        cos_NF.stride(0),
        -1.0 if back else 1.0,
        HALF[x_NHE.dtype],
        torch.get_num_threads(),
    )
    return x_NHE


def gated_slopes(gate_NI: Tensor, up_NI: Tensor, slope_NI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of gate and up from that of silu(gate) * up, and silu(gate) * up. All in one dtype. Needs the library."""
    c = functions()
    if c is None:
        raise AssertionError("native gradients without a library")
    inputs = [x.contiguous() for x in (gate_NI, up_NI, slope_NI)]
    outputs = [torch.empty_like(inputs[0]) for _ in range(3)]
    addresses = (x.data_ptr() for x in (*inputs, *outputs))
    c.trilaw_gated_slopes(*gate_NI.shape, *addresses, HALF[gate_NI.dtype], torch.get_num_threads())
    return outputs[0], outputs[1], outputs[2]


def norm_slopes(x_ND: Tensor, weight_D: Tensor, eps: float, slope_ND: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x and weight from that of weight * x / rms(x), which may be bfloat16. Needs the library."""
    c = functions()
    if c is None:
        raise AssertionError("native gradients without a library")
    x_ND, slope_ND = x_ND.contiguous(), slope_ND.contiguous()
    d_x_ND, d_weight_D = torch.empty_like(x_ND), torch.empty_like(weight_D)
    inputs = (x_ND.data_ptr(), weight_D.data_ptr(), eps, slope_ND.data_ptr())
    outputs = (d_x_ND.data_ptr(), d_weight_D.data_ptr())
    c.trilaw_norm_slopes(*x_ND.shape, *inputs, *outputs, HALF[slope_ND.dtype], torch.get_num_threads())
    return d_x_ND, d_weight_D


def knows(*tensors: Tensor) -> bool:
    """Whether the functions here take such tensors: float32 or bfloat16, on a CPU, where there is a library."""
    return all(x.device.type == "cpu" and x.dtype in HALF for x in tensors) and functions() is not None


def draw(logits_BV: Tensor, heat_B: Tensor | None, u_B: Tensor, greedy_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """A token a row by the inverse of its cumulative distribution, and the token's log-probability: int64 and float32 [B].

    heat_B: float32 temperatures, None: all 1. u_B: float64 in [0, 1). greedy_B: bool, None: no row is greedy. `engine/sampling.py` says what is
    computed, and does it where there is no library. A row with a NaN, or without a finite maximum, gets a NaN for its log-probability.
    """
    c = functions()
    if c is None:
        raise AssertionError("native sampling without a library")
    logits_BV, u_B = logits_BV.contiguous(), u_B.contiguous()
    rows, size = logits_BV.shape
    token_B = torch.empty(rows, dtype=torch.int64)
    logprob_B = torch.empty(rows, dtype=torch.float32)
    c.trilaw_draw(
        rows,
        size,
        logits_BV.data_ptr(),
        None if heat_B is None else heat_B.data_ptr(),
        u_B.data_ptr(),
        None if greedy_B is None else greedy_B.data_ptr(),
        token_B.data_ptr(),
        logprob_B.data_ptr(),
        HALF[logits_BV.dtype],
        torch.get_num_threads(),
    )
    return token_B, logprob_B
