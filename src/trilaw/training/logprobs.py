"""Token log-probabilities from hidden states, in float32, a chunk of tokens at a time.

The logits of N tokens over a vocabulary V take 4 N V bytes (a row of 1,000 tokens over 150,000 words: 600 MB), and training keeps them
for the backward pass. Here a chunk's logits live only while they are used: forward keeps one number a token (the log of the
normaliser), backward computes the logits again. The head is applied in float32 even under autocast; small vocabularies fit in one chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24  # logits held at a time: 64 MiB in float32


class _TokenLogprobs(torch.autograd.Function):
    """log softmax(hidden head^T / temperature)[target], with d/dlogits = onehot(target) - softmax."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, temperature: float, rows: int
    ) -> Tensor:
        logprobs, normalisers = [], []
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight_VD = head_VD.float()
            for hidden_nD, targets_n in zip(torch.split(hidden_ND, rows), torch.split(targets_N, rows), strict=True):
                logits_nV = hidden_nD.float() @ weight_VD.T
                logits_nV /= temperature
                normalisers.append(torch.logsumexp(logits_nV, dim=-1))
                logprobs.append(logits_nV.gather(1, targets_n[:, None])[:, 0] - normalisers[-1])
        ctx.save_for_backward(hidden_ND, head_VD, targets_N, torch.cat(normalisers))
        ctx.temperature, ctx.rows = temperature, rows
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_ND, head_VD, targets_N, normaliser_N = ctx.saved_tensors
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight_VD = head_VD.float()
            d_head = torch.zeros_like(weight_VD) if wants_head else None
            for start in range(0, len(hidden_ND), ctx.rows):
                part = slice(start, start + ctx.rows)
                hidden_nD = hidden_ND[part].float()
                slope_n1 = gradients[0][part, None].float() / ctx.temperature
                logits_nV = hidden_nD @ weight_VD.T
                logits_nV /= ctx.temperature
                d_logits_nV = logits_nV.sub_(normaliser_N[part, None]).exp_().mul_(-slope_n1)
                d_logits_nV.scatter_add_(1, targets_N[part, None], slope_n1)
                if d_hidden is not None:
                    d_hidden[part] = (d_logits_nV @ weight_VD).to(d_hidden.dtype)
                if d_head is not None:
                    d_head.addmm_(d_logits_nV.T, hidden_nD)
        return d_hidden, None if d_head is None else d_head.to(head_VD.dtype), None, None, None


def token_logprobs(
    hidden_ND: Tensor,
    head_VD: Tensor,
    targets_N: Tensor,
    *,
    temperature: float = 1.0,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Tensor:
    """float32 [N]: the natural logarithm of each target's probability at `temperature`, with gradient to hidden states and head.

    hidden_ND: after the final norm, only at the positions wanted. head_VD: the head, or the embedding when tied. targets_N: int64.
    """
    if not len(hidden_ND):
        return hidden_ND.new_zeros(0, dtype=torch.float32)
    rows = max(1, chunk_elements // head_VD.shape[0])
    logprobs_N: Tensor = _TokenLogprobs.apply(hidden_ND, head_VD, targets_N, temperature, rows)  # type: ignore[no-untyped-call]
    return logprobs_N
