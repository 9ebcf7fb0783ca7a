"""Products with a weight that is packed once, in 8-bit integers or bfloat16, where the processor has instructions for them (`products.c`).

Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trilaw.model.native.library import HALF, PANEL, functions

_SLICE = 4096  # outputs that are rounded at a time, for the sake of memory


class Bytes:
    """x W^T + b by products of 8-bit integers: W is rounded once with a scale for each output, x as it comes with a scale for each row.

    x: float32 or bfloat16 [N, I]; the result in `dtype`. rotate: each 64 numbers of x go through a Hadamard transform first. Needs the library, and a
    processor for which it has such products (`multiplies_bytes`)."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype, *, rotate: bool = False) -> None:
        outputs, inputs = weight_OI.shape
        if rotate and inputs % 64:
            raise ValueError(f"{inputs} inputs are no multiple of 64, so they cannot be rotated here")
        self.outputs, self.inputs, self.dtype, self.rotate = outputs, -(-inputs // 4) * 4, dtype, rotate
        scale_O = torch.cat([part.abs().amax(1).float() for part in torch.split(weight_OI, _SLICE)]) / 127
        padding = (0, self.inputs - inputs, 0, -outputs % PANEL)
        bytes_OI = torch.full((outputs + padding[3], self.inputs), 128, dtype=torch.uint8)
        for first in range(0, outputs, _SLICE):
            part = slice(first, min(first + _SLICE, outputs))
            least_O = scale_O[part].clamp_min(torch.finfo(torch.float32).tiny)
            bytes_OI[part, :inputs] = ((weight_OI[part] / least_O[:, None]).round() + 128).to(torch.uint8)
        self.panels = _panels(bytes_OI)
        self.scale_O = F.pad(scale_O, padding[2:]).contiguous()
        self.bias_O = None if bias_O is None else F.pad(bias_O.float(), padding[2:]).contiguous()
        self._weights, self._scales = self.panels.data_ptr(), self.scale_O.data_ptr()
        self._bias = None if self.bias_O is None else self.bias_O.data_ptr()

    def __call__(self, x_NI: Tensor) -> Tensor:
        c = functions()
        if c is None:
            raise AssertionError("native products without a library")
        x_NI = x_NI.contiguous()
        rows, size = x_NI.shape
        y_NO = torch.empty(rows, self.outputs, dtype=self.dtype)
        c.trilaw_product_of_bytes(
            rows,
            self.outputs,
            size,
            self.inputs,
            x_NI.data_ptr(),
            HALF[x_NI.dtype],
            self.rotate,
            self._weights,
            self._scales,
            self._bias,
            y_NO.data_ptr(),
            HALF[self.dtype],
            torch.get_num_threads(),
        )
        return y_NO


class Halves:
    """x W^T + b in bfloat16, the result in `dtype`: [N, O] from x [N, I]; I even. Needs the library, and a processor for which it has such products
    (`multiplies_halves`)."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None, dtype: torch.dtype = torch.float32) -> None:
        self.outputs, self.inputs = weight_OI.shape
        self.dtype, padding = dtype, -self.outputs % PANEL
        halves_OI = weight_OI.to(torch.bfloat16)
        self.panels = _panels(F.pad(halves_OI, (0, 0, 0, padding)) if padding else halves_OI)
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
            HALF[self.dtype],
            torch.get_num_threads(),
        )
        return y_NO

    def rows(self, outputs_N: Tensor) -> Tensor:
        """The weight's rows of these numbers, bfloat16 [N, I]: a head that is tied to the embedding holds that too."""
        panels_NF = self.panels[outputs_N // PANEL, :, outputs_N % PANEL]
        return panels_NF.contiguous().view(torch.bfloat16)


def _panels(weight_OI: Tensor) -> Tensor:
    """The weight as products.c reads it, in units of four bytes; O is a multiple of 32."""
    fours_OF = weight_OI.contiguous().view(torch.int32)
    return fours_OF.view(-1, PANEL, fours_OF.shape[1]).transpose(1, 2).contiguous()
