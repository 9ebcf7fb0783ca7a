"""Rotations: orthogonal, of any size, and they spread outliers."""

from __future__ import annotations

import pytest
import torch

from trilaw.model.rotation import Rotation


@pytest.mark.parametrize("within_blocks", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 24, 30, 64, 96, 576, 1536])
def test_it_is_orthogonal(size: int, within_blocks: bool) -> None:
    matrix = Rotation(size, within_blocks=within_blocks)(torch.eye(size))
    assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=1e-5)


def test_rows_rotates_the_output_of_a_map() -> None:
    rotation, weight_DI, x_NI = Rotation(24), torch.randn(24, 5), torch.randn(7, 5)
    assert torch.allclose(x_NI @ rotation.rows(weight_DI).T, rotation(x_NI @ weight_DI.T), atol=1e-5)


def test_one_large_number_is_spread_over_all() -> None:
    x = torch.zeros(576)
    x[17] = 1.0
    assert Rotation(576)(x).abs().max() < 0.2
    inner = Rotation(576, within_blocks=True)(x)
    assert inner.abs().max() == pytest.approx(1 / 8)
    assert int(inner.count_nonzero()) == 64


def test_it_is_the_same_every_time() -> None:
    assert torch.equal(Rotation(48)(torch.eye(48)), Rotation(48)(torch.eye(48)))
