"""A copy of a model whose matrix products run on 8-bit integers: for sampling on a CPU, faster and a little different.

W8A8, dynamic: weights are rounded once, with a scale for every output; activations as they come, with a scale for every token
(Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339). Rotations (`rotation`, QuaRot) spread the outliers first; without them the 7 bits below
would not do. Products accumulate in int32 without error, so a token's result does not depend on what else is in the batch. The residual stream,
norms and logits stay float32. The weights are gathered in four maps a block (q, k and v in one, gate and up in one).

With AVX512-VNNI and a C library the products are ours (`native/products.c`), and what lies between them, keys and values too, is bfloat16. Elsewhere all
of that is float32, and the kernel is FBGEMM's `linear_with_input_q_dq_qweight_dq_output_fp32`: float32 in, rounded with ONE scale for all rows, so each row is
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
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model.decoding import DecodingLM, Gathered, Layer, Map, Table, forget
from trilaw.model.llama import Block, CausalLM
from trilaw.model.native import library, products
from trilaw.model.rotation import BLOCK, Rotation

_TINY = 1e-12  # a row of zeros stays one


def _product(unit_MI: Tensor, step: float, zero: int, packed: torch.ScriptObject) -> Tensor:
    y_MO: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(unit_MI, step, zero, packed)
    return y_MO


def unsupported(device: torch.device) -> str | None:
    """Why 8-bit products cannot run there, None if they can."""
    if device.type != "cpu":
        return f"8-bit products run on CPUs only, not on {device}: leave quantization out there"
    try:
        linear(torch.ones(1, 4))(torch.ones(1, 4))
    except (AttributeError, RuntimeError):  # no such operator, or none for this processor
        return "this build of PyTorch has no 8-bit products for this CPU: leave quantization out"
    return None


@torch.no_grad()
def prepare(source: CausalLM, *, consume: bool = False) -> DecodingLM:
    """A copy of `source` in 8 bits. consume: `source` is not needed any more, so a block's weights go once they are rounded.

    Raises ModelError where the device has no such kernel."""
    if reason := unsupported(source.device):
        raise ModelError(f"{reason}.")
    stream = Rotation(source.arch.hidden_size)
    ones_D = torch.ones(source.arch.hidden_size)  # weights of norms are folded into the maps that follow
    dtype = torch.bfloat16 if library.multiplies_bytes(library.functions()) else torch.float32
    norm_D = source.model.norm.weight.float()
    head = linear(_in_slices(lambda head_vD: stream(head_vD.float() * norm_D), source.head_weight), logits=True)
    embedding_VD = _in_slices(lambda table_vD: stream(table_vD.float()), source.model.embed_tokens.weight)
    if consume:
        forget(source.model.embed_tokens)
    layers = [_layer(cast(Block, block), source.arch, stream, ones_D, consume) for block in source.model.layers]
    return DecodingLM(source.arch, source.rotary, dtype, Table(embedding_VD), layers, ones_D, head)


def _in_slices(change: Map, table_VD: Tensor) -> Tensor:
    """`change` of a table, which is large beside the rest of a small model, without copies of all of it on the way."""
    return torch.cat([change(part_vD) for part_vD in torch.split(table_VD, 4096)])


class Int8Linear:
    """x W^T + b, both rounded to integers; float32 in and out."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
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

    def __call__(self, x_NI: Tensor) -> Tensor:
        most_N1 = x_NI.abs().amax(-1, keepdim=True).clamp_min_(_TINY)
        y_NO: Tensor = _product(x_NI / most_N1, self.step, self.zero, self.packed).mul_(most_N1)
        return y_NO if self.bias_O is None else y_NO.add_(self.bias_O)


def linear(weight_OI: Tensor, bias_O: Tensor | None = None, *, logits: bool = False, rotate: bool = False) -> Map:
    """The better of the two kernels. rotate: each 64 inputs go through a Hadamard transform first."""
    native = library.multiplies_bytes(library.functions())
    if native and not (rotate and weight_OI.shape[1] % BLOCK):
        dtype = torch.float32 if logits else torch.bfloat16
        return products.Bytes(weight_OI, bias_O, dtype, rotate=rotate)
    plain = Int8Linear(weight_OI, bias_O)
    inner = Rotation(weight_OI.shape[1], within_blocks=True)
    if native:
        return lambda x_NI: plain(inner(x_NI.float()) if rotate else x_NI.float()).to(x_NI.dtype)
    return (lambda x_NI: plain(inner(x_NI))) if rotate else plain


def _layer(block: Block, arch: Arch, stream: Rotation, ones_D: Tensor, consume: bool) -> Layer:
    attention, mlp = block.self_attn, block.mlp
    head, inner = Rotation(arch.head_dim), Rotation(arch.intermediate_size, within_blocks=True)

    value_OD, value_O = attention.v_proj.weight.float(), attention.v_proj.bias
    rotated_OD = head(value_OD.view(-1, arch.head_dim, value_OD.shape[1]).transpose(1, 2)).transpose(1, 2)
    maps = [attention.q_proj.weight.float(), attention.k_proj.weight.float(), rotated_OD.reshape(value_OD.shape)]
    bias_O = None
    if value_O is not None:
        rotated_O = head(value_O.float().view(-1, arch.head_dim)).flatten()
        bias_O = torch.cat((attention.q_proj.bias.float(), attention.k_proj.bias.float(), rotated_O))
    qkv_OD = torch.cat(maps) * block.input_layernorm.weight.float()
    out_DO = attention.o_proj.weight.float()
    out_DO = head(out_DO.view(len(out_DO), -1, arch.head_dim)).view(out_DO.shape)

    gate_up_ID = torch.cat((mlp.gate_proj.weight.float(), mlp.up_proj.weight.float()))
    gate_up_ID = gate_up_ID * block.post_attention_layernorm.weight.float()
    bias_I = None if mlp.gate_proj.bias is None else torch.cat((mlp.gate_proj.bias, mlp.up_proj.bias)).float()
    down_DI = inner(stream.rows(mlp.down_proj.weight.float()))
    made = Layer(
        ones_D,
        Gathered(linear(stream(qkv_OD), bias_O), [len(weight) for weight in maps]),
        linear(stream.rows(out_DO), _rotated(attention.o_proj.bias, stream)),
        ones_D,
        Gathered(linear(stream(gate_up_ID), bias_I), [arch.intermediate_size] * 2),
        linear(down_DI, _rotated(mlp.down_proj.bias, stream), rotate=True),
    )
    if consume:
        forget(block)
    return made


def _rotated(bias_D: Tensor | None, stream: Rotation) -> Tensor | None:
    return None if bias_D is None else stream(bias_D.float())
