"""Orthogonal rotations of a model's inner coordinates, which spread outliers so that few bits hold an activation.

Ashkboos et al. 2024, "QuaRot" (arXiv:2404.00456). What a transformer computes does not change when its residual stream is rotated by an
orthogonal Q: RMSNorm commutes with Q once its weights are folded into the maps that follow, and every map that reads the stream (or writes to
it) takes Q into its weights. Values are rotated a head at a time, in the maps before and after attention. Only what enters the last map of a
SwiGLU has to be rotated while the model runs, as the nonlinearity does not commute; that rotation stays within blocks and is cheap.

Q is signs drawn by a fixed seed, then a cosine transform across blocks of up to 64 numbers (a power of two) and a Hadamard transform within them: for any
size, by two small matrix products.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 64


class Rotation:
    """x -> x Q over the last dimension."""

    def __init__(self, size: int, *, within_blocks: bool = False, device: torch.device | str = "cpu") -> None:
        """within_blocks: leave out the transform across blocks, and the signs."""
        block = math.gcd(size, BLOCK)
        self.hadamard_EE = _hadamard(block).to(device)
        self.across_GG = None if within_blocks else _cosine(size // block).to(device)
        signs_D = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(size)) * 2.0 - 1.0
        self.signs_D = None if within_blocks else signs_D.to(device)

    def __call__(self, x_XD: Tensor) -> Tensor:
        y_XD = x_XD if self.signs_D is None else x_XD * self.signs_D
        block = len(self.hadamard_EE)
        y_XGE = y_XD.reshape(*x_XD.shape[:-1], x_XD.shape[-1] // block, block) @ self.hadamard_EE
        if self.across_GG is not None:
            y_XGE = self.across_GG @ y_XGE
        return y_XGE.reshape(x_XD.shape)

    def rows(self, w_DX: Tensor) -> Tensor:
        """The same over the first dimension: weights whose output is to be rotated."""
        return self(w_DX.T).T


def _hadamard(size: int) -> Tensor:
    """Sylvester's, orthonormal; `size` is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)


def _cosine(size: int) -> Tensor:
    """The orthonormal DCT-II."""
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float()
