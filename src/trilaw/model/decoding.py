"""A model as the engine reads it on a CPU: products with weights that are packed once, and one C function between two products.

The same numbers as `llama.CausalLM` up to rounding, which differs in two ways from bfloat16 modules: the residual stream stays float32, as
it does under autocast in training, and each function rounds once at its end. It has no gradients and no state to save.

Maps of a block that read the same input are gathered in one product (q, k and v; gate and up) where the weights are copied anyway; float32
weights of a larger model are used as they are, so that sampling takes no second copy of what is trained. bfloat16 weights are packed, for
our own products where the processor has AVX512-BF16 (logits then leave in float32), else for oneDNN's: all maps of SmolLM2-135M take 8 ms for
one row, 10 for 8 and 91 for 128 by ours on two Zen 4 cores, 10, 12 and 90 by oneDNN's packed and 22, 25 and 103 by its plain ones.

Shapes: N tokens, D hidden size, O outputs, I inputs, H query heads, K key-value heads, E head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from trilaw.core.arch import Arch
from trilaw.model.attention import Cache
from trilaw.model.layers import Linear
from trilaw.model.llama import Block, CausalLM
from trilaw.model.memory import give_back_freed
from trilaw.model.native import library, ops, products
from trilaw.model.precision import SMALL
from trilaw.model.rope import Rotary
from trilaw.model.thin import linear

Map = Callable[[Tensor], Tensor]
Maps = Callable[[Tensor], Sequence[Tensor]]
_ROWS = 128  # a hint for the packed layout; it serves every number of rows


@dataclass(frozen=True)
class Layer:
    """One block; weights of norms are float32."""

    attention_norm_D: Tensor
    qkv: Maps
    out: Map
    mlp_norm_D: Tensor
    gate_up: Maps
    down: Map  # of silu(gate) * up


class DecodingLM:
    """Meets what the engine asks of a CausalLM. It does not follow its source unless both are float32: make it anew for new weights."""

    def __init__(
        self,
        arch: Arch,
        rotary: Rotary,
        dtype: torch.dtype,
        embed: Map,
        layers: Sequence[Layer],
        norm_D: Tensor,
        head: Map,
    ) -> None:
        """dtype: of what goes into the products, and of keys and values. embed: embeddings [N, D] of tokens [N]."""
        self.arch, self.rotary, self.dtype, self.device = arch, rotary, dtype, norm_D.device
        self.embed, self.layers, self.norm_D, self.head = embed, layers, norm_D, head

    def __call__(self, tokens_1N: Tensor, *, positions_BT: Tensor, cache: Cache) -> Tensor:
        """Hidden states [1, N, D] after the final norm."""
        arch, eps = self.arch, self.arch.norm_eps
        x_ND = self.embed(tokens_1N[0]).float()
        cos_NF, sin_NF = (t[0] for t in self.rotary.halves(positions_BT))
        h_ND = ops.add_norm(x_ND, None, self.layers[0].attention_norm_D, eps, self.dtype)
        following = [*(layer.attention_norm_D for layer in self.layers[1:]), self.norm_D]
        for i, layer in enumerate(self.layers):
            q_NHE, k_NKE, v_NKE = (y.view(len(y), -1, arch.head_dim) for y in layer.qkv(h_ND))
            ops.rotate_(q_NHE, cos_NF, sin_NF)
            ops.rotate_(k_NKE, cos_NF, sin_NF)
            y_NHE = cache.attend(i, q_NHE[None], k_NKE[None], v_NKE[None])[0]
            h_ND = ops.add_norm(x_ND, layer.out(y_NHE.flatten(1)), layer.mlp_norm_D, eps, self.dtype)
            h_ND = ops.add_norm(x_ND, layer.down(ops.gated(*layer.gate_up(h_ND))), following[i], eps, self.dtype)
        return h_ND[None]

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """[N, V] from hidden states [N, D]."""
        return self.head(hidden_ND)


class Packed:
    """x W^T + b in bfloat16, the weight in the layout that oneDNN's kernel reads."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.to(torch.bfloat16).contiguous(), _ROWS)
        self.bias_O = None if bias_O is None else bias_O.to(torch.bfloat16)

    def __call__(self, x_NI: Tensor) -> Tensor:
        y_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, self.weight, self.bias_O, "none", [], "")
        return y_NO


