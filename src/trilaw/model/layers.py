"""The parts of a Llama block that know nothing of positions: linear maps, embedding, RMSNorm, SwiGLU.

RMSNorm: Zhang and Sennrich 2019 (arXiv:1910.07467). SwiGLU: Shazeer 2020 (arXiv:2002.05202). Parameter names are Hugging Face's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilaw.core.arch import Arch
from trilaw.model import lean
from trilaw.model.thin import linear


class Linear(nn.Linear):
    """nn.Linear without PyTorch's initialisation: `CausalLM.init_weights` or a loader fills it, and no global RNG is touched."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor, base: Tensor | None = None) -> Tensor:
        """base + x W^T + b, without a base x W^T + b."""
        if lean.multiplies(input, self.weight):
            return lean.maps(input, (self.weight, self.bias), base=base)[0]
        y = linear(input, self.weight, self.bias)
        return y if base is None else base + y


def several(x: Tensor, *maps: Linear) -> tuple[Tensor, ...]:
    """Each map of x."""
    if lean.multiplies(x, *(m.weight for m in maps)):
        return lean.maps(x, *((m.weight, m.bias) for m in maps))
    return tuple(m(x) for m in maps)


class Embedding(nn.Embedding):
    """nn.Embedding without PyTorch's initialisation, for the same reason."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        return lean.embed(input, self.weight) if torch.is_grad_enabled() else super().forward(input)


def lowered(x: Tensor) -> Tensor:
    """x in autocast's dtype, if there is autocast: else each linear map that takes x makes a copy of its own, and backward keeps them all."""
    return x.to(lowered_dtype(x))


def lowered_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def trains(x: Tensor) -> bool:
    """Whether the parts of `lean` do the work. Autocast is for training, and a pass without gradients there (a reference, a validation loss) is to
    give the same numbers as one with them."""
    return torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)


class RMSNorm(nn.Module):
    """weight * x / rms(x), the division in float32 as Hugging Face has it, the product in the input's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            if trains(x):
                return lean.rms_norm(x, self.weight, self.eps, lowered_dtype(x))
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.gate_proj = Linear(arch.hidden_size, arch.intermediate_size, bias=arch.mlp_bias)
        self.up_proj = Linear(arch.hidden_size, arch.intermediate_size, bias=arch.mlp_bias)
        self.down_proj = Linear(arch.intermediate_size, arch.hidden_size, bias=arch.mlp_bias)

    def forward(self, x: Tensor, base: Tensor | None = None) -> Tensor:
        """Plus `base`, if there is one."""
        gate, up = several(lowered(x), self.gate_proj, self.up_proj)
        if trains(x):
            return lean.gated_down(gate, up, self.down_proj.weight, self.down_proj.bias, base)
        y: Tensor = self.down_proj(F.silu(gate) * up, base)
        return y
