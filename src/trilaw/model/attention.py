"""Grouped-query attention with rotary positions and an optional cache of keys and values; one code path trains and decodes.

Ainslie et al. 2023, "GQA" (arXiv:2305.13245). Letters: B rows, T new tokens, S tokens attended to, H query heads, K key-value
heads, G = H / K heads a group, E head size, D hidden size.
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

    def extend(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new keys and values of one layer; all that the queries may look at, each [B, K, S, E]."""
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
        v_BTKE = self.v_proj(x_BTD).view(rows, tokens, self.kv_heads, self.head_dim)
        # Queries and keys are rotated together: one concatenation is cheaper than doing everything twice at small sizes.
        qk_BTD = torch.cat((self.q_proj(x_BTD), self.k_proj(x_BTD)), dim=-1)
        qk_BTHE = rotate(qk_BTD.view(rows, tokens, self.heads + self.kv_heads, self.head_dim), *rotary)
        qk_BHTE = qk_BTHE.to(v_BTKE.dtype).transpose(1, 2)  # under autocast the rotation is float32
        q_BHTE, k_BKTE = qk_BHTE[:, : self.heads], qk_BHTE[:, self.heads :]
        v_BKTE = v_BTKE.transpose(1, 2)
        if cache is not None:
            k_BKTE, v_BKTE = cache.extend(self.layer, k_BKTE, v_BKTE)
        y_BTHE = self._attend(q_BHTE, k_BKTE, v_BKTE, mask_BHTS)
        y_BTD: Tensor = self.o_proj(y_BTHE.reshape(rows, tokens, self.heads * self.head_dim))
        return y_BTD

    def _attend(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask_BHTS: Tensor | None) -> Tensor:
        """[B, T, H, E]."""
        rows, _, tokens, _ = q_BHTE.shape
        if tokens == 1 and mask_BHTS is not None:
            # A decoding step: the heads of a group stand where tokens would, so keys and values are not repeated.
            q_BKGE = q_BHTE.reshape(rows, self.kv_heads, self.heads // self.kv_heads, self.head_dim)
            y_BKGE = F.scaled_dot_product_attention(q_BKGE, k_BKSE, v_BKSE, attn_mask=mask_BHTS)
            return y_BKGE.reshape(rows, 1, self.heads, self.head_dim)
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE,
            k_BKSE,
            v_BKSE,
            attn_mask=mask_BHTS,
            is_causal=mask_BHTS is None,
            enable_gqa=self.heads != self.kv_heads,
        )
        return y_BHTE.transpose(1, 2)
