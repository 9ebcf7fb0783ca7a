"""Attention in C: of each row's newest token over its cache (`attention.c`), and of whole sequences with gradients (`causal.c`).

Shapes: B rows, R sequences of S tokens, H query heads, K key-value heads, E head size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.native.library import HALF, PANEL, functions, multiplies_halves


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
        HALF[q_BHE.dtype],
        torch.get_num_threads(),
    )
    return out_BHE


class _Shape(ctypes.Structure):
    """As causal.c has it."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("sequences", "tokens", "kv_heads", "queries", "size")),
        *((name, ctypes.c_long) for name in ("q_step", "k_step", "v_step")),
        ("scale", ctypes.c_float),
        ("half", ctypes.c_int),
    )

    @staticmethod
    def of(q_RSHE: Tensor, k_RSKE: Tensor, v_RSKE: Tensor) -> _Shape:
        R, S, H, E = q_RSHE.shape
        K = k_RSKE.shape[2]
        steps = (x.stride(1) for x in (q_RSHE, k_RSKE, v_RSKE))
        return _Shape(R, S, K, H // K, E, *steps, E**-0.5, HALF[q_RSHE.dtype])


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_RSHE: Tensor, k_RSKE: Tensor, v_RSKE: Tensor) -> Tensor:
        c = functions()
        if c is None:
            raise AssertionError("native attention without a library")
        inputs = [_even(x) for x in (q_RSHE, k_RSKE, v_RSKE)]
        R, S, H, _ = q_RSHE.shape
        y_RSHE = torch.empty(q_RSHE.shape, dtype=q_RSHE.dtype)
        lse_RHS = torch.empty(R, H, S)
        shape = _Shape.of(*inputs)
        addresses = (x.data_ptr() for x in (*inputs, y_RSHE, lse_RHS))
        c.trilaw_causal(ctypes.byref(shape), *addresses, torch.get_num_threads())
        ctx.save_for_backward(*inputs, y_RSHE, lse_RHS)
        return y_RSHE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_RSHE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = functions()
        if c is None:
            raise AssertionError("native attention without a library")
        q_RSHE, k_RSKE, v_RSKE, y_RSHE, lse_RHS = ctx.saved_tensors
        slopes = [torch.empty(x.shape, dtype=x.dtype) for x in (q_RSHE, k_RSKE, v_RSKE)]
        shape = _Shape.of(q_RSHE, k_RSKE, v_RSKE)
        everything = (q_RSHE, k_RSKE, v_RSKE, y_RSHE, lse_RHS, slope_RSHE.contiguous(), *slopes)
        c.trilaw_causal_backward(ctypes.byref(shape), *(x.data_ptr() for x in everything), torch.get_num_threads())
        return slopes[0], slopes[1], slopes[2]


def _even(x_RSHE: Tensor) -> Tensor:
    """The numbers of a token together and tokens equally far apart, also from one sequence to the next."""
    R, S, _, E = x_RSHE.shape
    apart = x_RSHE.stride(1)
    fits = x_RSHE.stride(3) == 1 and x_RSHE.stride(2) == E and (R == 1 or x_RSHE.stride(0) == S * apart)
    # Not `contiguous`: it leaves the strides of what it takes for contiguous, and that of a single token may be any number.
    return x_RSHE if fits else x_RSHE.clone(memory_format=torch.contiguous_format)


def knows_causal(x_RSHE: Tensor) -> bool:
    """Whether `causal` can take such tensors."""
    library = functions()
    if library is None or x_RSHE.device.type != "cpu" or x_RSHE.shape[-1] % PANEL:
        return False
    return x_RSHE.dtype == torch.float32 or (x_RSHE.dtype == torch.bfloat16 and multiplies_halves(library))


def causal(q_RSHE: Tensor, k_RSKE: Tensor, v_RSKE: Tensor) -> Tensor:
    """[R, S, H, E]: each token attends within its sequence, to itself and what goes before. With gradients.

    What `F.scaled_dot_product_attention(..., is_causal=True, enable_gqa=True)` gives, with heads after tokens.
    """
    y_RSHE: Tensor = _Causal.apply(q_RSHE, k_RSKE, v_RSKE)  # type: ignore[no-untyped-call]
    return y_RSHE
