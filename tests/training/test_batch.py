from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.model.llama import CausalLM
from trilaw.training.batch import Completion, auto_micro_tokens, draw, micro_batches, passes

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
        inputs = part.tokens_BT[part.select_BT].tolist()
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
    hidden_ND = tiny_model(together.tokens_BT)[together.select_BT]
    for i, one in enumerate(batch):
        alone = micro_batches([one], 1000)[0]
        torch.testing.assert_close(
            hidden_ND[together.owner_N == i], tiny_model(alone.tokens_BT)[alone.select_BT], atol=1e-5, rtol=1e-5
        )


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
