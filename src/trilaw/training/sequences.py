"""Attention among sequences that lie in one flat row of tokens, each causal and blind to the others.

All layers but attention take tokens one by one, so a batch needs no padding there, nor two copies of what its sequences have in common (the
prompt of a group). Attention gathers the queries, keys and values of sequences of like length side by side, runs the plain causal kernel
without a mask, and takes each token's output to its place. A token that several sequences share is computed in each of them, to the same
value, and its gradients add up through the gathering: so the result is what every sequence gives alone.

Letters: B = 1 row, T tokens in it, R sequences side by side, S places of the longest of them; H query heads, K key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trilaw.model.attention import attend_within


def shortest_beside(longest: int) -> int:
    """Of which length a sequence may still lie beside one of `longest` tokens: an eighth of padding, or 16 tokens, cost less than a
    kernel's start."""
    return longest - max(16, longest // 8)


class Sequences:
    """Stands where a cache does in `CausalLM.forward`."""

    def __init__(self, places: Sequence[Sequence[int]], tokens: int, device: torch.device | str = "cpu") -> None:
        """places: of each sequence, where its tokens stand in the row of `tokens`, in order. Every token belongs to at least one."""
        order = sorted(places, key=len, reverse=True)
        source: list[int] = []  # P: the tokens, gathered
        home = [0] * tokens  # where among them a token's output lies
        self._shapes: list[tuple[int, int]] = []  # [R, S] of each block
        start = end = 0
        while start < len(order):
            longest = len(order[start])
            while end < len(order) and len(order[end]) >= shortest_beside(longest):
                for at, place in enumerate(order[end], len(source)):
                    home[place] = at
                # Padding repeats the row's first token. It comes last in a causal sequence, so it reaches nothing.
                source += chain(order[end], [0] * (longest - len(order[end])))
                end += 1
            self._shapes.append((end - start, longest))
            start = end
        # Sequences of one length, one after the other, lie as they are needed.
        self._plain = len(self._shapes) == 1 and source == list(range(tokens))
        self._source_P, self._home_T = torch.tensor(source, device=device), torch.tensor(home, device=device)
        rest = [at for at, place in enumerate(source) if home[place] != at]
        self._rest = torch.tensor(
            rest, dtype=torch.long, device=device
        )  # whose output nobody takes: shared ones and padding

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        """[1, T, H, E] from one row's projections."""
        if self._plain:
            q_RSHE, k_RSKE, v_RSKE = (x.view(*self._shapes[0], *x.shape[2:]) for x in (q_BTHE, k_BTKE, v_BTKE))
            return attend_within(q_RSHE, k_RSKE, v_RSKE).flatten(0, 1)[None]
        gathered = zip(*(self._blocks(x[0]) for x in (q_BTHE, k_BTKE, v_BTKE)), strict=True)
        found = [attend_within(*block).flatten(0, 1) for block in gathered]
        found_PHE = torch.cat(found) if len(found) > 1 else found[0]
        y_THE: Tensor = _Collect.apply(found_PHE, self._source_P, self._home_T, self._rest)  # type: ignore[no-untyped-call]
        return y_THE[None]

    def _blocks(self, x_T: Tensor) -> list[Tensor]:
        """[R, S, ...] of each block."""
        gathered_P: Tensor = _Gather.apply(x_T, self._source_P, self._home_T, self._rest)  # type: ignore[no-untyped-call]
        parts = torch.split(gathered_P, [rows * longest for rows, longest in self._shapes])
        return [part.view(*shape, *x_T.shape[1:]) for part, shape in zip(parts, self._shapes, strict=True)]


class _Gather(torch.autograd.Function):
    """x[source]. Backward reads where autograd's would scatter: most tokens are gathered once, and only the rest is added."""

    @staticmethod
    def forward(ctx: Any, x_T: Tensor, source_P: Tensor, home_T: Tensor, rest: Tensor) -> Tensor:
        ctx.save_for_backward(source_P, home_T, rest)
        return x_T.index_select(0, source_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_P: Tensor) -> tuple[Tensor, None, None, None]:
        source_P, home_T, rest = ctx.saved_tensors
        slope_T = slope_P.index_select(0, home_T)
        return slope_T.index_add_(0, source_P[rest], slope_P.index_select(0, rest)), None, None, None


class _Collect(torch.autograd.Function):
    """y[home], of which each place is taken at most once: backward reads likewise, and the rest has no gradient."""

    @staticmethod
    def forward(ctx: Any, y_P: Tensor, source_P: Tensor, home_T: Tensor, rest: Tensor) -> Tensor:
        ctx.save_for_backward(source_P, rest)
        return y_P.index_select(0, home_T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_T: Tensor) -> tuple[Tensor, None, None, None]:
        source_P, rest = ctx.saved_tensors
        return slope_T.index_select(0, source_P).index_fill_(0, rest, 0.0), None, None, None
