"""The Llama implementation against transformers, its cache against the plain pass, and the arithmetic of Arch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model.llama import CausalLM
from trilaw.model.native.library import functions
from trilaw.model.registry import build

VARIANTS: dict[str, dict[str, Any]] = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "one key-value head": {"kv_heads": 1},
    "no groups": {"kv_heads": 4},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 16},
    "linear": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "dynamic": {"max_positions": 16, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    "llama3": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}


class ListCache:
    """The simplest cache there is: all keys and values so far, concatenated."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def attend(self, layer: int, q_BTHE: torch.Tensor, k_BTKE: torch.Tensor, v_BTKE: torch.Tensor) -> torch.Tensor:
        if layer in self.kept:
            k_BSKE, v_BSKE = self.kept[layer]
            k_BTKE, v_BTKE = torch.cat((k_BSKE, k_BTKE), 1), torch.cat((v_BSKE, v_BTKE), 1)
        self.kept[layer] = (k_BTKE, v_BTKE)
        T, S = q_BTHE.shape[1], k_BTKE.shape[1]
        mask_TS = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BTKE, v_BTKE))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TS, enable_gqa=True).transpose(1, 2)


def randomised(arch: Arch, seed: int = 3) -> CausalLM:
    """Every weight random, also those that start at 0 or 1, so that no part can hide."""
    model = build(arch, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1 or weight is model.head_weight:
                weight.copy_(torch.empty(weight.shape).normal_(0.5, 0.5, generator=generator))
    return model.eval()


def theirs(model: CausalLM) -> Any:
    oracle: Any = LlamaForCausalLM(LlamaConfig(**model.arch.to_config()))
    state = dict(model.state_dict())
    state.setdefault("lm_head.weight", model.head_weight)
    oracle.load_state_dict(state)
    return oracle.to(model.dtype).eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_equal_those_of_transformers(tiny_arch: Arch, variant: str) -> None:
    model = randomised(replace(tiny_arch, **VARIANTS[variant]))
    oracle = theirs(model)
    tokens_BT = tokens(2, 40)
    logits_BTV = model.logits(model(tokens_BT))
    expected_BTV = oracle(tokens_BT).logits
    torch.testing.assert_close(logits_BTV, expected_BTV, atol=1e-4, rtol=1e-4)
    for outcome_BTV in (logits_BTV, expected_BTV):
        torch.autograd.backward(F.cross_entropy(outcome_BTV[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()))
    gradients = {name: weight.grad for name, weight in oracle.named_parameters()}
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradients[name], atol=2e-4, rtol=1e-3)


def test_bfloat16_weights_give_bfloat16_activations_close_to_transformers(tiny_arch: Arch) -> None:
    model = randomised(tiny_arch).to(torch.bfloat16)
    tokens_BT = tokens(2, 30)
    with torch.inference_mode():
        hidden_BTD = model(tokens_BT)
        logits_BTV, expected_BTV = model.logits(hidden_BTD), theirs(model)(tokens_BT).logits
    assert hidden_BTD.dtype == logits_BTV.dtype == torch.bfloat16
    error = (logits_BTV.float() - expected_BTV.float()).norm() / expected_BTV.float().norm()
    assert error < 0.02


def test_autocast_trains_in_bfloat16_with_float32_weights(tiny_arch: Arch) -> None:
    model = randomised(tiny_arch)
    tokens_BT = tokens(2, 30)
    exact_BTD = model(tokens_BT)
    with torch.autocast("cpu", torch.bfloat16):
        hidden_BTD = model(tokens_BT)
        loss = F.cross_entropy(model.logits(hidden_BTD).float().flatten(0, 1), tokens_BT.flatten())
    torch.autograd.backward(loss)
    assert (hidden_BTD - exact_BTD).norm() / exact_BTD.norm() < 0.03
    for weight in model.parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert weight.grad.isfinite().all()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.sampled_from([1, 2, 4]))
def test_any_cutting_into_cached_steps_gives_the_plain_pass(steps: list[int], kv_heads: int) -> None:
    arch = Arch(64, 32, 48, layers=2, heads=4, kv_heads=kv_heads, head_dim=8, max_positions=64)
    model, length = randomised(arch), sum(steps)
    tokens_BT = tokens(2, length, seed=length)
    cache, parts, start = ListCache(), [], 0
    with torch.inference_mode():
        for step in steps:
            end = start + step
            positions_BT = torch.arange(start, end)[None]
            parts.append(model(tokens_BT[:, start:end], positions_BT=positions_BT, cache=cache))
            start = end
        torch.testing.assert_close(torch.cat(parts, 1), model(tokens_BT), atol=1e-5, rtol=1e-5)


def test_padding_on_either_side_changes_nothing(tiny_model: CausalLM) -> None:
    tokens_BT = tokens(1, 12)
    with torch.inference_mode():
        plain_BTD = tiny_model(tokens_BT)
        right_BTD = tiny_model(F.pad(tokens_BT, (0, 5)))[:, :12]
        mask_BTS = torch.ones(17, 17, dtype=torch.bool).tril()[None].clone()
        mask_BTS[:, :, :5] = False
        positions_BT = (torch.arange(17) - 5).clamp(min=0)[None]
        left_BTD = tiny_model(F.pad(tokens_BT, (5, 0)), positions_BT=positions_BT, mask_BTS=mask_BTS)
    torch.testing.assert_close(right_BTD, plain_BTD, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left_BTD[:, 5:], plain_BTD, atol=1e-5, rtol=1e-5)
    assert left_BTD.isfinite().all()  # rows that may attend to nothing stay finite


