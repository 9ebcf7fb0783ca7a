from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.model.native.library import functions
from trilaw.model.registry import build
from trilaw.training.batch import Completion, auto_micro_tokens, draw, kept_numbers, micro_batches, passes
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
        inputs = part.tokens_BT[0, part.select_N].tolist()
        for owner, target, before in zip(part.owner_N.tolist(), part.targets_N.tolist(), inputs, strict=True):
            whole = batch[owner].prompt + batch[owner].tokens
            assert before == whole[len(batch[owner].prompt) + len(targets[owner]) - 1]
            targets[owner].append(target)
    assert all(tuple(targets[i]) == one.tokens for i, one in enumerate(batch))
    tokens, pairs, learned = passes(parts)
    assert learned == sum(c for _, c in lengths)
    assert tokens <= sum(p + c - 1 for p, c in lengths)  # less where prompts of one token are alike
    assert pairs == sum(sum(range(1, p + c)) for p, c in lengths)


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
@given(GROUPS, st.integers(20, 400), st.booleans())
def test_sharing_a_row_and_a_prompt_changes_neither_logprobs_nor_gradients(
    groups: list[tuple[int, list[int]]], budget: int, recompute: bool
) -> None:
    batch = grouped(groups)
    model = build(ARCH, seed=3)
    weight_of = [0.3 + 0.1 * i for i in range(len(batch))]
    expected = []
    for weight, one in zip(weight_of, batch, strict=True):  # each alone, by plain means
        logits_TV = model.logits(model(torch.tensor([one.prompt + one.tokens])))[0]
        logprobs_N = logits_TV[len(one.prompt) - 1 : -1].log_softmax(-1)[range(len(one.tokens)), one.tokens]
        (weight * logprobs_N.sum()).backward()
        expected.append(logprobs_N.detach())
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    for part in micro_batches(batch, budget):
        logprobs_N = completion_logprobs(model, part, torch.float32, recompute=recompute)
        (logprobs_N * torch.tensor(weight_of)[part.owner_N]).sum().backward()
        for i in part.order:
            torch.testing.assert_close(logprobs_N[part.owner_N == i], expected[i], atol=1e-5, rtol=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=1e-4, rtol=1e-4)


def test_a_prompt_is_computed_once_and_a_group_divided_only_where_it_must_be() -> None:
    batch = grouped([(40, [4] * 8), (1, [12] * 8), (30, [6])])
    assert [len(p.order) for p in micro_batches(batch, 1000)] == [17]
    assert passes(micro_batches(batch, 1000))[0] == (40 + 8 * 3) + (1 + 8 * 11) + (30 + 5)
    # The groups take 64, 89 and 35 tokens.
    assert [p.tokens_BT.numel() for p in micro_batches(batch, 90)] == [64, 35, 89]
    assert [p.tokens_BT.numel() for p in micro_batches(batch, 100)] == [99, 89]
    # 46 = a prompt of 40 and two completions; 45 = 1 + 4 x 11.
    assert [p.tokens_BT.numel() for p in micro_batches(batch, 47)] == [46, 46, 46, 46, 35, 45, 45]
    assert [p.tokens_BT.numel() for p in micro_batches(batch, 1)] == [43] * 8 + [35] + [12] * 8


def test_draw_goes_through_everything_once_a_pass() -> None:
    order = [i for step in range(1, 8) for i in draw(10, 4, step, seed=5)]
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    assert draw(10, 4, 3, seed=5) == order[8:12]
    assert len(draw(3, 8, 1, seed=0)) == 8


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_kept_numbers_are_what_autograd_keeps(recompute: bool, biased: bool) -> None:
    arch = Arch(64, 32, 96, 3, 4, 2, 8, 64, attention_bias=biased, mlp_bias=biased)
    model, tokens_BT = build(arch), torch.zeros(1, 50, dtype=torch.long)
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        if saved.data_ptr() not in weights:
            kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        model(tokens_BT, recompute=recompute)
    found = sum(storage.nbytes() for storage in kept.values()) / 4 / tokens_BT.numel()
    per_layer, _ = kept_numbers(arch, recompute)
    rotation = 0 if recompute or functions() else 2 * arch.head_dim  # C keeps it elsewhere
    expected = 3 * per_layer + arch.hidden_size + rotation  # the last norm
    assert expected <= found <= 1.05 * expected  # besides: a few numbers a token


def test_auto_micro_tokens(tiny_arch: Arch) -> None:
    cpu = torch.device("cpu")
    assert auto_micro_tokens(tiny_arch, cpu) == 8192
    smollm = Arch(49152, 576, 1536, 30, 9, 3, 64, 8192)
    assert 1500 <= auto_micro_tokens(smollm, cpu) <= 2500
    assert auto_micro_tokens(smollm, cpu, recompute=True) == 8192
    assert auto_micro_tokens(smollm, cpu, dtype=torch.bfloat16) > 1.2 * auto_micro_tokens(smollm, cpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pass_without_gradients_gives_the_same_numbers(dtype: torch.dtype) -> None:
    """So a policy is at no distance from a reference of the same weights."""
    arch = Arch(64, 64, 96, 2, 2, 1, 32, 64, tied=True)
    model = build(arch, seed=0)
    for part in micro_batches(made([(9, 12), (30, 9), (9, 5)]), 200):
        with_gradients = completion_logprobs(model, part, dtype)
        with torch.no_grad():
            without = completion_logprobs(model, part, dtype)
        assert torch.allclose(without, with_gradients.detach(), rtol=0, atol=2e-6 if dtype == torch.float32 else 0)
