"""A linear map of few rows on a CPU, as decoding needs it: one product a block of the weight's rows instead of one product in all.

One row's product reads the weight once, so memory bounds it. The one product of BLAS does not share that reading well among cores: measured
with MKL on two cores that sum a vector at 26 GB/s, [1, 576] x [49152, 576]^T at 12 GB/s, and 8 rows at 4. The same weight as a batch of
16 blocks of rows, each times the input's columns, goes at 23 GB/s and 10; a model of 135M parameters decodes one stream 1.3 times as fast.
Gains end where the product is bound by arithmetic; `_blocks` was measured on matrices from 384 x 128 to 5632 x 2048.

Only the order of additions differs, so float32 results differ in the last bits.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 384 * 128  # numbers of a weight below which the call itself counts
LARGE = 1 << 20  # and from which on the caches do not hold it
COLUMNS = 8  # rows of input up to which the weight stands on the left of the product


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + b over the last dimension of x, whose gradient may be asked for."""
    blocks = _blocks(x, weight_OI)
    if blocks == 1:
        return F.linear(x, weight_OI, bias_O)
    outputs, inputs = weight_OI.shape
    x_MI, weight_POI = x.reshape(-1, inputs), weight_OI.view(blocks, -1, inputs)
    if len(x_MI) <= COLUMNS:
        y_MO = torch.bmm(weight_POI, x_MI.t().expand(blocks, -1, -1)).view(outputs, -1).t()
    else:
        y_MO = torch.bmm(x_MI.expand(blocks, -1, -1), weight_POI.transpose(1, 2)).transpose(0, 1)
    y = y_MO.reshape(*x.shape[:-1], outputs).contiguous()  # what follows goes along the outputs
    return y if bias_O is None else y.add_(bias_O)


def _blocks(x: Tensor, weight_OI: Tensor) -> int:
    """How many; 1 where they do not pay. Not under autocast, which gives a linear map another dtype than a product of tensors."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32 or weight_OI.dtype != x.dtype:
        return 1
    outputs, inputs = weight_OI.shape
    rows = x.numel() // inputs
    if not 0 < rows <= (16 if outputs * inputs < LARGE else max(16, inputs // 4)) or outputs * inputs < SMALL:
        return 1
    if not weight_OI.is_contiguous() or torch.is_autocast_enabled("cpu"):
        return 1
    return math.gcd(outputs, max(16, 1 << (torch.get_num_threads() - 1).bit_length()))
