"""The rows' newest tokens by PyTorch's operators: where there is no C library (`native_rows`), and on a GPU.

A row attends to its shared prefix (pages) and to its own tail. The prefix is read once for all rows that share it: their queries stand
side by side as one block against it. The two halves are merged exactly by their log-sum-exps: with o, l of either half,
o = o_tail + sigmoid(l_prefix - l_tail) (o_prefix - o_tail); Juravsky et al. 2024, "Hydragen" (arXiv:2402.05099), Ye et al. 2025,
"FlashInfer" (arXiv:2501.01005).

In float32 plain matrix products and a softmax are used: on a CPU they take about half the time of PyTorch's fused kernel, which is made
for long queries (128 rows, 3 x 3 heads of 64, 80 keys: 1.7 ms against 3.0 on one AVX2 core; 512 rows, 4 heads of 32, 32 keys: 1.6
against 4.5). In 16 bits the scores must stay in float32, which the fused kernel does.

Shapes: B rows, H query heads, K key-value heads, G = H / K, E head size, S positions, N rows times key-value heads, C groups of rows, W rows of
the widest group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.engine.memory import Memory
from trilaw.engine.pages import PAGE, Node

_GATHER = (
    4  # what reading a page costs for attention, in rows that attend to it: weighs wide groups against padded ones
)


@dataclass(frozen=True)
class Prefixes:
    """Groups of rows with shared prefixes of one class of lengths. Unused places of a group repeat row 0 and are never read back."""

    slot_CS: Tensor  # of each group's pages
    bias_CS: Tensor  # 0, or -inf past a group's prefix
    row_CW: Tensor
    row_M: Tensor | None  # the rows of the groups, one after the other; None: they are rows 0..B-1
    place_M: Tensor  # where each of them stands in row_CW, flat


def plan(chains: Sequence[Sequence[Node]], memory: Memory, device: torch.device, dtype: torch.dtype) -> list[Prefixes]:
    """Rows by their shared pages (none for an empty chain): classes of lengths (up to 8 pages, 32, 128, ...), so that little is padded."""
    members: dict[int, list[int]] = {}
    for row, nodes in enumerate(chains):
        if nodes:
            members.setdefault(nodes[-1].page, []).append(row)
    classes: dict[int, list[list[int]]] = {}
    for rows in members.values():
        classes.setdefault((((len(chains[rows[0]]) - 1) >> 3).bit_length() + 1) // 2, []).append(rows)
    parts = []
    for groups in classes.values():
        width = _width([len(rows) for rows in groups])
        blocks = [rows[i : i + width] for rows in groups for i in range(0, len(rows), width)]
        longest = max(len(chains[rows[0]]) for rows in blocks)
        pages: list[int] = []
        lengths: list[int] = []
        places: list[int] = []
        order: list[int] = []
        for block, rows in enumerate(blocks):
            nodes = chains[rows[0]]
            pages += [node.page for node in nodes] + [nodes[0].page] * (longest - len(nodes))
            lengths.append(len(nodes) * PAGE)
            places += range(block * width, block * width + len(rows))
            order += rows
        row_CW = torch.zeros(len(blocks) * width, dtype=torch.int64)
        row_CW[places] = torch.tensor(order)
        after_CS = torch.arange(longest * PAGE) >= torch.tensor(lengths)[:, None]
        bias_CS = torch.zeros(after_CS.shape, dtype=torch.float32).masked_fill_(after_CS, -torch.inf)
        parts.append(
            Prefixes(
                memory.pages.slots(pages).view(len(blocks), -1),
                bias_CS.to(device, dtype),
                row_CW.view(len(blocks), width).to(device),
                None if order == list(range(len(chains))) else torch.tensor(order, device=device),
                torch.tensor(places, device=device),
            )
        )
    return parts


def _width(sizes: Sequence[int]) -> int:
    """How many rows a block has: wide groups are cut and narrow ones padded where that costs least."""
    candidates = {1 << i for i in range(max(sizes).bit_length())} | {max(sizes)}
    return min(sorted(candidates), key=lambda w: sum(-(-n // w) for n in sizes) * (w + _GATHER))


class TorchRows:
    """Attention of the rows in one pass."""

    def __init__(self, arch: Arch, memory: Memory, parts: Sequence[Prefixes], place_B: Tensor, span: int) -> None:
        """place_B: where in its tail each row's newest token goes. span: the largest of these, plus one."""
        self._memory, self._parts, self._span = memory, parts, span
        self._kv_heads, self._scale = arch.kv_heads, arch.head_dim**-0.5
        self._place_B, self._B = place_B, len(place_B)
        device, dtype = memory.device, memory.dtype
        self._row_B = torch.arange(self._B, device=device)
        after_BS = torch.arange(span, device=device) > place_B[:, None]
        bias_BS = torch.zeros(after_BS.shape, dtype=dtype, device=device).masked_fill_(after_BS, -torch.inf)
        self._bias_B11S = bias_BS[:, None, None]
        self._bias_N1S: Tensor | None = None  # of every row and key-value head, where there is nothing to merge with
        if not parts and dtype == torch.float32:
            self._bias_N1S = bias_BS.repeat_interleave(arch.kv_heads, 0)[:, None]

    def __call__(self, layer: int, q_BHE: Tensor, k_BKE: Tensor, v_BKE: Tensor) -> Tensor:
        """Store the newest keys and values, and attend: [B, H, E]."""
        tail_k, tail_v = self._memory.tails.keys[layer], self._memory.tails.values[layer]
        tail_k[self._row_B, :, self._place_B] = k_BKE
        tail_v[self._row_B, :, self._place_B] = v_BKE
        q_BKGE = q_BHE.reshape(self._B, self._kv_heads, -1, q_BHE.shape[-1])
        k_BKSE, v_BKSE = tail_k[: self._B, :, : self._span], tail_v[: self._B, :, : self._span]
        if self._bias_N1S is not None:  # in few calls, which is what a lone row waits for
            q_NGE, k_NSE, v_NSE = q_BKGE.flatten(0, 1), k_BKSE.flatten(0, 1), v_BKSE.flatten(0, 1)
            score_NGS = torch.baddbmm(self._bias_N1S, q_NGE, k_NSE.transpose(1, 2), alpha=self._scale)
            return torch.bmm(torch.softmax(score_NGS, -1), v_NSE).view(q_BHE.shape)
        y_BKGE, lse_BKG1 = attend(q_BKGE, k_BKSE, v_BKSE, self._bias_B11S, self._scale)
        for part in self._parts:
            keys_KNE, values_KNE = self._memory.pages.keys[layer], self._memory.pages.values[layer]
            C, W = part.row_CW.shape
            _, K, G, E = q_BKGE.shape
            q_KCQE = q_BKGE[part.row_CW].permute(2, 0, 1, 3, 4).reshape(K, C, W * G, E)
            # Gathered anew each time: a few percent of the attention, where a kept copy would store the prefix twice.
            k_KCSE, v_KCSE = keys_KNE[:, part.slot_CS], values_KNE[:, part.slot_CS]
            y_KCQE, lse_KCQ1 = attend(q_KCQE, k_KCSE, v_KCSE, part.bias_CS[:, None], self._scale)
            y_MKGE = y_KCQE.reshape(K, C * W, G, E)[:, part.place_M].transpose(0, 1)
            lse_MKG1 = lse_KCQ1.reshape(K, C * W, G, 1)[:, part.place_M].transpose(0, 1)
            if part.row_M is None:
                y_BKGE = merge(y_BKGE, lse_BKG1, y_MKGE, lse_MKG1)
            else:
                y_BKGE[part.row_M] = merge(y_BKGE[part.row_M], lse_BKG1[part.row_M], y_MKGE, lse_MKG1)
        return y_BKGE.reshape(q_BHE.shape)


