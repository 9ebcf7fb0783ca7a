"""Grouped-query attention with rotary positions; one code path projects and rotates for training and for decoding.

Ainslie et al. 2023, "GQA" (arXiv:2305.13245). Without a cache a token attends within its row. With one, the cache stores the new keys
and values and attends in this module's place, since it alone knows where the earlier tokens lie.

Letters: B rows, T new tokens, S tokens attended to, H query heads, K key-value heads, E head size, D hidden size.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilaw.core.arch import Arch
from trilaw.model.layers import Linear
from trilaw.model.rope import rotate


class Cache(Protocol):
    """Holds the keys (already rotated) and values of earlier tokens."""

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        """Store the new keys and values of one layer, and attend with the new queries: [B, T, H, E]."""
        ...


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
        self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask_BHTS: Tensor | None, cache: Cache | None
    ) -> Tensor:
        rows, tokens, _ = x_BTD.shape
        qk_BTD, v_BTD = self.project(x_BTD)
        v_BTKE = v_BTD.view(rows, tokens, self.kv_heads, self.head_dim)
        qk_BTHE = rotate(qk_BTD.view(rows, tokens, self.heads + self.kv_heads, self.head_dim), *rotary)
        qk_BTHE = qk_BTHE.to(v_BTKE.dtype)  # under autocast the rotation is float32
        q_BTHE, k_BTKE = qk_BTHE[:, :, : self.heads], qk_BTHE[:, :, self.heads :]
        if cache is not None:
            y_BTHE = cache.attend(self.layer, q_BTHE, k_BTKE, v_BTKE)
        else:
            y_BTHE = F.scaled_dot_product_attention(
                q_BTHE.transpose(1, 2),
                k_BTKE.transpose(1, 2),
                v_BTKE.transpose(1, 2),
                attn_mask=mask_BHTS,
                is_causal=mask_BHTS is None,
                enable_gqa=self.heads != self.kv_heads,
            ).transpose(1, 2)
        y_BTD: Tensor = self.o_proj(y_BTHE.reshape(rows, tokens, self.heads * self.head_dim))
        return y_BTD

    def project(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys side by side, and values. Queries and keys are rotated together: one concatenation is cheaper than doing
        everything twice at small sizes."""
        return torch.cat((self.q_proj(x_BTD), self.k_proj(x_BTD)), dim=-1), self.v_proj(x_BTD)
