"""Batches of completions (sft, grpo): a prompt to condition on, a completion to learn from, right-padded micro-batches by length.

Rows are sorted by length, so that little is padding, and cut so that rows times longest row stays within a token budget. Right padding
needs no mask in a causal model: nothing real comes after it. Letters: B rows, T tokens, N completion tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.seeds import rng


@dataclass(frozen=True, slots=True)
class Completion:
    """One sequence; only `tokens` are learned from. `prompt` has at least one token."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def inputs(self) -> int:
        """Tokens that pass through the layers: the last one predicts nothing."""
        return len(self.prompt) + len(self.tokens) - 1


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`hidden_BTD[select_BT]` are the states that predict `targets_N`; token n belongs to completion `owner_N[n]` of the batch."""

    tokens_BT: Tensor
    select_BT: Tensor  # bool
    targets_N: Tensor
    owner_N: Tensor
    order: tuple[int, ...]  # the completions in it, a row each


def micro_batches(
    batch: Sequence[Completion], micro_tokens: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """All of `batch`, longest first (so that memory is tried at once); a row longer than `micro_tokens` stands alone."""
    order = sorted(range(len(batch)), key=lambda i: (-batch[i].inputs, i))
    parts, start = [], 0
    while start < len(order):
        rows = max(1, micro_tokens // batch[order[start]].inputs)
        parts.append(_collate(batch, order[start : start + rows], device))
        start += rows
    return parts


def _collate(batch: Sequence[Completion], rows: Sequence[int], device: torch.device | str) -> MicroBatch:
    longest = max(batch[i].inputs for i in rows)
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    select_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
    targets: list[int] = []
    owners: list[int] = []
    for row, index in enumerate(rows):
        one = batch[index]
        tokens_BT[row, : one.inputs] = torch.tensor((one.prompt + one.tokens)[:-1])
        select_BT[row, len(one.prompt) - 1 : one.inputs] = True
        targets += one.tokens
        owners += [index] * len(one.tokens)
    return MicroBatch(
        tokens_BT.to(device),
        select_BT.to(device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(owners, dtype=torch.long, device=device),
        tuple(rows),
    )


def auto_micro_tokens(arch: Arch) -> int:
    """A token budget whose stored activations take about 4 GB in float32: 256 to 8192 tokens."""
    floats = arch.layers * (16 * arch.hidden_size + 5 * arch.intermediate_size)  # a token's share, over all layers
    return max(256, min(8192, int(1e9 / floats)))


def passes(batch: Sequence[Completion]) -> tuple[int, int, int]:
    """(tokens through the layers, query-key pairs, tokens that need the head), padding not counted: what FLOPs are computed from."""
    inputs = [one.inputs for one in batch]
    return sum(inputs), sum(n * (n + 1) // 2 for n in inputs), sum(len(one.tokens) for one in batch)


def draw(count: int, size: int, step: int, seed: int) -> list[int]:
    """The indices of step 1, 2, ...: `size` at a time from one shuffled pass after another over `count` items."""
    chosen: list[int] = []
    for place in range((step - 1) * size, step * size):
        epoch, at = divmod(place, count)
        if not chosen or at == 0:
            order = list(range(count))
            rng(seed, "order", epoch).shuffle(order)
        chosen.append(order[at])
    return chosen
