"""Products of whole matrices in bfloat16 with float32 sums, as training has them: `matmul.c`, where the processor has instructions for them.

Shapes: M and N outputs, K inputs, which are summed over.
"""

from __future__ import annotations

import ctypes
from collections import deque

import torch
from torch import Tensor

from trilaw.model.native.library import HALF, PANEL, ROWS, functions, multiplies_halves

_TURN = 768  # inputs at a time where sums may be added up in float32, so that a block of rows stays in the first-level cache


class Operand(ctypes.Structure):
    """A matrix as packing.h has it; its numbers lie together along one dimension."""

    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("rows", ctypes.c_long),
        ("step", ctypes.c_long),
        ("across", ctypes.c_int),
        ("half", ctypes.c_int),
    )

    @staticmethod
    def of(x_MK: Tensor) -> Operand:
        across = x_MK.stride(1) != 1
        return Operand(x_MK.data_ptr(), x_MK.shape[0], x_MK.stride(1 if across else 0), across, HALF[x_MK.dtype])


class Packed:
    """A matrix in the order in which products read it: float32 numbers rounded to bfloat16, or bfloat16 ones."""

    def __init__(self, x_MK: Tensor, width: int, turns: bool) -> None:
        """width: of rows that lie together. turns: it is for a product in float32."""
        c = functions()
        if c is None:
            raise AssertionError("native products without a library")
        if 1 not in x_MK.stride():  # a gradient that one number was expanded to, for one
            x_MK = x_MK.contiguous()
        operand, (self.rows, self.inputs) = Operand.of(x_MK), x_MK.shape
        count = -(-self.inputs // _TURN) if turns and self.inputs >= 2 * _TURN else 1
        self.turn = -(-self.inputs // (2 * count)) * 2 or 2
        self.numbers = _room(-(-self.rows // width) * width * -(-self.inputs // 2))
        out = (width == PANEL, self.numbers.data_ptr(), torch.get_num_threads())
        c.trilaw_pack(self.inputs, self.turn, ctypes.byref(operand), *out)

    def __del__(self) -> None:
        if hasattr(self, "numbers") and self.numbers.numel() <= _LARGE:
            _SPARE.append(self.numbers)


# What was packed is read a moment later and not again. The next matrix goes to the same memory, which the caches still hold.
_SPARE: deque[Tensor] = deque(maxlen=4)
_LARGE = 8 << 20  # pairs; more than that no cache holds


def _room(pairs: int) -> Tensor:
    """Memory for so many pairs, used before if there is any that is large enough and not far too large. Safe among threads: each takes whole tensors."""
    for _ in range(len(_SPARE)):
        try:
            spare = _SPARE.pop()
        except IndexError:
            break
        if pairs <= spare.numel() <= 4 * pairs + 65536:
            return spare
        _SPARE.appendleft(spare)
    return torch.empty(pairs, dtype=torch.int32)


def left(a_MK: Tensor, *, turns: bool = False) -> Packed:
    """a as the left operand of `multiply`. turns: it is for a product in float32; then both have to be."""
    return Packed(a_MK, ROWS, turns)


def right(b_NK: Tensor, *, turns: bool = False) -> Packed:
    """b as the right operand of `multiply`."""
    return Packed(b_NK, PANEL, turns)


def multiply(
    a: Packed,
    b: Packed,
    bias_N: Tensor | None = None,
    *,
    base_MN: Tensor | None = None,
    out_MN: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """base + a b^T + bias, [M, N], in `dtype` or into `out_MN`, contiguous, which may be `base_MN`; these two are of one dtype."""
    c = functions()
    if c is None:
        raise AssertionError("native products without a library")
    y_MN = torch.empty(a.rows, b.rows, dtype=dtype) if out_MN is None else out_MN
    if a.inputs != b.inputs or a.turn != b.turn or y_MN.shape != (a.rows, b.rows):
        raise ValueError(f"[{a.rows}, {a.inputs}] and [{b.rows}, {b.inputs}] do not make {tuple(y_MN.shape)}")
    if a.turn < a.inputs and y_MN.dtype != torch.float32:
        raise ValueError("what was packed in turns is for products in float32")
    for x_MN in (y_MN, y_MN if base_MN is None else base_MN):
        if not x_MN.is_contiguous() or x_MN.dtype != y_MN.dtype:
            raise ValueError("products are written, and added, to contiguous rows of one dtype")
    bias_N = None if bias_N is None else bias_N.float().contiguous()
    added = (None if x is None else x.data_ptr() for x in (bias_N, base_MN))
    operands = (a.numbers.data_ptr(), b.numbers.data_ptr())
    y = (y_MN.data_ptr(), HALF[y_MN.dtype], torch.get_num_threads())
    c.trilaw_multiply(a.inputs, a.turn, a.rows, b.rows, *operands, *added, *y)
    return y_MN


def knows(*tensors: Tensor) -> bool:
    """Whether matrices like these can be multiplied here."""
    return all(x.device.type == "cpu" and x.dtype in HALF for x in tensors) and multiplies_halves(functions())
