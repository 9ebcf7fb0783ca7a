"""Batches of completions (sft, grpo): a prompt to condition on, a completion to learn from, micro-batches of right-padded rows by length.

A row holds one completion after its prompt, or a bundle of completions after ONE copy of the prompt that they share:

    prompt | completion 1 | completion 2 | ...      each token sees the prompt and what came before it in its own completion

Positions of every completion start where the prompt ends, so the bundle computes what its members would compute alone, and the prompt
only once, forward and backward. `share_prompts` bundles where that pays by the architecture's own count of FLOPs: the mask of a bundle
costs the full square of its row in attention. Rows are sorted by length, so that little is padding, and cut so that rows times longest row stays
within a token budget. A row of one needs no mask in a causal model: nothing real comes after the padding's place.
Letters: B rows, T tokens, N completion tokens of the micro-batch.
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
    """The states `hidden_BTD.flatten(0, 1)[select_N]` predict `targets_N`; token n belongs to completion `owner_N[n]` of the batch."""

    tokens_BT: Tensor
    positions_BT: Tensor | None  # None: 0, 1, 2, ... in every row
    mask_BTT: Tensor | None  # bool, True where a token may attend; None: causal
    select_N: Tensor
    targets_N: Tensor
    owner_N: Tensor
    order: tuple[int, ...]  # the completions in it, as their targets follow each other


Bundle = tuple[int, ...]  # completions, by index, that stand in one row after their common prompt

_WORTH = (
    1.25  # a bundle must save at least this factor of FLOPs, for masks and odd shapes cost time that FLOPs do not show
)


def share_prompts(batch: Sequence[Completion], arch: Arch) -> list[Bundle]:
    """The batch in bundles, each completion in one: of the size that saves most in `arch`, or of one where none pays."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, one in enumerate(batch):
        alike.setdefault(one.prompt, []).append(index)
    bundles: list[Bundle] = []
    for members in alike.values():
        members.sort(key=lambda i: (-len(batch[i].tokens), i))
        alone = sum(arch.forward_flops(*passes([batch[i]])) for i in members)
        best, size = alone / _WORTH, 1
        trial = 2
        while trial < 2 * len(members):
            cost = sum(_flops(batch, members[i : i + trial], arch) for i in range(0, len(members), trial))
            if cost < best:
                best, size = cost, trial
            trial *= 2
        bundles += [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    return bundles


def _flops(batch: Sequence[Completion], bundle: Sequence[int], arch: Arch) -> float:
    """What a row costs as it is computed: attention over its full square."""
    length = _length(batch, bundle)
    return arch.forward_flops(length, length**2, sum(len(batch[i].tokens) for i in bundle))


def _length(batch: Sequence[Completion], bundle: Sequence[int]) -> int:
    """Tokens of a bundle's row: the last token of a completion predicts nothing and stays out."""
    return len(batch[bundle[0]].prompt) + sum(len(batch[i].tokens) - 1 for i in bundle)


def micro_batches(
    batch: Sequence[Completion],
    micro_tokens: int,
    device: torch.device | str = "cpu",
    bundles: Sequence[Bundle] | None = None,
) -> list[MicroBatch]:
    """All of `batch`, longest row first (so that memory is tried at once); a row longer than `micro_tokens` stands alone."""
    rows = [(i,) for i in range(len(batch))] if bundles is None else bundles
    order = sorted(rows, key=lambda row: (-_length(batch, row), row))
    parts, start = [], 0
    while start < len(order):
        count = max(1, micro_tokens // _length(batch, order[start]))
        parts.append(_collate(batch, order[start : start + count], device))
        start += count
    return parts


def _collate(batch: Sequence[Completion], rows: Sequence[Bundle], device: torch.device | str) -> MicroBatch:
    shape = len(rows), max(_length(batch, row) for row in rows)
    tokens_BT = torch.zeros(shape, dtype=torch.long)
    positions_BT = torch.zeros(shape, dtype=torch.long)
    part_BT = torch.full(shape, -1)  # 0: the prompt; 1, 2, ...: a completion; -1: padding
    select: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for row, bundle in enumerate(rows):
        prompt = batch[bundle[0]].prompt
        size = len(prompt)
        tokens_BT[row, :size] = torch.tensor(prompt)
        positions_BT[row, :size] = torch.arange(size)
        part_BT[row, :size] = 0
        base, at = row * shape[1], size
        for part, index in enumerate(bundle, 1):
            tokens = batch[index].tokens
            end = at + len(tokens) - 1
            tokens_BT[row, at:end] = torch.tensor(tokens[:-1], dtype=torch.long)
            positions_BT[row, at:end] = torch.arange(size, size + len(tokens) - 1)
            part_BT[row, at:end] = part
            select += [
                base + size - 1,
                *range(base + at, base + end),
            ]  # the prompt's last state predicts the first token
            targets += tokens
            owners += [index] * len(tokens)
            at = end
    bundled = any(len(bundle) > 1 for bundle in rows)
    return MicroBatch(
        tokens_BT.to(device),
        positions_BT.to(device) if bundled else None,
        _tree_mask(part_BT).to(device) if bundled else None,
        torch.tensor(select, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(owners, dtype=torch.long, device=device),
        tuple(index for bundle in rows for index in bundle),
    )


def _tree_mask(part_BT: Tensor) -> Tensor:
    """Bool [B, T, T]: a token sees itself, the prompt, and what came before it in its own completion."""
    T = part_BT.shape[1]
    own_BTT = part_BT[:, :, None] == part_BT[:, None, :]
    prompt_B1T = part_BT[:, None, :] == 0
    return (own_BTT | prompt_B1T) & torch.ones(T, T, dtype=torch.bool).tril_()


def auto_micro_tokens(arch: Arch) -> int:
    """A token budget whose stored activations take about 4 GB in float32: 256 to 8192 tokens."""
    floats = arch.layers * (16 * arch.hidden_size + 5 * arch.intermediate_size)  # a token's share, over all layers
    return max(256, min(8192, int(1e9 / floats)))


def passes(batch: Sequence[Completion], bundles: Sequence[Bundle] | None = None) -> tuple[int, int, int]:
    """(tokens through the layers, query-key pairs, tokens that need the head), padding not counted: what FLOPs are computed from."""
    tokens = pairs = 0
    for bundle in [(i,) for i in range(len(batch))] if bundles is None else bundles:
        prompt = len(batch[bundle[0]].prompt)
        tokens += _length(batch, bundle)
        own = [len(batch[i].tokens) - 1 for i in bundle]
        pairs += prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in own)
    return tokens, pairs, sum(len(one.tokens) for one in batch)


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
