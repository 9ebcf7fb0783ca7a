"""Attention over a flat row of sequences against one dense mask."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.model.attention import attend_within
from trilaw.training.sequences import Sequences

TREES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.sampled_from([0, 1, 3, 8, 16, 40]), min_size=1, max_size=4)),
    min_size=1,
    max_size=3,
)


def laid_out(trees: list[tuple[int, list[int]]]) -> tuple[list[list[int]], int, torch.Tensor]:
    """Places of stems with their branches, the row's length, and the mask that says the same."""
    places, sees, end = [], [], 0
    for stem_size, branches in trees:
        stem, end = [*range(end, end + stem_size)], end + stem_size
        sees += [stem[: i + 1] for i in range(stem_size)]
        for size in branches:
            places.append([*stem, *range(end, end + size)])
            sees += [places[-1][: stem_size + i + 1] for i in range(size)]
            end += size
    mask_TT = torch.zeros(end, end, dtype=torch.bool)
    for i, seen in enumerate(sees):
        mask_TT[i, seen] = True
    return places, end, mask_TT


def random(heads: int, tokens: int, seed: int) -> torch.Tensor:
    return torch.randn(1, tokens, heads, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_outputs_and_gradients_are_those_of_one_mask(trees: list[tuple[int, list[int]]]) -> None:
    places, tokens, mask_TT = laid_out(trees)
    given_ = random(4, tokens, 0), random(2, tokens, 1), random(2, tokens, 2)
    got = Sequences(places, tokens).attend(0, *given_)
    expected = attend_within(*given_, mask_TT[None, None])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    slope = random(4, tokens, 3).detach()
    for a, b in zip(*(torch.autograd.grad(y, given_, slope) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_sequences_of_one_length_in_order_are_not_gathered() -> None:
    given_ = random(4, 12, 0), random(2, 12, 1), random(2, 12, 2)
    rows = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    got = Sequences(rows, 12).attend(0, *given_)
    gathered = Sequences([rows[1], rows[0], rows[2]], 12).attend(0, *given_)
    torch.testing.assert_close(got, gathered)

    def gathers(y: torch.Tensor) -> bool:
        queue, seen = [y.grad_fn], []
        while queue:
            node = queue.pop()
            seen.append(type(node).__name__)
            queue += [after for after, _ in node.next_functions if after is not None]  # type: ignore[union-attr]
        return any(name.startswith("_Gather") for name in seen)

    assert gathers(gathered)
    assert not gathers(got)
