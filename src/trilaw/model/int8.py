"""A copy of a model whose matrix products run on 8-bit integers: for sampling on a CPU, faster and a little different.

W8A8, dynamic: weights are rounded once, with a scale for every output; activations as they come, with a scale for every token
(Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339). Rotations (`rotation`, QuaRot) spread the outliers first; without them the 7 bits below
would not do. Products accumulate in int32 without error, so a token's result does not depend on what else is in the batch. Embedding,
norms, attention and sampling stay float32. The weights are gathered in four maps a block (q, k and v in one, gate and up in one).

The kernel is FBGEMM's `linear_with_input_q_dq_qweight_dq_output_fp32`: float32 in, rounded with ONE scale for all rows, so each row is
divided by its largest number first; float32 out. Without AVX512-VNNI it adds pairs of products in 16 bits, which overflow unless activations
have 7 bits, so that is what they get there. Measured beside it, SmolLM2-135M's products on AVX2, 2 threads, tokens/s
at 1 / 16 / 128 rows: float32 23 / 192 / 489, this kernel, finding its scale itself, 80 / 640 / 890, oneDNN's int8 40 / 325 / 970, `_int_mm` 22 / 23 / 23, 8-bit weights with
bfloat16 activations (`_weight_int8pack_mm`) 71 / 233 / 282. PyTorch calls its quantized tensors deprecated; where they are gone, or on
a processor for which FBGEMM is not made, `unsupported` says so.
"""

from __future__ import annotations

import warnings
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model.attention import Attention
from trilaw.model.layers import RMSNorm, SwiGLU
from trilaw.model.llama import Block, CausalLM, Decoder
from trilaw.model.rotation import Rotation

_TINY = 1e-12  # a row of zeros stays one


def _product(unit_MI: Tensor, step: float, zero: int, packed: torch.ScriptObject) -> Tensor:
    y_MO: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit_MI, step, zero, packed)
    return y_MO


def unsupported(device: torch.device) -> str | None:
    """Why 8-bit products cannot run there, None if they can."""
    if device.type != "cpu":
        return f"8-bit products run on CPUs only, not on {device}: leave quantization out there"
    try:
        Int8Linear(torch.ones(1, 4))(torch.ones(1, 4))
    except (AttributeError, RuntimeError):  # no such operator, or none for this processor
        return "this build of PyTorch has no 8-bit products for this CPU: leave quantization out"
    return None


class Int8LM(CausalLM):
    """Meets what the engine asks of a CausalLM. It has no gradients, no state to save, and it does not follow its source."""

    def __init__(self, source: CausalLM) -> None:
        """Raises ModelError where the device has no such kernel."""
        if reason := unsupported(source.device):
            raise ModelError(f"{reason}.")
        nn.Module.__init__(self)
        arch, stream = source.arch, Rotation(source.arch.hidden_size)
        self.arch, self.rotary = arch, source.rotary
        with torch.no_grad(), torch.device("meta"):
            self.model = Decoder(arch)
        with torch.no_grad():
            self.model.embed_tokens.weight = nn.Parameter(stream(source.model.embed_tokens.weight.float()))
            self.model.layers = nn.ModuleList(_block(cast(Block, block), arch, stream) for block in source.model.layers)
            self.model.norm = _plain_norm(arch)
            self.head = Int8Linear(stream(source.head_weight.float() * source.model.norm.weight.float()))
        self.requires_grad_(False).eval()

    @property
    def head_weight(self) -> Tensor:
        raise NotImplementedError("an 8-bit model has no head in float: ask for `logits`")

    def logits(self, hidden_ND: Tensor) -> Tensor:
        logits_NV: Tensor = self.head(hidden_ND)
        return logits_NV


