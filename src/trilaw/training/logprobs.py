"""Token log-probabilities from hidden states, in float32, a slice of the vocabulary at a time.

Where training multiplies in bfloat16, the products of the head are bfloat16 ones too if the C library has products whose sums stay float32
(`model/native/head.c`): logits are never rounded, only what goes into them. Elsewhere the head is applied in float32, as its sums would be
rounded. Slices keep the passes over logits within a processor's cache, and the gradient of each slice of the head is one product, added to
where the gradient is kept. For backward the exponentials of the logits of N tokens over a vocabulary V stay, N V numbers in the products'
format, and become the gradient in place; with `recompute` they are computed again, a third more work for the head, and one number a token stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.gradients import kept_gradient
from trilaw.model.native import matmul
from trilaw.model.native.softmax import exponentials, logit_slopes_

SLICE = 4096  # words; of 1,000 tokens their logits take 16 MB


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(hidden head^T / temperature)[target], with d/dlogits = onehot(target) - softmax."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        targets_N: Tensor,
        temperature: float,
        words: int,
        keep: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        kept, normalisers = [], []
        with torch.autocast(hidden_ND.device.type, enabled=False):
            scaled_ND = (hidden_ND.float() / temperature).to(dtype)
            found_N = scaled_ND.new_empty(len(scaled_ND), dtype=torch.float32)
            for first, weight_vD in _slices(head_VD, words):
                kept_Nv, top_N, total_N = exponentials(scaled_ND, weight_vD, targets_N, first, found_N)
                normalisers.append(top_N + total_N.log_())
                if keep:
                    kept.append((kept_Nv, top_N))
        normaliser_N = torch.logsumexp(torch.stack(normalisers), dim=0)
        ctx.save_for_backward(hidden_ND, head_VD, targets_N, normaliser_N)
        ctx.temperature, ctx.words, ctx.kept, ctx.dtype = temperature, words, kept, dtype
        return found_N - normaliser_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None, None]:
        hidden_ND, head_VD, targets_N, normaliser_N = ctx.saved_tensors
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            scaled_ND = (hidden_ND.float() / ctx.temperature).to(ctx.dtype)
            d_scaled_ND = torch.zeros_like(scaled_ND, dtype=torch.float32)
            held_VD = kept_gradient(head_VD) if wants_head else None
            d_head_VD = torch.empty_like(head_VD, dtype=torch.float32) if wants_head and held_VD is None else held_VD
            slope_N, unused_N = slope_N.contiguous(), torch.empty_like(normaliser_N)
            for first, weight_vD in _slices(head_VD, ctx.words):
                if ctx.kept:
                    kept_Nv, top_N = ctx.kept.pop(0)
                else:
                    kept_Nv, top_N, _ = exponentials(scaled_ND, weight_vD, targets_N, first, unused_N)
                factor_N = (top_N - normaliser_N).exp_().mul_(slope_N).neg_()
                d_logits_Nv = logit_slopes_(kept_Nv, factor_N, targets_N, first, slope_N)
                if wants_hidden:
                    _multiply(d_logits_Nv, weight_vD.T, d_scaled_ND, add=True)
                if d_head_VD is not None:
                    here_vD = d_head_VD[first : first + len(weight_vD)]
                    _multiply(d_logits_Nv.T, scaled_ND.T, here_vD, add=held_VD is not None)
        d_hidden_ND = (d_scaled_ND / ctx.temperature).to(hidden_ND.dtype) if wants_hidden else None
        found_VD = None if d_head_VD is None or held_VD is not None else d_head_VD.to(head_VD.dtype)
        return d_hidden_ND, found_VD, None, None, None, None, None


def _multiply(a_MK: Tensor, b_NK: Tensor, out_MN: Tensor, *, add: bool) -> None:
    """out = (or +=) a b^T, in float32."""
    if a_MK.dtype == torch.bfloat16:
        matmul.matmul(a_MK, b_NK, out=out_MN, add=add)
    elif add:
        out_MN.addmm_(a_MK, b_NK.T.to(a_MK.dtype))
    else:
        torch.mm(a_MK, b_NK.T.to(a_MK.dtype), out=out_MN)


def _slices(head_VD: Tensor, words: int) -> Iterator[tuple[int, Tensor]]:
    """(first word, weights [v, D]) of each slice of the head; products bring them into their format."""
    return ((first, head_VD[first : first + words]) for first in range(0, len(head_VD), words))


def token_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    recompute: bool = False,
    words: int = SLICE,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """float32 [N]: the natural logarithm of each target's probability at `temperature`, with gradient to hidden states and head.

    hidden_ND: after the final norm, only at the positions wanted. head_VD: the head, or the embedding when tied. targets_N: int64.
    recompute: keep no logits for backward. words: of the vocabulary, at a time. dtype: bfloat16 lets the head multiply in it, see the file's head.
    """
    if not len(hidden_ND):
        return hidden_ND.new_zeros(0, dtype=torch.float32)
    keep = torch.is_grad_enabled() and not recompute
    if dtype != torch.bfloat16 or not matmul.knows(hidden_ND, head_VD):
        dtype = torch.float32
    logprobs_N: Tensor = _TokenLogprobs.apply(hidden_ND, head_VD, targets_N, temperature, words, keep, dtype)  # type: ignore[no-untyped-call]
    return logprobs_N
