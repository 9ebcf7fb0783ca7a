from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build
from trilaw.training.batch import Completion, auto_micro_tokens, draw, micro_batches, passes, share_prompts
from trilaw.training.loop import completion_logprobs

ARCH = Arch(64, 32, 96, 2, 4, 2, 8, 64, tied=True)  # tied: an untied head starts at zero, and all would be alike
LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


def made(lengths: list[tuple[int, int]]) -> list[Completion]:
    return [Completion(tuple(range(i, i + p)), tuple(range(50 + i, 50 + i + c))) for i, (p, c) in enumerate(lengths)]


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 60))
def test_every_completion_token_is_a_target_once_and_stands_after_its_input(
    lengths: list[tuple[int, int]], budget: int
) -> None:
    batch = made(lengths)
    parts = micro_batches(batch, budget)
    assert sorted(i for part in parts for i in part.order) == list(range(len(batch)))
    targets: dict[int, list[int]] = {i: [] for i in range(len(batch))}
    for part in parts:
        assert part.tokens_BT.numel() <= budget or len(part.order) == 1
        inputs = part.tokens_BT.flatten()[part.select_N].tolist()
        for owner, target, before in zip(part.owner_N.tolist(), part.targets_N.tolist(), inputs, strict=True):
            whole = batch[owner].prompt + batch[owner].tokens
            assert before == whole[len(batch[owner].prompt) + len(targets[owner]) - 1]
            targets[owner].append(target)
    assert all(tuple(targets[i]) == one.tokens for i, one in enumerate(batch))
    tokens, pairs, learned = passes(batch)
    assert learned == sum(c for _, c in lengths)
    assert tokens == sum(p + c - 1 for p, c in lengths)
    assert pairs == sum(sum(range(1, p + c)) for p, c in lengths)


def test_padding_changes_nothing(tiny_model: CausalLM) -> None:
    batch = made([(3, 4), (9, 8), (1, 1)])
    together = micro_batches(batch, 1000)[0]
    hidden_ND = tiny_model(together.tokens_BT).flatten(0, 1)[together.select_N]
    for i, one in enumerate(batch):
        alone = micro_batches([one], 1000)[0]
        torch.testing.assert_close(
            hidden_ND[together.owner_N == i],
            tiny_model(alone.tokens_BT).flatten(0, 1)[alone.select_N],
            atol=1e-5,
            rtol=1e-5,
        )


GROUPS = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 12), min_size=1, max_size=9)), min_size=1, max_size=4
)


def grouped(groups: list[tuple[int, list[int]]]) -> list[Completion]:
    """Completions of several prompts; members of a group differ."""
    return [
        Completion(tuple((7 * g + i) % 64 for i in range(size)), tuple((g + 5 * k + i * i) % 64 for i in range(length)))
        for g, (size, lengths) in enumerate(groups)
        for k, length in enumerate(lengths)
    ]


@settings(max_examples=25, deadline=None)
@given(GROUPS, st.integers(20, 400))
def test_a_shared_prompt_changes_neither_logprobs_nor_gradients(
    groups: list[tuple[int, list[int]]], budget: int
) -> None:
    batch = grouped(groups)
    model = build(replace(ARCH, max_positions=64), seed=3)
    weight_of = [0.3 + 0.1 * i for i in range(len(batch))]
    found = []
    widest = [
        tuple(i for i, one in enumerate(batch) if one.prompt == prompt) for prompt in {one.prompt for one in batch}
    ]
    for bundles in (None, share_prompts(batch, model.arch), widest):
        model.zero_grad()
        logprobs = [torch.empty(0)] * len(batch)
        for part in micro_batches(batch, budget, bundles=bundles):
            assert part.tokens_BT.numel() <= budget or len(part.tokens_BT) == 1
            logprobs_N = completion_logprobs(model, part, torch.float32)
            torch.stack([weight_of[i] * lp for i, lp in zip(part.owner_N.tolist(), logprobs_N)]).sum().backward()
            for i in part.order:
                logprobs[i] = logprobs_N[part.owner_N == i].detach()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((torch.cat(logprobs), gradient))
    for logprobs_N, gradient in found[1:]:
        torch.testing.assert_close(logprobs_N, found[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gradient, found[0][1], atol=1e-4, rtol=1e-4)


def test_bundles_cover_the_batch_once_and_only_where_they_save() -> None:
    batch = grouped([(40, [4] * 8), (1, [12] * 8), (30, [6])])
    bundles = share_prompts(batch, ARCH)
    assert sorted(i for bundle in bundles for i in bundle) == list(range(len(batch)))
    assert all(len({batch[i].prompt for i in bundle}) == 1 for bundle in bundles)
    sizes = {len(batch[bundle[0]].prompt): len(bundle) for bundle in bundles}
    assert sizes[40] > 1  # 40 tokens of prompt to 4 of completion
    assert sizes[1] == sizes[30] == 1
    tokens, pairs, learned = passes(batch, bundles)
    alone = passes(batch)
    assert learned == alone[2]
    assert tokens < alone[0]
    assert pairs < alone[1]


def test_draw_goes_through_everything_once_a_pass() -> None:
    order = [i for step in range(1, 8) for i in draw(10, 4, step, seed=5)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    assert draw(10, 4, 3, seed=5) == order[8:12]
    assert len(draw(3, 8, 1, seed=0)) == 8


def test_auto_micro_tokens(tiny_arch: Arch) -> None:
    assert auto_micro_tokens(tiny_arch) == 8192
    smollm = Arch(49152, 576, 1536, 30, 9, 3, 64, 8192)
    assert 512 <= auto_micro_tokens(smollm) <= 4096
