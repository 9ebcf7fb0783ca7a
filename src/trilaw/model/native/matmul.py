"""Products of whole matrices in bfloat16 with float32 sums, as training has them: `matmul.c`, where the processor has instructions for them.

Shapes: M and N outputs, K inputs, which are summed over.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from trilaw.model.native.library import HALF, functions, multiplies_halves


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
        """Raises ValueError if neither the numbers of a row lie together nor those of a column."""
        across = x_MK.stride(1) != 1
        if across and x_MK.stride(0) != 1:
            raise ValueError(f"a matrix with strides {x_MK.stride()} has to be copied first")
        return Operand(x_MK.data_ptr(), x_MK.shape[0], x_MK.stride(1 if across else 0), across, HALF[x_MK.dtype])


def knows(*tensors: Tensor) -> bool:
    """Whether matrices like these can be multiplied here."""
    return all(x.device.type == "cpu" and x.dtype in HALF for x in tensors) and multiplies_halves(functions())


def matmul(
    a_MK: Tensor,
    b_NK: Tensor,
    bias_N: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    out: Tensor | None = None,
    add: bool = False,
) -> Tensor:
    """a b^T + bias, [M, N], in `dtype` or into `out`, which may be float32 rows of a larger matrix; add: to what is there.

    a, b: float32 (rounded first) or bfloat16. Needs the library, and a processor for which it has such products (`knows`).
    """
    c = functions()
    if c is None:
        raise AssertionError("native products without a library")
    y_MN = torch.empty(len(a_MK), len(b_NK), dtype=dtype) if out is None else out
    if not y_MN.is_contiguous() or (add and y_MN.dtype != torch.float32):
        raise ValueError("products are written to contiguous rows, and added up in float32")
    a, b = Operand.of(a_MK), Operand.of(b_NK)
    bias_N = None if bias_N is None else bias_N.float().contiguous()
    addresses = (ctypes.byref(a), ctypes.byref(b), None if bias_N is None else bias_N.data_ptr(), y_MN.data_ptr())
    c.trilaw_matmul(a_MK.shape[1], *addresses, HALF[y_MN.dtype], add, torch.get_num_threads())
    return y_MN