class Int8Linear(nn.Module):
    """x W^T + b, both rounded to integers; float32 in and out."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        super().__init__()
        scale_O = weight_OI.abs().amax(1).double().clamp_min(_TINY) / 127
        zero_O = torch.zeros(len(weight_OI), dtype=torch.int64)
        with warnings.catch_warnings():  # that quantized tensors are deprecated: see the file's head
            warnings.simplefilter("ignore")
            packed = torch.quantize_per_channel(weight_OI.contiguous(), scale_O, zero_O, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(packed, None)
        self.bias_O = bias_O
        bits = 8 if torch.cpu.get_capabilities().get("avx512_vnni", False) else 7
        self.zero = 1 << (bits - 1)
        self.step = 1 / (self.zero - 1)  # -1..1 becomes 1..2 zero - 1

    def forward(self, x: Tensor) -> Tensor:
        x_MI = x.reshape(-1, x.shape[-1])
        most_M1 = x_MI.abs().amax(-1, keepdim=True).clamp_min_(_TINY)
        y_MO: Tensor = _product(x_MI / most_M1, self.step, self.zero, self.packed).mul_(most_M1)
        if self.bias_O is not None:
            y_MO += self.bias_O
        return y_MO.view(*x.shape[:-1], y_MO.shape[-1])


class _Attention(Attention):
    """Queries, keys and values by one product."""

    def __init__(self, source: Attention, norm_D: Tensor, arch: Arch, stream: Rotation) -> None:
        with torch.device("meta"):
            super().__init__(arch, source.layer)
        del self.q_proj, self.k_proj, self.v_proj
        head = Rotation(arch.head_dim)
        value_OD, value_O = source.v_proj.weight.float(), source.v_proj.bias
        rotated_OD = head(value_OD.view(-1, arch.head_dim, value_OD.shape[1]).transpose(1, 2)).transpose(1, 2)
        maps = [source.q_proj.weight.float(), source.k_proj.weight.float(), rotated_OD.reshape(value_OD.shape)]
        bias_O = None
        if value_O is not None:
            rotated_O = head(value_O.float().view(-1, arch.head_dim)).flatten()
            bias_O = torch.cat((source.q_proj.bias.float(), source.k_proj.bias.float(), rotated_O))
        self.qkv_proj = Int8Linear(stream(torch.cat(maps) * norm_D), bias_O)
        out_DO = source.o_proj.weight.float()
        out_DO = head(out_DO.view(len(out_DO), -1, arch.head_dim)).view(out_DO.shape)
        self.o_proj = Int8Linear(stream.rows(out_DO), _rotated(source.o_proj.bias, stream))  # type: ignore[assignment]

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        v_size = self.kv_heads * self.head_dim
        qkv_BTO = self.qkv_proj(x_BTD)
        return qkv_BTO[..., :-v_size], qkv_BTO[..., -v_size:]


class _SwiGLU(nn.Module):
    """Gate and up by one product; what enters the last map is rotated."""

    def __init__(self, source: SwiGLU, norm_D: Tensor, stream: Rotation) -> None:
        super().__init__()
        gate, up, down = source.gate_proj, source.up_proj, source.down_proj
        both_ID = torch.cat((gate.weight.float(), up.weight.float())) * norm_D
        bias_I = None if gate.bias is None else torch.cat((gate.bias.float(), up.bias.float()))
        self.inner = Rotation(down.weight.shape[1], within_blocks=True)
        self.gate_up_proj = Int8Linear(stream(both_ID), bias_I)
        self.down_proj = Int8Linear(self.inner(stream.rows(down.weight.float())), _rotated(down.bias, stream))

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        y: Tensor = self.down_proj(self.inner(F.silu(gate) * up))
        return y


def _block(source: Block, arch: Arch, stream: Rotation) -> Block:
    with torch.device("meta"):
        block = Block(arch, source.self_attn.layer)
    block.input_layernorm, block.post_attention_layernorm = _plain_norm(arch), _plain_norm(arch)
    block.self_attn = _Attention(source.self_attn, source.input_layernorm.weight.float(), arch, stream)
    block.mlp = _SwiGLU(source.mlp, source.post_attention_layernorm.weight.float(), stream)  # type: ignore[assignment]
    return block


def _plain_norm(arch: Arch) -> RMSNorm:
    """Its weights are folded into what follows."""
    return RMSNorm(arch.hidden_size, arch.norm_eps)


def _rotated(bias_D: Tensor | None, stream: Rotation) -> Tensor | None:
    return None if bias_D is None else stream(bias_D.float())
