from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.training.advantages import advantages, spread

R = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])


def test_hand_numbers() -> None:
    torch.testing.assert_close(
        advantages(R), torch.tensor([[0.5, -0.5, -0.5, 0.5], [0.0] * 4, [-0.25, -0.25, -0.25, 0.75]])
    )
    torch.testing.assert_close(advantages(R, baseline="leave_one_out")[2], torch.tensor([-1 / 3, -1 / 3, -1 / 3, 1.0]))
    torch.testing.assert_close(advantages(R, scale="group")[0], torch.tensor([1.0, -1.0, -1.0, 1.0]))
    torch.testing.assert_close(advantages(R, scale="group")[1], torch.zeros(4))
    # 7 of 12 rewards are 1: variance 7/12 * 5/12.
    torch.testing.assert_close(advantages(R, scale="batch")[0, 0], torch.tensor(0.5 / (35 / 144) ** 0.5))
    assert advantages(torch.ones(2, 3), scale="batch").equal(torch.zeros(2, 3))


def test_spread() -> None:
    assert spread(R).tolist() == [True, False, True]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=4))
def test_group_mean_is_zero_and_flat_groups_are_exactly_zero(rows: list[list[float]]) -> None:
    rewards = torch.tensor(rows)
    centred = advantages(rewards)
    assert float(centred.mean(dim=1).abs().max()) < 1e-6
    assert bool((centred[~spread(rewards)] == 0).all())
    assert bool((advantages(torch.full((1, 7), 0.1), scale="group") == 0).all())