class Plain:
    """x W^T + b with the weight as it is."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None = None) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O

    def __call__(self, x_NI: Tensor) -> Tensor:
        return linear(x_NI, self.weight_OI, self.bias_O)


class Table:
    """Embeddings as they are."""

    def __init__(self, embedding_VD: Tensor) -> None:
        self.embedding_VD = embedding_VD

    def __call__(self, tokens_N: Tensor) -> Tensor:
        return self.embedding_VD[tokens_N]


class Gathered:
    """Several maps of one input by one product."""

    def __init__(self, product: Map, sizes: Sequence[int]) -> None:
        self.product, self.sizes = product, list(sizes)

    def __call__(self, x_NI: Tensor) -> Sequence[Tensor]:
        return torch.split(self.product(x_NI), self.sizes, -1)


class Apart:
    """Several maps of one input, each by a product of its own."""

    def __init__(self, products: Sequence[Map]) -> None:
        self.products = products

    def __call__(self, x_NI: Tensor) -> Sequence[Tensor]:
        return [product(x_NI) for product in self.products]


def supported(arch: Arch, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this file's way is the better one: there is a library, and it knows the shapes."""
    return (
        device.type == "cpu"
        and dtype in (torch.float32, torch.bfloat16)
        and arch.head_dim % library.LANES == 0
        and library.functions() is not None
    )


@torch.no_grad()
def prepare(source: CausalLM, dtype: torch.dtype, *, consume: bool = False) -> DecodingLM:
    """`source` for sampling in `dtype`, bfloat16 or float32. consume: it is not needed any more, so a block's weights go once they are packed."""
    halves = dtype == torch.bfloat16 and library.multiplies_halves(library.functions())
    packed = dtype == torch.bfloat16 and packs()
    copies = dtype != torch.float32 or source.dtype != dtype or source.arch.parameters() < SMALL

    def single(weight_OI: Tensor, bias_O: Tensor | None = None, *, logits: bool = False) -> Map:
        if halves and weight_OI.shape[1] % 2 == 0:
            return products.Halves(weight_OI, bias_O, torch.float32 if logits else dtype)
        if packed:
            return Packed(weight_OI, bias_O)
        return Plain(weight_OI.detach().to(dtype), None if bias_O is None else bias_O.detach().to(dtype))

    def several(*maps: Linear) -> Maps:
        if not copies:
            return Apart([single(m.weight, m.bias) for m in maps])
        bias_O = None if maps[0].bias is None else torch.cat([m.bias for m in maps])
        return Gathered(single(torch.cat([m.weight for m in maps]), bias_O), [len(m.weight) for m in maps])

    def layer(block: Block) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        made = Layer(
            block.input_layernorm.weight.detach().float(),
            several(attention.q_proj, attention.k_proj, attention.v_proj),
            single(attention.o_proj.weight, attention.o_proj.bias),
            block.post_attention_layernorm.weight.detach().float(),
            several(mlp.gate_proj, mlp.up_proj),
            single(mlp.down_proj.weight, mlp.down_proj.bias),
        )
        if consume:
            forget(block)
        return made

    head = single(source.head_weight, logits=True)
    if source.arch.tied and isinstance(head, products.Halves):
        embed: Map = head.rows  # one copy serves both
    else:
        embed = Table(source.model.embed_tokens.weight.detach().to(dtype))
    norm_D = source.model.norm.weight.detach().float()
    if consume:
        forget(source.model.embed_tokens)
    layers = [layer(cast(Block, block)) for block in source.model.layers]
    return DecodingLM(source.arch, source.rotary, dtype, embed, layers, norm_D, head)


def forget(module: nn.Module) -> None:
    """Let go of the weights; those that somebody else holds stay there."""
    for weight in module.parameters():
        weight.data = weight.data.new_empty(0)
    give_back_freed()


def packs() -> bool:
    """Whether this build of PyTorch packs bfloat16 weights for oneDNN."""
    try:
        Packed(torch.ones(16, 16))(torch.ones(1, 16, dtype=torch.bfloat16))
    except (AttributeError, RuntimeError):
        return False
    return True
