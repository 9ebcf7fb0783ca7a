"""The 8-bit copy: the rotations change nothing, the rounding little, and integer sums neither overflow nor see other rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model import int8
from trilaw.model.attention import attend_within
from trilaw.model.decoding import DecodingLM, Map
from trilaw.model.int8 import Int8Linear, prepare, unsupported
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build
from trilaw.model.rotation import Rotation

if reason := unsupported(torch.device("cpu")):
    pytest.skip(reason, allow_module_level=True)


VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "one key-value head": {"kv_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "odd sizes": {"hidden_size": 36, "intermediate_size": 50, "head_dim": 6},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
}


class Within:
    """A cache that holds nothing: every token sees those before it in this pass."""

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        return attend_within(q_BTHE, k_BTKE, v_BTKE)


def logits(model: DecodingLM, tokens_BT: Tensor) -> Tensor:
    positions_1T = torch.arange(tokens_BT.shape[1])[None]
    return torch.stack(
        [model.logits(model(row[None], positions_BT=positions_1T, cache=Within())[0]) for row in tokens_BT]
    )


def float_linear(weight_OI: Tensor, bias_O: Tensor | None = None, *, logits: bool = False, rotate: bool = False) -> Map:
    """int8.linear without the rounding."""
    inner = Rotation(weight_OI.shape[1], within_blocks=True)
    return lambda x: F.linear(inner(x) if rotate else x, weight_OI, bias_O)


def random_model(arch: Arch) -> CausalLM:
    """All weights random, norms and biases too."""
    model = build(arch, seed=3).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0.0, 0.3, generator=generator))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_rotations_and_folded_norms_change_nothing(
    tiny_arch: Arch, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 160, **VARIANTS[variant]}
    model = random_model(replace(tiny_arch, **settings))
    tokens_BT = torch.randint(2, 64, (3, 21), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(int8, "linear", float_linear)
    copy = prepare(model)
    copy.dtype = torch.float32
    with torch.inference_mode():
        expected, found = model.logits(model(tokens_BT)), logits(copy, tokens_BT)
    assert torch.allclose(expected, found, atol=2e-4 * float(expected.abs().max()))


def test_a_map_is_within_its_rounding() -> None:
    generator = torch.Generator().manual_seed(1)
    weight_OI, bias_O = torch.randn(40, 64, generator=generator), torch.randn(40, generator=generator)
    x_NI = torch.randn(9, 64, generator=generator) * torch.logspace(-3, 3, 9)[:, None]
    linear = Int8Linear(weight_OI, bias_O)
    levels = linear.zero - 1
    # Half a step of each factor, times the other one; a step more at the edge of the range.
    x_error = (1.0 / levels) * x_NI.abs().amax(1, keepdim=True) * weight_OI.abs().sum(1)
    weight_error = (0.5 / 127) * weight_OI.abs().amax(1) * x_NI.abs().sum(1, keepdim=True)
    error = (linear(x_NI) - F.linear(x_NI, weight_OI, bias_O)).abs()
    assert bool((error <= (x_error + weight_error) * 1.1 + 1e-6).all())
    assert float((error / x_NI.abs().amax(1, keepdim=True)).max()) > 1e-4  # it does round


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sums_do_not_overflow(sign: float) -> None:
    # Everything at its largest: pairs of 8-bit products would not fit into 16 bits.
    linear, x = Int8Linear(torch.ones(8, 256)), torch.full((4, 256), sign)
    assert torch.allclose(linear(x), F.linear(x, torch.ones(8, 256)), rtol=0.02)


def test_a_row_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(2)
    linear, x_NI = (
        Int8Linear(torch.randn(96, 64, generator=generator)),
        10 * torch.randn(33, 64, generator=generator) ** 3,
    )
    together = linear(x_NI)
    assert all(torch.equal(together[i : i + 1], linear(x_NI[i : i + 1])) for i in range(33))


def test_rows_of_zeros_and_broken_rows() -> None:
    linear = Int8Linear(torch.randn(8, 16))
    x_NI = torch.zeros(3, 16)
    x_NI[1, 4] = float("nan")
    y_NO = linear(x_NI)
    assert bool((y_NO[[0, 2]] == 0).all())
    assert bool(y_NO[1].isnan().all())


def test_the_copy_predicts_nearly_the_same(tiny_arch: Arch) -> None:
    model = build(replace(tiny_arch, tied=True, hidden_size=128, intermediate_size=256, head_dim=32), seed=1).eval()
    tokens_BT = torch.randint(2, 64, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = torch.log_softmax(model.logits(model(tokens_BT)), -1)
        found = torch.log_softmax(logits(prepare(model), tokens_BT), -1)
    divergence = float((expected.exp() * (expected - found)).sum(-1).mean())
    assert 0 < divergence < 0.05


def test_a_device_without_the_kernel_is_refused(tiny_model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CPUs only" in (unsupported(torch.device("cuda")) or "")
    monkeypatch.setattr(int8, "unsupported", lambda device: "no kernel here")
    with pytest.raises(ModelError, match="no kernel here"):
        prepare(tiny_model)
