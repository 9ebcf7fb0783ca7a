"""The Llama family of decoder-only transformers in plain PyTorch; one implementation trains (autograd, autocast) and decodes.

Touvron et al. 2023 (arXiv:2302.13971): pre-norm blocks of grouped-query attention with rotary positions and SwiGLU. Parameter names
are Hugging Face's, so a folder loads and saves without a table of names. Differences: no dropout, and the prediction head is not
part of `forward`, since training wants it on some tokens and decoding on the last one only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trilaw.core.arch import Arch
from trilaw.core.seeds import derive
from trilaw.model.attention import Attention, Cache
from trilaw.model.layers import Embedding, Linear, RMSNorm, SwiGLU
from trilaw.model.rope import Rotary
from trilaw.model.thin import linear


class Block(nn.Module):
    def __init__(self, arch: Arch, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(arch.hidden_size, arch.norm_eps)
        self.self_attn = Attention(arch, layer)
        self.post_attention_layernorm = RMSNorm(arch.hidden_size, arch.norm_eps)
        self.mlp = SwiGLU(arch)

    def forward(
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BHTS: Tensor | None, cache: Cache | None
    ) -> Tensor:
        x_BTD = self.self_attn(self.input_layernorm(x_BTD), rotary, mask_BHTS, cache, x_BTD)
        x_BTD = self.mlp(self.post_attention_layernorm(x_BTD), x_BTD)
        return x_BTD


class Decoder(nn.Module):
    """Embedding, blocks, final norm: what Hugging Face calls `model`."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.embed_tokens = Embedding(arch.vocab_size, arch.hidden_size)
        self.layers = nn.ModuleList(Block(arch, layer) for layer in range(arch.layers))
        self.norm = RMSNorm(arch.hidden_size, arch.norm_eps)


class CausalLM(nn.Module):
    """A language model whose weights are not set yet: see `registry.build`, `init_weights` and the loaders."""

    def __init__(self, arch: Arch) -> None:
        """Raises ModelError for a rotary scaling that is not known."""
        super().__init__()
        self.arch = arch
        self.rotary = Rotary(arch)
        self.model = Decoder(arch)
        if not arch.tied:
            self.lm_head = Linear(arch.hidden_size, arch.vocab_size, bias=False)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTS: Tensor | None = None,
        cache: Cache | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Hidden states [B, T, D] after the final norm, in the dtype of the weights.

        positions_BT: whole numbers, [B, T] or [1, T]; 0..T-1 by default. mask_BTS: bool, [B, T, S] or [B or 1, 1, T, S], True where a
        token may attend; without it a token attends to itself and all before it. cache: attends in the layers' place, so it goes without a
        mask. recompute: keep only what goes into each block for backward, which then computes the block again (Chen et al. 2016,
        arXiv:1604.06174): the same gradients, a third more work.
        """
        if cache is not None and mask_BTS is not None:
            raise ValueError("a cache decides itself what a token attends to; give it no mask")
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None]
        if mask_BTS is not None and mask_BTS.dim() == 3:
            mask_BTS = mask_BTS[:, None]
        x_BTD: Tensor = self.model.embed_tokens(tokens_BT)
        rotary = self.rotary(positions_BT, x_BTD.dtype)
        for block in self.model.layers:
            if recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, rotary, mask_BTS, cache, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BTD = block(x_BTD, rotary, mask_BTS, cache)
        hidden_BTD: Tensor = self.model.norm(x_BTD)
        return hidden_BTD

    @property
    def head_weight(self) -> Tensor:
        """[V, D]: the embedding when the head is tied to it."""
        return self.model.embed_tokens.weight if self.arch.tied else self.lm_head.weight

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """[..., V] from hidden states [..., D], in their dtype (autocast may lower it)."""
        return linear(hidden_ND, self.head_weight)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed_tokens.weight.dtype

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Random weights, the same for a seed on every device: each tensor has its own generator, derived from seed and name.

        Matrices N(0, 1 / fan_in), norms 1, biases 0. Untied: embedding N(0, 1) and a head of zeros, so training starts from the uniform
        distribution (loss ln V). Tied: embedding N(0, 1 / D), so the first logits have a standard deviation of about 1.
        """
        for name, weight in self.named_parameters():
            if name == "lm_head.weight" or name.endswith(".bias"):
                weight.zero_()
            elif weight.dim() == 1:
                weight.fill_(1.0)
            else:
                embedding = name == "model.embed_tokens.weight"
                std = 1.0 if embedding and not self.arch.tied else weight.shape[1] ** -0.5
                generator = torch.Generator().manual_seed(derive(seed, "init", name))
                weight.copy_(torch.empty(weight.shape).normal_(0.0, std, generator=generator))
