"""Token log-probabilities from hidden states, in float32, a slice of the vocabulary at a time.

Where training multiplies in bfloat16, the products of the head are bfloat16 ones too if the C library has products whose sums stay float32
(`model/native/head.c`): logits are never rounded, only what goes into them. Elsewhere the head is applied in float32, as its sums would be
rounded. Slices keep the passes over logits within a processor's cache, and the gradient of each slice of the head is one product, added to
where the gradient is kept. For backward the exponentials of the logits of N tokens over a vocabulary V stay, N V numbers in the products'
format, and become the gradient in place; with `recompute` they are computed again, a third more work for the head, and one number a token stays.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.gradients import kept_gradient
from trilaw.model.native.matmul import knows, left, multiply, right
from trilaw.model.native.softmax import exponentials, logit_slopes_, packed_exponentials

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
            slices = _Slices((hidden_ND.float() / temperature).to(dtype), targets_N)
            for first in range(0, len(head_VD), words):
                kept_Nv, top_N, total_N = slices.exponentials(head_VD[first : first + words], first)
                normalisers.append(top_N + total_N.log_())
                if keep:
                    kept.append((kept_Nv, top_N))
        normaliser_N = torch.logsumexp(torch.stack(normalisers), dim=0)
        ctx.save_for_backward(hidden_ND, head_VD, targets_N, normaliser_N)
        ctx.temperature, ctx.words, ctx.kept, ctx.dtype = temperature, words, kept, dtype
        return slices.found_N - normaliser_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None, None]:
        hidden_ND, head_VD, targets_N, normaliser_N = ctx.saved_tensors
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            slices = _Slices((hidden_ND.float() / ctx.temperature).to(ctx.dtype), targets_N)
            d_scaled_ND = torch.zeros_like(hidden_ND, dtype=torch.float32) if wants_hidden else None
            held_VD = kept_gradient(head_VD) if wants_head else None
            d_head_VD = torch.zeros_like(head_VD, dtype=torch.float32) if wants_head and held_VD is None else held_VD
            slope_N = slope_N.contiguous()
            for first in range(0, len(head_VD), ctx.words):
                weight_vD = head_VD[first : first + ctx.words]
                kept_Nv, top_N = ctx.kept.pop(0) if ctx.kept else slices.exponentials(weight_vD, first)[:2]
                factor_N = (top_N - normaliser_N).exp_().mul_(slope_N).neg_()
                d_logits_Nv = logit_slopes_(kept_Nv, factor_N, targets_N, first, slope_N)
                if d_scaled_ND is not None:
                    slices.add_to_hidden(d_scaled_ND, d_logits_Nv, weight_vD)
                if d_head_VD is not None:
                    slices.add_to_head(d_head_VD[first : first + len(weight_vD)], d_logits_Nv)
        d_hidden_ND = None if d_scaled_ND is None else (d_scaled_ND / ctx.temperature).to(hidden_ND.dtype)
        found_VD = None if d_head_VD is None or held_VD is not None else d_head_VD.to(head_VD.dtype)
        return d_hidden_ND, found_VD, None, None, None, None, None


class _Slices:
    """The products of scaled hidden states with slices of the head, in the format of the states."""

    def __init__(self, scaled_ND: Tensor, targets_N: Tensor) -> None:
        self.scaled_ND, self.targets_N = scaled_ND, targets_N
        self.found_N = scaled_ND.new_empty(len(scaled_ND), dtype=torch.float32)  # logits of the targets seen so far
        self.halves = scaled_ND.dtype == torch.bfloat16
        # What is packed serves all slices; a direction needs one of the two.
        self._rows, self._columns = cache(lambda: left(scaled_ND)), cache(lambda: right(scaled_ND.T, turns=True))

    def exponentials(self, weight_vD: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        if self.halves:
            return packed_exponentials(self._rows(), weight_vD, self.targets_N, first, self.found_N)
        return exponentials(self.scaled_ND, weight_vD, self.targets_N, first, self.found_N)

    def add_to_hidden(self, d_scaled_ND: Tensor, d_logits_Nv: Tensor, weight_vD: Tensor) -> None:
        if self.halves:
            operands = left(d_logits_Nv, turns=True), right(weight_vD.T, turns=True)
            multiply(*operands, base_MN=d_scaled_ND, out_MN=d_scaled_ND)
        else:
            d_scaled_ND.addmm_(d_logits_Nv, weight_vD.to(d_logits_Nv.dtype))

    def add_to_head(self, d_weight_vD: Tensor, d_logits_Nv: Tensor) -> None:
        if self.halves:
            multiply(left(d_logits_Nv.T, turns=True), self._columns(), base_MN=d_weight_vD, out_MN=d_weight_vD)
        else:
            d_weight_vD.addmm_(d_logits_Nv.T, self.scaled_ND)


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
    if dtype != torch.bfloat16 or not knows(hidden_ND, head_VD):
        dtype = torch.float32
    logprobs_N: Tensor = _TokenLogprobs.apply(hidden_ND, head_VD, targets_N, temperature, words, keep, dtype)  # type: ignore[no-untyped-call]
    return logprobs_N
