"""The C functions on tensors, each with what it computes in PyTorch's operators, which do the work where there is no library.

All are for inference on a CPU: no gradients. Tensors are float32 or bfloat16; `x`, the residual stream, is float32 always. Tensors are
contiguous, but for gate and up, and for queries, keys and values, whose rows may lie further apart.

Shapes: N rows, D hidden size, I inner size, H heads, E head size, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trilaw.model.native import build

LANES = 16  # numbers that the C code takes at a time: sizes of heads are multiples
_PANEL = 32  # outputs of a weight that lie together, as products.c has it
_HALF = {torch.float32: 0, torch.bfloat16: 1}


@cache
def functions() -> ctypes.CDLL | None:
    """The library with its signatures declared; None where there is none."""
    library = build.library()
    if library is not None:
        n, p, f, i = c_long, c_void_p, c_float, c_int
        library.trilaw_add_norm.argtypes = (n, n, p, p, p, f, p, i, i)
        library.trilaw_gated.argtypes = (n, n, p, p, n, p, i, i)
        library.trilaw_rotate.argtypes = (n, n, n, p, n, p, p, i, i)
        library.trilaw_attend.argtypes = (n, p, p, p, p, n, p, p, p, n, n, n, n, n, n, f, p, p, n, p, p, n, p, p, i, i)
        library.trilaw_draw.argtypes = (n, n, p, p, p, p, p, p, i, i)
        for name in ("add_norm", "gated", "rotate", "attend", "draw"):
            getattr(library, f"trilaw_{name}").restype = None
        if multiplies_bytes(library):
            library.trilaw_round_rows.argtypes = (n, n, n, p, i, p, p, p, i, i)
            library.trilaw_product_of_bytes.argtypes = (n, n, n, p, p, p, p, p, p, p, i, i)
            library.trilaw_round_rows.restype = library.trilaw_product_of_bytes.restype = None
        if multiplies_halves(library):
            library.trilaw_product_of_halves.argtypes = (n, n, n, p, p, p, p, i, i)
            library.trilaw_product_of_halves.restype = None
    return library


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
        _HALF[dtype],
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
        _HALF[gate_NI.dtype],
        torch.get_num_threads(),
    )
    return out_NI


def rotate_(x_NHE: Tensor, cos_NF: Tensor, sin_NF: Tensor) -> Tensor:
    """x turned by its position, in place: [x1 cos - x2 sin, x2 cos + x1 sin] over the halves of E. cos, sin: float32, F = E / 2."""
    if (c := functions()) is None:
        first, second = x_NHE.float().chunk(2, -1)
        cos, sin = cos_NF[:, None], sin_NF[:, None]
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
        _HALF[x_NHE.dtype],
        torch.get_num_threads(),
    )
    return x_NHE


class Bytes:
    """x W^T + b by products of 8-bit integers: W is rounded once with a scale for each output, x as it comes with a scale for each row.

    x: float32 or bfloat16 [N, I]; the result in `dtype`. rotate: each 64 numbers of x go through a Hadamard transform first. Needs the library, and a
    processor for which it has such products (`multiplies_bytes`)."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, *, rotate: bool = False) -> None:
        outputs, inputs = weight_OI.shape
        if rotate and inputs % 64:
            raise ValueError(f"{inputs} inputs are no multiple of 64, so they cannot be rotated here")
        self.outputs, self.inputs, self.dtype, self.rotate = outputs, -(-inputs // 4) * 4, dtype, rotate
        scale_O = weight_OI.abs().amax(1).float() / 127
        whole_OI = (weight_OI / scale_O.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
        padding = (0, self.inputs - inputs, 0, -outputs % _PANEL)
        bytes_OI = (F.pad(whole_OI, padding) + 128).to(torch.uint8)
        self.panels = _panels(bytes_OI)
        self.scale_O = F.pad(scale_O, padding[2:]).contiguous()
        self.bias_O = None if bias_O is None else F.pad(bias_O.float(), padding[2:]).contiguous()

    def __call__(self, x_NI: Tensor) -> Tensor:
        c = functions()
        if c is None:
            raise AssertionError("native products without a library")
        x_NI = x_NI.contiguous()
        rows, inputs = x_NI.shape
        threads = torch.get_num_threads()
        whole_NI = torch.empty(rows, self.inputs, dtype=torch.int8)
        scale_N, sum_N = torch.empty(rows), torch.empty(rows, dtype=torch.int32)
        y_NO = torch.empty(rows, self.outputs, dtype=self.dtype)
        row = (whole_NI.data_ptr(), scale_N.data_ptr(), sum_N.data_ptr())
        c.trilaw_round_rows(rows, inputs, self.inputs, x_NI.data_ptr(), self.rotate, *row, _HALF[x_NI.dtype], threads)
        c.trilaw_product_of_bytes(
            rows,
            self.outputs,
            self.inputs,
            *row,
            self.panels.data_ptr(),
            self.scale_O.data_ptr(),
            None if self.bias_O is None else self.bias_O.data_ptr(),
            y_NO.data_ptr(),
            _HALF[self.dtype],
            threads,
        )
        return y_NO


class Halves:
    """x W^T + b in bfloat16, the result in `dtype`: [N, O] from x [N, I]; I even. Needs the library, and a processor for which it has such products
    (`multiplies_halves`)."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.outputs, self.inputs = weight_OI.shape
        self.dtype, padding = dtype, -self.outputs % _PANEL
        self.panels = _panels(F.pad(weight_OI.to(torch.bfloat16), (0, 0, 0, padding)))
        self.bias_O = None if bias_O is None else F.pad(bias_O.float(), (0, padding)).contiguous()

    def __call__(self, x_NI: Tensor) -> Tensor:
        c = functions()
        if c is None:
            raise AssertionError("native products without a library")
        x_NI = x_NI.to(torch.bfloat16).contiguous()
        y_NO = torch.empty(len(x_NI), self.outputs, dtype=self.dtype)
        c.trilaw_product_of_halves(
            len(x_NI),
            self.outputs,
            self.inputs,
            x_NI.data_ptr(),
            self.panels.data_ptr(),
            None if self.bias_O is None else self.bias_O.data_ptr(),
            y_NO.data_ptr(),
            _HALF[self.dtype],
            torch.get_num_threads(),
        )
        return y_NO


def _panels(weight_OI: Tensor) -> Tensor:
    """The weight as products.c reads it, in units of four bytes; O is a multiple of 32."""
    fours_OF = weight_OI.contiguous().view(torch.int32)
    return fours_OF.view(-1, _PANEL, fours_OF.shape[1]).transpose(1, 2).contiguous()


def multiplies_halves(library: ctypes.CDLL | None) -> bool:
    """Whether the library has bfloat16 products, which take AVX512-BF16; not where AMX makes PyTorch's far faster."""
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return library is not None and not amx and hasattr(library, "trilaw_product_of_halves")


def multiplies_bytes(library: ctypes.CDLL | None) -> bool:
    """Whether the library has 8-bit products, which take AVX512-VNNI."""
    return library is not None and hasattr(library, "trilaw_product_of_bytes")


class Blocks:
    """Rows that share pages, in the arrays that the C function reads. It keeps them alive."""

    def __init__(self, rows: Sequence[Sequence[int]], pages: Sequence[Sequence[int]], page_size: int) -> None:
        """rows, pages: of each block."""
        self.count, self.page_size = len(rows), page_size
        self.starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        self.rows = np.array([row for block in rows for row in block], np.int64)
        self.page_starts = np.cumsum([0, *map(len, pages)], dtype=np.int64)
        self.pages = np.array([page for block in pages for page in block], np.int64)
        arrays = (self.starts, self.rows, self.page_starts, self.pages)
        self.addresses = tuple(array.ctypes.data for array in arrays)


def attend(
    q_BHE: Tensor,
    k_BKE: Tensor,
    v_BKE: Tensor,
    blocks: Blocks,
    place_B: np.ndarray,
    page_keys_KSE: Tensor,
    page_values_KSE: Tensor,
    tail_keys_RKSE: Tensor,
    tail_values_RKSE: Tensor,
    scale: float,
) -> Tensor:
    """Stores k and v of each row in its tail at place_B (int64), then attends to its pages and its tail up to there: [B, H, E].

    There is nothing else in PyTorch that does this; `engine/torch_rows.py` does it in several steps. Needs the library.
    """
    c = functions()
    if c is None:
        raise AssertionError("native attention without a library")
    B, H, E = q_BHE.shape
    out_BHE = q_BHE.new_empty(B, H, E)
    c.trilaw_attend(
        blocks.count,
        *blocks.addresses,
        blocks.page_size,
        q_BHE.data_ptr(),
        k_BKE.data_ptr(),
        v_BKE.data_ptr(),
        q_BHE.stride(0),
        k_BKE.stride(0),
        v_BKE.stride(0),
        k_BKE.shape[1],
        H // k_BKE.shape[1],
        E,
        scale,
        page_keys_KSE.data_ptr(),
        page_values_KSE.data_ptr(),
        page_keys_KSE.shape[1],
        tail_keys_RKSE.data_ptr(),
        tail_values_RKSE.data_ptr(),
        tail_keys_RKSE.shape[2],
        place_B.ctypes.data,
        out_BHE.data_ptr(),
        _HALF[q_BHE.dtype],
        torch.get_num_threads(),
    )
    return out_BHE


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
        _HALF[logits_BV.dtype],
        torch.get_num_threads(),
    )
    return token_B, logprob_B
