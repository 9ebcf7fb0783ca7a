"""The engine's form of a model against the model itself: the same numbers up to rounding, whichever products it uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.model import decoding
from trilaw.model.attention import attend_within
from trilaw.model.decoding import DecodingLM, Packed, packs, prepare, supported
from trilaw.model.llama import CausalLM
from trilaw.model.native import build as native
from trilaw.model.native import library
from trilaw.model.registry import build, empty

VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "one key-value head": {"kv_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "odd sizes": {"hidden_size": 35, "intermediate_size": 51},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
}


class Within:
    """A cache that holds nothing: every token sees those before it in this pass."""

    def attend(self, layer: int, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor) -> Tensor:
        return attend_within(q_BTHE, k_BTKE, v_BTKE)


def logits(model: DecodingLM, tokens_1T: Tensor) -> Tensor:
    with torch.inference_mode():
        hidden_1TD = model(tokens_1T, positions_BT=torch.arange(tokens_1T.shape[1])[None], cache=Within())
        return model.logits(hidden_1TD[0])


def randomised(arch: Arch) -> CausalLM:
    """All weights random, norms and biases too."""
    model, generator = build(arch, seed=3).eval(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.empty(weight.shape).normal_(0.0, 0.1, generator=generator))
    return model


def lowered(model: CausalLM) -> CausalLM:
    """With weights that bfloat16 holds, in float32."""
    copy = empty(model.arch)
    copy.load_state_dict({name: weight.bfloat16().float() for name, weight in model.state_dict().items()})
    return copy.eval()


@pytest.fixture
def tokens_1T() -> Tensor:
    return torch.randint(2, 64, (1, 21), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_float32_it_is_the_model(tiny_arch: Arch, tokens_1T: Tensor, variant: str) -> None:
    model = randomised(replace(tiny_arch, head_dim=16, **VARIANTS[variant]))
    with torch.inference_mode():
        expected = model.logits(model(tokens_1T))[0]
    assert (logits(prepare(model, torch.float32), tokens_1T) - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_in_bfloat16_it_is_near(
    tiny_arch: Arch, tokens_1T: Tensor, variant: str, halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not halves:
        monkeypatch.setattr(library, "multiplies_halves", lambda library: False)
    model = lowered(randomised(replace(tiny_arch, head_dim=16, **VARIANTS[variant])))
    with torch.inference_mode():
        expected = model.logits(model(tokens_1T))[0]
    found = logits(prepare(model, torch.bfloat16), tokens_1T)
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()


def test_logits_are_not_rounded(tiny_arch: Arch, tokens_1T: Tensor) -> None:
    if not library.multiplies_halves(library.functions()):
        pytest.skip(native.why_not() or "the library has no bfloat16 products")
    found = logits(prepare(randomised(replace(tiny_arch, head_dim=16)), torch.bfloat16), tokens_1T)
    assert found.dtype == torch.float32
    assert not found.equal(found.bfloat16().float())


def test_larger_float32_weights_are_shared(tiny_arch: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(tiny_arch)
    copied = prepare(model, torch.float32)
    monkeypatch.setattr(decoding, "SMALL", 0)
    shared = prepare(model, torch.float32)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
    x = torch.ones(1, 4 * 8)
    assert bool((shared.layers[0].out(x) == 0).all())
    assert [len(part.layers) for part in (copied, shared)] == [2, 2]
    assert isinstance(shared.layers[0].qkv, decoding.Apart)
    assert isinstance(copied.layers[0].qkv, decoding.Gathered)


def test_packed_products_serve_every_number_of_rows() -> None:
    if not packs():
        pytest.skip("this build of PyTorch packs no bfloat16 weights")
    generator = torch.Generator().manual_seed(1)
    weight_OI, bias_O = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((48, 40), (48,)))
    product = Packed(weight_OI, bias_O)
    for rows in (1, 2, 17, 200):
        x_NI = torch.randn(rows, 40, generator=generator).bfloat16()
        expected = x_NI.double() @ weight_OI.double().T + bias_O.double()
        torch.testing.assert_close(product(x_NI).double(), expected, atol=0.1, rtol=0.01)


def test_where_it_is_used(tiny_arch: Arch, monkeypatch: pytest.MonkeyPatch) -> None:
    arch, cpu = replace(tiny_arch, head_dim=16), torch.device("cpu")
    assert supported(arch, cpu, torch.float32) == (native.library() is not None)
    assert not supported(tiny_arch, cpu, torch.float32)  # heads of 8
    assert not supported(arch, cpu, torch.float64)
    assert not supported(arch, torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(library, "functions", lambda: None)
    assert not supported(arch, cpu, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_source_that_is_used_up_lets_its_weights_go(tiny_arch: Arch, dtype: torch.dtype, tied: bool) -> None:
    arch = replace(tiny_arch, hidden_size=64, head_dim=16, tied=tied)
    if not supported(arch, torch.device("cpu"), dtype):
        pytest.skip(native.why_not() or "not supported here")
    tokens_1T = torch.randint(2, 64, (1, 21), generator=torch.Generator().manual_seed(0))
    source = randomised(arch).to(dtype)
    expected = logits(prepare(source, dtype), tokens_1T)
    found = logits(prepare(source, dtype, consume=True), tokens_1T)
    assert torch.equal(found, expected)
    assert source.model.embed_tokens.weight.numel() == 0
    assert not any(weight.numel() for weight in source.model.layers.parameters())