def attend(q_XQE: Tensor, k_XSE: Tensor, v_XSE: Tensor, bias_X1S: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention, and the log-sum-exp of the scores (scale q k + bias), float32 [X, Q, 1]; X stands for two dimensions."""
    if q_XQE.dtype != torch.float32:
        if q_XQE.device.type == "cpu":
            y_XQE, lse_XQ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_XQE, k_XSE, v_XSE, attn_mask=bias_X1S.expand(*q_XQE.shape[:-1], k_XSE.shape[-2]), scale=scale
            )
            return y_XQE, lse_XQ.float()[..., None]
        y_XQE, lse_XQ1 = attend(q_XQE.float(), k_XSE.float(), v_XSE.float(), bias_X1S.float(), scale)
        return y_XQE.to(q_XQE.dtype), lse_XQ1
    score_XQS = torch.matmul(q_XQE * scale, k_XSE.transpose(-1, -2)).add_(bias_X1S)
    weight_XQS = torch.softmax(score_XQS, -1)
    # The likeliest key has weight exp(score - lse), and its weight is no less than 1 / S.
    lse_XQ1 = score_XQS.amax(-1, keepdim=True) - weight_XQS.amax(-1, keepdim=True).log_()
    return torch.matmul(weight_XQS, v_XSE), lse_XQ1


def merge(y_XE: Tensor, lse_X1: Tensor, other_XE: Tensor, other_X1: Tensor) -> Tensor:
    """Attention over the union of two sets of keys, from the attention over each and the log-sum-exp of its scores."""
    return torch.lerp(y_XE, other_XE, torch.sigmoid(other_X1 - lse_X1).to(y_XE.dtype))
