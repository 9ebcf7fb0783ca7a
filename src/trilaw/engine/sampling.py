"""One token for each row of a batch: temperature, top-k, top-p, min-p, then the inverse of the cumulative distribution.

Filters act in that order, each on what the one before left. Top-k keeps the k likeliest tokens; top-p (nucleus; Holtzman et al.
2020) the fewest likeliest tokens that hold at least p of what is left; min-p (Nguyen et al. 2024) the tokens at least min_p times as
likely as the likeliest. Equal probabilities count as ordered by token id. A row's token depends on its own logits, parameters and
`u` alone, never on its neighbours: filters touch only the rows that use them, and the draw walks the vocabulary in id order. On a CPU
with a C library (`model/native/sample.c`) rows without a filter are drawn there, by the same sums, in two passes over the logits.

Accuracy: logits are taken to fp32. A plain fp32 running sum over 49,152 tokens would misplace each boundary by up to 2**-25 and
starve tokens below 6e-8; so the sum runs in fp64 over blocks of 128 tokens first, then over the tokens of the block that was hit.
That also writes 1/128 of the memory. What is left is the fp32 rounding of a probability and of a block's sum, near 1e-7 relative.

Shapes: B rows, V vocabulary, F rows that filter, C candidates (the likeliest tokens), N blocks, M stop tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trilaw.core.types import SamplingParams
from trilaw.model.native import library, ops

_BLOCK = 128
_CANDIDATES = 1024
_COLDEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class RowParams:
    """The sampling parameters of B rows as tensors; None where no row needs them, so that their work is skipped."""

    temperature_B1: Tensor | None  # None: all are 1; a greedy row has 1 here
    greedy_B: Tensor | None  # bool; None: no row is greedy
    all_greedy: bool
    filtered_F: Tensor | None  # indices of the rows that use a filter; the next three are theirs
    top_k_F: Tensor
    top_p_F: Tensor
    min_p_F: Tensor
    sorts: bool  # some row uses top-k or top-p
    stop_BM: Tensor  # token ids that end each row, padded with -1

    @staticmethod
    def of(params: Sequence[SamplingParams], eos_ids: Sequence[int], device: torch.device) -> RowParams:
        temperatures = [p.temperature for p in params]
        greedy = [t == 0 for t in temperatures]
        filtered = [i for i, p in enumerate(params) if p.top_k > 0 or p.top_p < 1 or p.min_p > 0]
        stops = [p.stop_tokens if p.ignore_eos else (*eos_ids, *p.stop_tokens) for p in params]
        widest = max(map(len, stops), default=0)
        heat = torch.tensor([t or 1.0 for t in temperatures], dtype=torch.float32).clamp_(min=_COLDEST)
        return RowParams(
            temperature_B1=heat[:, None].to(device) if any(t not in (0, 1) for t in temperatures) else None,
            greedy_B=torch.tensor(greedy, device=device) if any(greedy) else None,
            all_greedy=all(greedy),
            filtered_F=torch.tensor(filtered, device=device) if filtered else None,
            top_k_F=torch.tensor([params[i].top_k for i in filtered], dtype=torch.int64, device=device),
            top_p_F=torch.tensor([params[i].top_p for i in filtered], dtype=torch.float64, device=device),
            min_p_F=torch.tensor([params[i].min_p for i in filtered], dtype=torch.float32, device=device),
            sorts=any(params[i].top_k > 0 or params[i].top_p < 1 for i in filtered),
            stop_BM=torch.tensor(
                [(*ids, *[-1] * (widest - len(ids))) for ids in stops], dtype=torch.int64, device=device
            ),
        )

    def filtering(self) -> RowParams:
        """Of the rows alone that use a filter, as far as drawing needs them."""
        rows = self.filtered_F
        if rows is None:
            raise ValueError("no row uses a filter")
        return replace(
            self,
            temperature_B1=None if self.temperature_B1 is None else self.temperature_B1[rows],
            greedy_B=None if self.greedy_B is None else self.greedy_B[rows],
            filtered_F=torch.arange(len(rows), device=rows.device),
        )

    def stops(self, token_B: Tensor) -> Tensor:
        """Bool [B]: whether the token ends its row."""
        return (token_B[:, None] == self.stop_BM).any(-1)


def draw(logits_BV: Tensor, params: RowParams, u_B: Tensor) -> tuple[Tensor, Tensor]:
    """A token for each row, and its natural log-probability under the distribution that it was drawn from.

    `u_B`: float64 in [0, 1), on the device of the logits. Greedy rows ignore theirs and get the log-probability of the plain softmax.
    Returns int64 [B] and float32 [B]; NaN log-probabilities where the logits of a row hold NaN or +inf.
    """
    if logits_BV.device.type != "cpu" or library.functions() is None:
        return _draw(logits_BV, params, u_B)
    token_B, logprob_B = ops.draw(logits_BV, params.temperature_B1, u_B, params.greedy_B)
    if params.filtered_F is not None:
        rows = params.filtered_F
        token_B[rows], logprob_B[rows] = _draw(logits_BV[rows], params.filtering(), u_B[rows])
    return token_B, logprob_B


def _draw(logits_BV: Tensor, params: RowParams, u_B: Tensor) -> tuple[Tensor, Tensor]:
    """The same by PyTorch's operators, with filters."""
    logits_BV = logits_BV.float()
    if params.temperature_B1 is not None:  # the maximum goes first: a very cold row must not overflow
        logits_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / params.temperature_B1
    probs_BV = torch.softmax(logits_BV, -1)
    mass_B = None
    if params.filtered_F is not None:
        kept_FV = _filter(probs_BV[params.filtered_F], params)
        mass_B = torch.ones_like(probs_BV[:, 0]).index_copy_(0, params.filtered_F, kept_FV.sum(-1))
        probs_BV.index_copy_(0, params.filtered_F, kept_FV)
    if params.greedy_B is None:
        token_B = _inverse_cdf(probs_BV, u_B)
    elif params.all_greedy:
        token_B = logits_BV.argmax(-1)
    else:
        token_B = torch.where(params.greedy_B, logits_BV.argmax(-1), _inverse_cdf(probs_BV, u_B))
    prob_B = probs_BV.gather(-1, token_B[:, None])[:, 0]
    return token_B, torch.log(prob_B if mass_B is None else prob_B / mass_B)


