"""Batches of completions (pretrain, sft, grpo): a prompt to condition on, a completion to learn from, in micro-batches without padding.

A micro-batch is one flat row of tokens. Completions of one prompt stand after ONE copy of it:

    prompt | completion 1 | completion 2 | ... | next prompt | ...      each token sees its prompt and what goes before in its completion

Positions of every completion go on where its prompt ends, so the row computes what its completions would compute alone, a shared prompt only
once, forward and backward (`sequences.py` has the attention). Micro-batches hold as many tokens as a budget allows; a group of completions is
divided, and its prompt repeated, only where it exceeds the budget by itself.
Letters: B = 1 row, T tokens in it, N completion tokens of the micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.seeds import rng
from trilaw.training.sequences import Sequences


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
    """The states `hidden_BTD[0, select_N]` predict `targets_N`; token n belongs to completion `owner_N[n]` of the batch."""

    tokens_BT: Tensor
    positions_BT: Tensor
    sequences: Sequences
    select_N: Tensor
    targets_N: Tensor
    owner_N: Tensor
    order: tuple[int, ...]  # the completions in it, as their targets follow each other
    pairs: int  # of queries and keys


def micro_batches(
    batch: Sequence[Completion], micro_tokens: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """All of `batch`, longest completions first; one that is longer than `micro_tokens` stands alone."""
    parts: list[list[Bundle]] = []
    room = 0
    for bundle in _bundles(batch, micro_tokens):
        size = _length(batch, bundle)
        if size > room:
            parts.append([])
            room = micro_tokens
        parts[-1].append(bundle)
        room -= size
    return [_collate(batch, bundles, device) for bundles in parts]


Bundle = list[int]  # completions, by index, that stand after one copy of their prompt


def _bundles(batch: Sequence[Completion], micro_tokens: int) -> list[Bundle]:
    """Completions of one prompt together, as many as `micro_tokens` allow."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for index in sorted(range(len(batch)), key=lambda i: -batch[i].inputs):
        alike.setdefault(batch[index].prompt, []).append(index)
    bundles: list[Bundle] = []
    for prompt, members in alike.items():
        room = -1
        for index in members:
            fresh = len(batch[index].tokens) - 1
            if fresh > room:
                bundles.append([])
                room = micro_tokens - len(prompt)
            bundles[-1].append(index)
            room -= fresh
    return bundles


def _length(batch: Sequence[Completion], bundle: Bundle) -> int:
    """Tokens of a bundle: the last token of a completion predicts nothing and stays out."""
    return len(batch[bundle[0]].prompt) + sum(len(batch[i].tokens) - 1 for i in bundle)


def _collate(batch: Sequence[Completion], bundles: Sequence[Bundle], device: torch.device | str) -> MicroBatch:
    tokens: list[int] = []
    positions: list[int] = []
    places: list[list[int]] = []
    select: list[int] = []
    for bundle in bundles:
        prompt = batch[bundle[0]].prompt
        of_prompt = range(len(tokens), len(tokens) + len(prompt))
        tokens += prompt
        positions += range(len(prompt))
        for index in bundle:
            fresh = batch[index].tokens[:-1]
            of_fresh = range(len(tokens), len(tokens) + len(fresh))
            places.append([*of_prompt, *of_fresh])
            select += [of_prompt[-1], *of_fresh]  # the prompt's last state predicts the first token
            tokens += fresh
            positions += range(len(prompt), len(prompt) + len(fresh))
    order = tuple(index for bundle in bundles for index in bundle)
    return MicroBatch(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        Sequences(places, len(tokens), device),
        torch.tensor(select, device=device),
        torch.tensor([token for i in order for token in batch[i].tokens], device=device),
        torch.tensor([i for i in order for _ in batch[i].tokens], device=device),
        order,
        sum(batch[i].inputs * (batch[i].inputs + 1) // 2 for i in order),
    )


def passes(parts: Sequence[MicroBatch]) -> tuple[int, int, int]:
    """(tokens through the layers, query-key pairs, tokens that need the head): what FLOPs are computed from."""
    return (
        sum(part.tokens_BT.numel() for part in parts),
        sum(part.pairs for part in parts),
        sum(len(part.targets_N) for part in parts),
    )


def kept_numbers(arch: Arch, recompute: bool = False) -> tuple[int, int]:
    """How many numbers a token leaves for backward: in every layer, and at the time of backward in one layer besides."""
    attention = 2 * (arch.heads + arch.kv_heads) * arch.head_dim  # queries, keys, values, what attention gives
    block = 4 * arch.hidden_size + attention + 2 * arch.intermediate_size  # into the norms and out of them; gate and up
    return (arch.hidden_size, block) if recompute else (block, 0)


def auto_micro_tokens(
    arch: Arch, device: torch.device, recompute: bool = False, dtype: torch.dtype = torch.float32
) -> int:
    """A token budget, 256 to 8192, whose activations take about 2 GB; on a GPU a quarter of its memory, and up to 65536.

    dtype: of products; what they read is kept in it, the rest in float32.
    """
    every, one = kept_numbers(arch, recompute)
    numbers = arch.layers * every + one + (0 if recompute else arch.vocab_size)
    on_gpu = device.type == "cuda"
    room = torch.cuda.get_device_properties(device).total_memory / 4 if on_gpu else 2e9
    width = (4 + dtype.itemsize) / 2
    return max(256, min(65536 if on_gpu else 8192, int(room / width / numbers)))


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