def test_packed_documents_do_not_see_each_other(tiny_model: CausalLM) -> None:
    first_BT, second_BT = tokens(1, 7, seed=1), tokens(1, 9, seed=2)
    document_T = torch.tensor([0] * 7 + [1] * 9)
    mask_B1TS = (document_T[:, None] == document_T) & torch.ones(16, 16, dtype=torch.bool).tril()
    positions_BT = torch.cat((torch.arange(7), torch.arange(9)))[None]
    with torch.inference_mode():
        packed_BTD = tiny_model(
            torch.cat((first_BT, second_BT), 1), positions_BT=positions_BT, mask_BTS=mask_B1TS[None, None]
        )
        apart_BTD = torch.cat((tiny_model(first_BT), tiny_model(second_BT)), 1)
    torch.testing.assert_close(packed_BTD, apart_BTD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lower", [False, True])
def test_computing_blocks_again_gives_the_same_bits_and_keeps_their_inputs_only(tiny_arch: Arch, lower: bool) -> None:
    model, found = randomised(replace(tiny_arch, layers=3)), []
    for recompute in (False, True):
        model.zero_grad()
        shapes = []

        def pack(saved: torch.Tensor, shapes: list[torch.Size] = shapes) -> torch.Tensor:
            shapes.append(saved.shape)
            return saved

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved),
            torch.autocast("cpu", torch.bfloat16, enabled=lower),
        ):
            hidden_BTD = model(tokens(2, 30), recompute=recompute)
        torch.autograd.backward(hidden_BTD.float().square().mean())
        found.append((hidden_BTD.detach(), [w.grad for w in model.model.parameters()], shapes))
    (plain_BTD, plain, many), (hidden_BTD, again, few) = found
    assert hidden_BTD.equal(plain_BTD)
    assert all(a is not None and b is not None and a.equal(b) for a, b in zip(again, plain, strict=True))
    last = 1 if functions() else 2  # the last norm's input, and its scale where C does not compute it again
    assert sum(len(shape) > 2 for shape in few) == 3 + last  # the blocks' inputs
    assert len(many) > 20


def test_nothing_is_computed_again_without_gradients(tiny_model: CausalLM) -> None:
    with torch.inference_mode():
        assert tiny_model(tokens(1, 9), recompute=True).equal(tiny_model(tokens(1, 9)))


def test_a_cache_takes_no_mask(tiny_model: CausalLM) -> None:
    with pytest.raises(ValueError, match="mask"):
        tiny_model(tokens(1, 3), mask_BTS=torch.ones(1, 3, 3, dtype=torch.bool), cache=ListCache())


@pytest.mark.parametrize("variant", VARIANTS)
def test_arch_counts_parameters_and_flops_as_torch_does(tiny_arch: Arch, variant: str) -> None:
    arch = replace(tiny_arch, **VARIANTS[variant])
    model = randomised(arch)
    assert arch.parameters() == sum(weight.numel() for weight in model.parameters())
    rows, length, heads = 3, 10, 4
    # The counter knows no masks: it counts the full square of T queries and T keys, where Arch is told how many pairs are
    # attended. So the formula is asked for T * T pairs a row. The math kernel shows its two products to the counter.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(model(tokens(rows, length))[:, -heads:])
    assert counter.get_total_flops() == arch.forward_flops(rows * length, rows * length**2, logits=rows * heads)


def test_init_is_a_function_of_the_seed_and_leaves_the_global_generator_alone(tiny_arch: Arch) -> None:
    before = torch.get_rng_state()
    first, second, other = build(tiny_arch, seed=1), build(tiny_arch, seed=1), build(tiny_arch, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    first.init_weights(2)
    assert torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_init_has_the_documented_scale() -> None:
    arch = Arch(512, 256, 384, layers=1, heads=4, kv_heads=2, head_dim=64, max_positions=64, tied=False)
    model = build(arch)
    tokens_BT = torch.randint(0, 512, (2, 16), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model.logits(model(tokens_BT)).flatten(0, 1), tokens_BT.flatten())
    assert loss.item() == pytest.approx(math.log(512), abs=1e-5)  # a head of zeros: the uniform distribution
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(1.0, rel=0.02)
    state = model.state_dict()
    assert state["model.layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(384**-0.5, rel=0.02)
    tied = build(replace(arch, tied=True))
    assert tied.head_weight is tied.model.embed_tokens.weight
    assert tied.logits(tied(tokens_BT)).std().item() == pytest.approx(1.0, rel=0.1)


def test_an_unknown_family_is_a_sentence(tiny_arch: Arch) -> None:
    with pytest.raises(ModelError, match=r"'llame' is not supported \(did you mean 'llama'"):
        build(replace(tiny_arch, family="llame"))
