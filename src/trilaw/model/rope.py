"""Rotary position embedding: cosines and sines for a batch of positions, once per forward pass.

Su et al. 2021, "RoFormer" (arXiv:2104.09864), in the rotate-half convention of Hugging Face: dimension i pairs with i + E/2.
Stretched contexts, by config.json's scaling table:

    linear    frequencies divided by `factor` (Chen et al. 2023, arXiv:2306.15595)
    dynamic   NTK-aware: the base grows once a sequence is longer than `max_position_embeddings`
    llama3    long wavelengths divided by `factor`, short ones kept, a linear blend between (Llama 3.1)
    yarn      the blend by number of rotations, and cosines and sines scaled by an attention factor (arXiv:2309.00071)

Departure from transformers: `dynamic` takes each row's own length, not the longest of the batch, so a row's numbers do not
depend on its neighbours. For one row the two agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, nearest
from trilaw.model.native import ops

KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


class Rotary:
    """Turns positions into (cos, signed sin). Plain tensors, no buffers: frequencies stay float32 whatever the model is cast to."""

    def __init__(self, arch: Arch) -> None:
        """Raises ModelError for a scaling that is not known or lacks a number."""
        self.dim = arch.head_dim
        self.theta = arch.rope_theta
        self.max_positions = arch.max_positions
        self.scaling: Mapping[str, Any] = arch.rope_scaling or {}
        self.kind = str(self.scaling.get("rope_type") or self.scaling.get("type") or "default")
        if self.kind not in KINDS:
            raise ModelError(
                f"config.json: the rotary scaling '{self.kind}' is not supported{nearest(self.kind, KINDS)}."
            )
        if self.scaling.get("partial_rotary_factor", 1.0) != 1.0:
            raise ModelError(
                "config.json: 'partial_rotary_factor' other than 1 is not supported for this architecture."
            )
        # transformers lets the key at config.json's top level win over the one inside the table.
        self.original_positions = int(
            arch.extra.get("original_max_position_embeddings")
            or self.scaling.get("original_max_position_embeddings")
            or arch.max_positions
        )
        self.attention_factor = 1.0
        frequencies_F = self._frequencies(self.theta)
        if self.kind == "linear":
            frequencies_F = frequencies_F / self._number("factor")
        elif self.kind == "dynamic":
            self._number("factor")
        elif self.kind == "llama3":
            frequencies_F = self._llama3(frequencies_F)
        elif self.kind == "yarn":
            frequencies_F = self._yarn()
        self._frequencies_F = frequencies_F

    def __call__(self, positions_BT: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and signed sin, each [B, T, 1, E] in `dtype`, for `rotate`. B may be 1 for positions that all rows share."""
        cos_BTF, sin_BTF = self.halves(positions_BT)
        cos_BT1E = torch.cat((cos_BTF, cos_BTF), dim=-1)[:, :, None].to(dtype)
        sin_BT1E = torch.cat((-sin_BTF, sin_BTF), dim=-1)[:, :, None].to(dtype)
        return cos_BT1E, sin_BT1E

    def halves(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of every pair's angle, float32 [B, T, F], F = E / 2."""
        if self._frequencies_F.device != positions_BT.device:
            self._frequencies_F = self._frequencies_F.to(positions_BT.device)
        frequencies = self._frequencies_F
        if self.kind == "dynamic":
            frequencies = self._dynamic(positions_BT)
        angles_BTF = positions_BT[..., None].float() * frequencies
        cos_BTF, sin_BTF = angles_BTF.cos(), angles_BTF.sin()
        if self.attention_factor != 1.0:
            cos_BTF, sin_BTF = cos_BTF * self.attention_factor, sin_BTF * self.attention_factor
        return cos_BTF, sin_BTF

    def _frequencies(self, theta: float) -> Tensor:
        exponent_F = (
            torch.arange(0, self.dim, 2, dtype=torch.float32, device="cpu") / self.dim
        )  # real on a "meta" model too
        return 1.0 / theta**exponent_F

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.scaling.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ModelError(
                f"config.json: the rotary scaling '{self.kind}' needs '{key}' as a positive number, it is {value!r}."
            )
        return float(value)

    def _dynamic(self, positions_BT: Tensor) -> Tensor:
        """[B, 1, F]: theta grows with each row's length beyond the trained context."""
        factor = self._number("factor")
        length_B = (positions_BT.amax(dim=-1) + 1).clamp(min=self.max_positions).float()
        stretch_B = (factor * length_B / self.max_positions - (factor - 1)) ** (self.dim / (self.dim - 2))
        exponent_F = torch.arange(0, self.dim, 2, dtype=torch.float32, device=positions_BT.device) / self.dim
        return (1.0 / (self.theta * stretch_B)[:, None] ** exponent_F)[:, None]

    def _llama3(self, frequencies_F: Tensor) -> Tensor:
        factor = self._number("factor")
        low, high = self._number("low_freq_factor"), self._number("high_freq_factor")
        rotations_F = self.original_positions * frequencies_F / (2 * math.pi)  # full turns within the trained context
        keep_F = ((rotations_F - low) / (high - low)).clamp(0, 1) if high > low else (rotations_F >= high).float()
        return (1 - keep_F) * frequencies_F / factor + keep_F * frequencies_F

    def _yarn(self) -> Tensor:
        factor = self._number("factor", self.max_positions / self.original_positions)
        given = self.scaling.get("attention_factor")
        scale, scale_all = self.scaling.get("mscale"), self.scaling.get("mscale_all_dim")
        if given is not None:
            self.attention_factor = self._number("attention_factor")
        elif scale and scale_all:
            self.attention_factor = _yarn_scale(factor, scale) / _yarn_scale(factor, scale_all)
        else:
            self.attention_factor = _yarn_scale(factor, 1.0)
        # The (fractional) dimensions that turn beta_fast and beta_slow times within the trained context bound the blend.
        low, high = self._dimension(self._number("beta_fast", 32.0)), self._dimension(self._number("beta_slow", 1.0))
        if self.scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.dim - 1)
        width = (high - low) or 0.001
        interpolate_F = ((torch.arange(self.dim // 2, dtype=torch.float32, device="cpu") - low) / width).clamp(0, 1)
        frequencies_F = self._frequencies(self.theta)
        return frequencies_F / factor * interpolate_F + frequencies_F * (1 - interpolate_F)

    def _dimension(self, rotations: float) -> float:
        return self.dim * math.log(self.original_positions / (rotations * 2 * math.pi)) / (2 * math.log(self.theta))


def _yarn_scale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def rotate(x_BTHE: Tensor, cos_BT1E: Tensor, sin_BT1E: Tensor) -> Tensor:
    """x turned by its position: [x1 cos - x2 sin, x2 cos + x1 sin] over the two halves of E.

    The minus sign lives in `sin`, so that a roll by half of E (which swaps the halves) replaces negation and concatenation.
    """
    return torch.addcmul(x_BTHE * cos_BT1E, x_BTHE.roll(x_BTHE.shape[-1] // 2, -1), sin_BT1E)


def rotate_both(q_BTHE: Tensor, k_BTKE: Tensor, cos_BT1E: Tensor, sin_BT1E: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys turned by their positions, in their dtype: in C where that is possible, else side by side, since one concatenation is
    cheaper than doing everything twice at small sizes."""
    if len(q_BTHE) == 1 and cos_BT1E.dtype == torch.float32 and ops.knows(q_BTHE, k_BTKE, cos_BT1E):
        q_NHE, k_NKE = (_Rotate.apply(x[0], cos_BT1E[0, :, 0], sin_BT1E[0, :, 0]) for x in (q_BTHE, k_BTKE))  # type: ignore[no-untyped-call]
        return q_NHE[None], k_NKE[None]
    both_BTHE = rotate(torch.cat((q_BTHE, k_BTKE), dim=2), cos_BT1E, sin_BT1E).to(q_BTHE.dtype)
    q_BTHE, k_BTKE = torch.split(both_BTHE, [q_BTHE.shape[2], k_BTKE.shape[2]], dim=2)
    return q_BTHE, k_BTKE


class _Rotate(torch.autograd.Function):
    """`rotate`; its gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x_NHE: Tensor, cos_NE: Tensor, sin_NE: Tensor) -> Tensor:
        half = cos_NE.shape[-1] // 2
        ctx.halves = cos_NE[:, :half], sin_NE[:, half:]  # the second half of `sin` has no minus
        return ops.rotate_(x_NHE.clone(memory_format=torch.contiguous_format), *ctx.halves)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_NHE: Tensor) -> tuple[Tensor, None, None]:
        return ops.rotate_(slope_NHE.clone(memory_format=torch.contiguous_format), *ctx.halves, back=True), None, None
