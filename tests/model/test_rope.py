"""Rotary embedding against transformers' tables, against complex multiplication, and its own laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model.rope import Rotary, rotate

ARCH = Arch(
    vocab_size=64, hidden_size=32, intermediate_size=48, layers=1, heads=2, kv_heads=2, head_dim=16, max_positions=128
)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SCALINGS: list[dict[str, Any] | None] = [
    None,
    {"rope_type": "linear", "factor": 2.5},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 3.0},
    LLAMA3 | {"original_max_position_embeddings": 64},
    LLAMA3,
    YARN,
    YARN | {"attention_factor": 0.7},
    YARN | {"mscale": 1.0, "mscale_all_dim": 0.8},
    YARN | {"beta_fast": 16, "beta_slow": 2, "truncate": False},
]


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("length", [20, 300])  # inside and beyond the trained context
def test_tables_equal_those_of_transformers(scaling: dict[str, Any] | None, length: int) -> None:
    arch = replace(ARCH, rope_scaling=scaling, rope_theta=5000.0)
    positions_BT = torch.arange(length)[None]
    cos_BT1E, sin_BT1E = Rotary(arch)(positions_BT, torch.float32)
    theirs = LlamaRotaryEmbedding(LlamaConfig(**arch.to_config()))
    cos_BTE, sin_BTE = theirs(torch.zeros(1, dtype=torch.float32), positions_BT)
    torch.testing.assert_close(cos_BT1E[:, :, 0], cos_BTE, atol=2e-5, rtol=0)
    signs_E = torch.tensor([-1.0] * 8 + [1.0] * 8)
    torch.testing.assert_close(sin_BT1E[:, :, 0] * signs_E, sin_BTE, atol=2e-5, rtol=0)


def test_rotation_is_complex_multiplication() -> None:
    x_BTHE = torch.randn(2, 5, 3, 16, generator=torch.Generator().manual_seed(0))
    positions_BT = torch.tensor([[0, 1, 2, 3, 4], [7, 3, 100, 0, 1]])
    y_BTHE = rotate(x_BTHE, *Rotary(ARCH)(positions_BT, torch.float32))
    frequencies_F = 10_000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    angles_BTF = positions_BT[..., None].double() * frequencies_F
    turn_BT1F = torch.polar(torch.ones_like(angles_BTF), angles_BTF)[:, :, None]
    z_BTHF = torch.complex(x_BTHE[..., :8].double(), x_BTHE[..., 8:].double()) * turn_BT1F
    torch.testing.assert_close(y_BTHE.double(), torch.cat((z_BTHF.real, z_BTHF.imag), -1), atol=2e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_only_the_distance_matters(a: int, b: int, shift: int) -> None:
    x_BTHE = torch.randn(1, 2, 1, 16, generator=torch.Generator().manual_seed(1))
    rotary = Rotary(ARCH)

    def product(first: int, second: int) -> torch.Tensor:
        y_BTHE = rotate(x_BTHE, *rotary(torch.tensor([[first, second]]), torch.float32))
        return (y_BTHE[0, 0] * y_BTHE[0, 1]).sum()

    torch.testing.assert_close(product(a, b), product(a + shift, b + shift), atol=2e-3, rtol=0)


def test_dynamic_scaling_of_a_row_does_not_depend_on_its_neighbours() -> None:
    rotary = Rotary(replace(ARCH, rope_scaling={"rope_type": "dynamic", "factor": 2.0}))
    short_BT, long_BT = torch.arange(10)[None], torch.arange(190, 200)[None]
    both, _ = rotary(torch.cat((short_BT, long_BT)), torch.float32)
    torch.testing.assert_close(both[:1], rotary(short_BT, torch.float32)[0], atol=0, rtol=0)
    torch.testing.assert_close(both[1:], rotary(long_BT, torch.float32)[0], atol=0, rtol=0)
    plain, _ = Rotary(ARCH)(short_BT, torch.float32)
    torch.testing.assert_close(both[:1], plain)


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"rope_type": "yarm", "factor": 2.0}, "did you mean 'yarn'"),
        ({"rope_type": "linear"}, "'factor' as a positive number"),
        ({"rope_type": "linear", "factor": "2"}, "'factor' as a positive number"),
        ({"rope_type": "llama3", "factor": 2.0}, "low_freq_factor"),
        ({"rope_type": "dynamic", "factor": -1}, "'factor'"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_bad_scaling_is_a_sentence(scaling: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Rotary(replace(ARCH, rope_scaling=scaling))
