from __future__ import annotations

import pytest

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError

SMOL = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "rope_theta": 100000, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
}  # fmt: skip


def test_the_published_parameter_count():
    assert Arch.from_config(SMOL).parameters() == 134_515_008  # SmolLM2-135M
    untied = Arch.from_config(SMOL | {"tie_word_embeddings": False})
    assert untied.parameters() == 134_515_008 + 49152 * 576
    biased = Arch.from_config(SMOL | {"attention_bias": True, "mlp_bias": True})
    assert biased.parameters() == 134_515_008 + 30 * (576 + 2 * 192 + 576 + 2 * 1536 + 576)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"eos_token_id": [2, 3]},
        {"eos_token_id": None, "bos_token_id": None},
        {"num_key_value_heads": None},
        {"head_dim": 32},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}},
        {"a_key_of_another_tool": {"kept": 1}},
    ],
)
def test_round_trip(change):
    arch = Arch.from_config(SMOL | change)
    config = arch.to_config()
    again = Arch.from_config(config)
    assert again.to_config() == config
    for field in Arch.__dataclass_fields__:
        if field != "extra":
            assert getattr(again, field) == getattr(arch, field), field
    assert config.get("a_key_of_another_tool") == change.get("a_key_of_another_tool")


def test_both_layouts_of_rope_mean_the_same():
    old = Arch.from_config(SMOL | {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}})
    new = Arch.from_config(SMOL | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}})
    assert (
        (old.rope_theta, old.rope_scaling)
        == (new.rope_theta, new.rope_scaling)
        == (5e5, {"rope_type": "linear", "factor": 2.0})
    )
    assert Arch.from_config({k: v for k, v in SMOL.items() if k != "rope_theta"}).rope_theta == 10_000.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": None}, "not supported"),
        ({"vocab_size": None}, "'vocab_size' must be a positive whole number"),
        ({"hidden_size": -1}, "'hidden_size'"),
        ({"num_hidden_layers": "30"}, "'num_hidden_layers'"),
        ({"num_hidden_layers": True}, "'num_hidden_layers'"),
        ({"num_key_value_heads": 2}, "cannot share"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"head_dim": 63}, "even head size"),
        ({"num_key_value_heads": "3"}, "'num_key_value_heads'"),
        ({"head_dim": 1.5}, "'head_dim'"),
        ({"num_key_value_heads": -3}, "'num_key_value_heads'"),
        ({"max_position_embeddings": None}, "'max_position_embeddings'"),
        ({"rope_theta": "high"}, "'rope_theta'"),
        ({"eos_token_id": "2"}, "'eos_token_id'"),
        ({"bos_token_id": [1]}, "'bos_token_id'"),
        ({"rope_scaling": "linear"}, "'rope_scaling'"),
        ({"hidden_size": 577}, "divide"),
        ({"rms_norm_eps": "small"}, "'rms_norm_eps'"),
    ],
)
def test_bad_configs_are_sentences(change, words):
    with pytest.raises(ModelError, match=words) as caught:
        Arch.from_config(SMOL | change, "m/config.json")
    assert str(caught.value).startswith("m/config.json: ")


def test_flops_count_matrix_products():
    arch = Arch(
        vocab_size=10, hidden_size=4, intermediate_size=6, layers=2, heads=2, kv_heads=1, head_dim=2, max_positions=8
    )
    tokens, pairs = 3, 6
    products = 2 * tokens * (4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 6)  # q, k and v, output, three of the MLP
    attention = 2 * 2 * pairs * 4  # scores and values
    assert arch.forward_flops(tokens, pairs) == 2 * (products + attention) + 2 * tokens * 4 * 10
    assert arch.forward_flops(tokens, pairs, logits=1) == 2 * (products + attention) + 2 * 4 * 10
    assert arch.train_flops(tokens, pairs) == 3 * arch.forward_flops(tokens, pairs)
    assert arch.kv_bytes_per_token() == 2 * 2 * 1 * 2 * 2