def _filter(probs_FV: Tensor, params: RowParams) -> Tensor:
    """The probabilities with 0 for every token that a filter takes away; not normalised anew."""
    floor_F1 = (
        probs_FV.amax(-1, keepdim=True) * params.min_p_F[:, None]
    )  # filters before never take the likeliest token
    keep_FV = probs_FV >= floor_F1
    if params.sorts:
        keep_FV &= _likeliest(probs_FV, params.top_k_F, params.top_p_F)
    return probs_FV * keep_FV


def _likeliest(probs_FV: Tensor, top_k_F: Tensor, top_p_F: Tensor) -> Tensor:
    """Bool [F, V]: the tokens that top-k and then top-p keep.

    Only sorted VALUES are used (how many to keep, and the smallest value kept), so it does not matter whether they come from a
    partial or a full sort; ties at the smallest value go to the lowest ids.
    """
    V = probs_FV.shape[-1]
    k_F1 = torch.where(top_k_F > 0, top_k_F, V).clamp(max=V)[:, None]
    p_F1 = top_p_F[:, None]
    C = min(V, _CANDIDATES)
    sorted_FC = probs_FV.topk(C).values
    cdf_FC = sorted_FC.cumsum(-1, dtype=torch.float64)
    # All is known from the candidates if they reach rank k, or hold the mass p of the whole; a row that uses neither needs none.
    if not bool(((k_F1 <= C) | ((k_F1 == V) & ((p_F1 == 1) | (cdf_FC[:, -1:] >= p_F1)))).all()):
        sorted_FC = probs_FV.sort(-1, descending=True).values
        cdf_FC = sorted_FC.cumsum(-1, dtype=torch.float64)
        C = V
    left_F1 = torch.where(k_F1 < V, cdf_FC.gather(-1, k_F1.clamp(max=C) - 1), 1.0)  # what top-k leaves
    before_FC = cdf_FC - sorted_FC
    rank_C = torch.arange(C, device=probs_FV.device)
    count_F1 = ((rank_C < k_F1) & ((before_FC < p_F1 * left_F1) | (p_F1 == 1))).sum(-1, keepdim=True).clamp(min=1)
    off_F1 = (k_F1 == V) & (p_F1 == 1)
    last_F1 = torch.where(off_F1, 0.0, sorted_FC.gather(-1, count_F1 - 1))
    count_F1 = torch.where(off_F1, V, count_F1)
    keep_FV = probs_FV >= last_F1
    surplus_F1 = keep_FV.sum(-1, keepdim=True) - count_F1
    if bool((surplus_F1 > 0).any()):
        tie_FV = probs_FV == last_F1
        keep_FV &= ~tie_FV | (tie_FV.cumsum(-1) <= tie_FV.sum(-1, keepdim=True) - surplus_F1)
    return keep_FV


def _inverse_cdf(weights_BV: Tensor, u_B: Tensor) -> Tensor:
    """For each row the first token whose running sum exceeds u times the total: never one of weight 0, as u < 1."""
    V = weights_BV.shape[-1]
    if V <= 8 * _BLOCK:
        cdf_BV = weights_BV.cumsum(-1, dtype=torch.float64)
        return _first_above(cdf_BV, u_B * cdf_BV[:, -1])
    if V % _BLOCK:
        weights_BV = torch.nn.functional.pad(weights_BV, (0, _BLOCK - V % _BLOCK))
    blocks_BN = weights_BV.view(len(weights_BV), -1, _BLOCK)
    cdf_BN = blocks_BN.sum(-1).cumsum(-1, dtype=torch.float64)
    target_B = u_B * cdf_BN[:, -1]
    block_B = _first_above(cdf_BN, target_B)
    row_B = torch.arange(len(weights_BV), device=weights_BV.device)
    inner_BW = blocks_BN[row_B, block_B].cumsum(-1, dtype=torch.float64)
    before_B = torch.where(block_B > 0, cdf_BN[row_B, (block_B - 1).clamp(min=0)], 0.0)
    # The block's fp32 sum may exceed its fp64 sum by a rounding: the target stays below the latter.
    top_B = torch.nextafter(inner_BW[:, -1], torch.zeros_like(before_B))
    token_B = block_B * _BLOCK + _first_above(inner_BW, torch.minimum(target_B - before_B, top_B))
    return token_B.clamp_(max=V - 1)


def _first_above(cdf_BV: Tensor, target_B: Tensor) -> Tensor:
    index_B = torch.searchsorted(cdf_BV, target_B[:, None], right=True)[:, 0]
    return index_B.clamp_(max=cdf_BV.shape[-1] - 1)  # past the end only for NaN
