"""Attention among sequences that lie in one flat row of tokens, each causal and blind to the others.

All layers but attention take tokens one by one, so a batch needs no padding there, nor two copies of what its sequences have in common (the
prompt of a group). Attention gathers the queries, keys and values of sequences of like length side by side, runs the plain causal kernel
without a mask, and takes each token's output to its place. A token that several sequences share is computed in each of them, to the same
value, and its gradients add up through the gathering: so the result is what every sequence gives alone.

Letters: B = 1 row, T tokens in it, R sequences side by side, S places of the longest of them; H query heads, K key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trilaw.model.attention import attend_within

PADDING = 64  # places that a sequence may be shorter than the longest beside it


class Sequences:
    """Stands where a cache does in `CausalLM.forward`."""

    def __init__(self, places: Sequence[Tensor], tokens: int, device: torch.device | str = "cpu") -> None:
        """places: of each sequence, where its tokens stand in the row of `tokens`, in order. Every token belongs to at least one."""
        order = sorted(range(len(places)), key=lambda i: -len(places[i]))
        home_T = torch.empty(tokens, dtype=torch.long)  # where a token's output lies among the gathered ones
        blocks: list[Tensor] = []  # [R, S] each
        start = end = base = 0
        while start < len(order):
            longest = len(places[order[start]])
            while end < len(order) and len(places[order[end]]) >= longest - PADDING:
                home_T[places[order[end]]] = torch.arange(len(places[order[end]])) + (base + (end - start) * longest)
                end += 1
            # Padding repeats the row's first token. It comes last in a causal sequence, so it reaches nothing.
            blocks.append(pad_sequence([places[i] for i in order[start:end]], batch_first=True))
            base += blocks[-1].numel()
            start = end
        # Sequences of one length, one after the other, lie as they are needed.
        self._plain = len(blocks) == 1 and blocks[0].flatten().equal(torch.arange(tokens))
        self._blocks, self._home_T = [block_RS.to(device) for block_RS in blocks], home_T.to(device)

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        """[1, T, H, E] from one row's projections."""
        if self._plain:
            q_RSHE, k_RSKE, v_RSKE = (x.view(*self._blocks[0].shape, *x.shape[2:]) for x in (q_BTHE, k_BTKE, v_BTKE))
            return attend_within(q_RSHE, k_RSKE, v_RSKE).flatten(0, 1)[None]
        found = [
            attend_within(q_BTHE[0][block_RS], k_BTKE[0][block_RS], v_BTKE[0][block_RS]).flatten(0, 1)
            for block_RS in self._blocks
        ]
        return torch.cat(found)[self._home_T][None]
