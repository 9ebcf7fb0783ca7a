"""Grouped-query attention with rotary positions; one code path projects and rotates for training and for decoding.

Ainslie et al. 2023, "GQA" (arXiv:2305.13245). Without a cache a token attends within its row. With one, the cache attends in this
module's place, since it alone knows where the tokens lie that go before: a decoder's stores them, a training batch's finds them in the batch.

Letters: B rows, T new tokens, S tokens attended to, H query heads, K key-value heads, E head size, D hidden size.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from trilaw.core.arch import Arch
from trilaw.model.layers import Linear, lowered, several
from trilaw.model.native import attention as native
from trilaw.model.rope import rotate_both


class Cache(Protocol):
    """Knows which keys (already rotated) and values a token attends to."""

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        """Attend in one layer with the new queries, the new keys and values among what is attended to: [B, T, H, E]."""
        ...


def attend_within(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask_BHTS: Tensor | None = None) -> Tensor:
    """[B, T, H, E]: each token attends within its row, to itself and what goes before, or to what a bool mask says."""
    if mask_BHTS is None and native.knows_causal(q_BTHE):
        return native.causal(q_BTHE, k_BTKE, v_BTKE)
    y_BHTE: Tensor = F.scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BTKE.transpose(1, 2),
        v_BTKE.transpose(1, 2),
        attn_mask=mask_BHTS,
        is_causal=mask_BHTS is None,
        enable_gqa=q_BTHE.shape[2] != k_BTKE.shape[2],
    )
    return y_BHTE.transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, arch: Arch, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = arch.heads, arch.kv_heads, arch.head_dim
        q_size, kv_size = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
        self.q_proj = Linear(arch.hidden_size, q_size, bias=arch.attention_bias)
        self.k_proj = Linear(arch.hidden_size, kv_size, bias=arch.attention_bias)
        self.v_proj = Linear(arch.hidden_size, kv_size, bias=arch.attention_bias)
        self.o_proj = Linear(q_size, arch.hidden_size, bias=arch.attention_bias)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask_BHTS: Tensor | None,
        cache: Cache | None,
        base_BTD: Tensor | None = None,
    ) -> Tensor:
        """[B, T, D]: plus `base_BTD`, if there is one."""
        rows, tokens, _ = x_BTD.shape
        projected = several(lowered(x_BTD), self.q_proj, self.k_proj, self.v_proj)
        q_BTHE, k_BTKE, v_BTKE = (y.view(rows, tokens, -1, self.head_dim) for y in projected)
        q_BTHE, k_BTKE = rotate_both(q_BTHE, k_BTKE, *rotary)
        if cache is not None:
            y_BTHE = cache.attend(self.layer, q_BTHE, k_BTKE, v_BTKE)
        else:
            y_BTHE = attend_within(q_BTHE, k_BTKE, v_BTKE, mask_BHTS)
        y_BTD: Tensor = self.o_proj(y_BTHE.reshape(rows, tokens, self.heads * self.head_dim), base_BTD)
        return y_BTD
