"""Numbers against models that transformers builds, a FLOP counter that watches them, and sums written out by hand."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, RequestError
from trilaw.core.numbers import Attention, FeedForward, Layer, Numbers, causal_pairs
from trilaw.core.numbers_config import FAMILIES

BASE: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": None,
}  # fmt: skip
HEADS = {"head_dim": 12}  # not hidden_size / heads
ROUTED = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
LATENT = {
    "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7,
    "num_key_value_heads": 4,
}  # fmt: skip
TAIL = {
    "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3, "moe_intermediate_size": 20,
    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
}  # fmt: skip
V3 = {**LATENT, **TAIL, "num_nextn_predict_layers": 0}
SLIDE = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]

# Each model type, and what varies in its files.
TINY: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "llama": ({}, [HEADS, {"attention_bias": True}, {"mlp_bias": True}, {"tie_word_embeddings": True}]),
    "mistral": ({"sliding_window": 8}, [HEADS, {"sliding_window": None}]),
    "mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, [HEADS, {"sliding_window": 8}]),
    "phi3": ({"sliding_window": 8}, [{"num_key_value_heads": None}]),
    "qwen2": (
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 2},
        [
            {"use_sliding_window": True},
            {"use_sliding_window": True, "layer_types": SLIDE},
            {"tie_word_embeddings": True},
        ],
    ),
    "qwen3": (
        HEADS,
        [{"attention_bias": True}, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}],
    ),
    "qwen2_moe": (
        ROUTED | {"shared_expert_intermediate_size": 24},
        [{"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 3]}, {"qkv_bias": False}],
    ),
    "qwen3_moe": (HEADS | ROUTED, [{"decoder_sparse_step": 3}, {"mlp_only_layers": [1]}, {"attention_bias": True}]),
    "gemma": (HEADS, [{"tie_word_embeddings": False}, {"attention_bias": True}]),
    "gemma2": (HEADS | {"sliding_window": 8}, [{"attention_bias": True}, {"layer_types": SLIDE}]),
    "gemma3_text": (HEADS | {"sliding_window": 8}, [{"sliding_window_pattern": 2}, {"layer_types": SLIDE}]),
    "olmo2": ({}, [{"num_key_value_heads": None}, {"attention_bias": True}]),
    "olmo3": ({"sliding_window": 8}, [{"layer_types": SLIDE}]),
    "smollm3": (
        {"no_rope_layer_interval": 4},
        [{"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": False}],
    ),
    "gpt_oss": (
        HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
        [{"attention_bias": False}, {"layer_types": SLIDE}],
    ),
    "deepseek_v2": (V3, [{"q_lora_rank": None}, {"attention_bias": True}, {"first_k_dense_replace": 0}]),
    "deepseek_v3": (V3, [{"q_lora_rank": None}, {"attention_bias": True}, {"first_k_dense_replace": 4}]),
    "glm4_moe": (HEADS | TAIL | {"num_nextn_predict_layers": 0}, [{"use_qk_norm": True}, {"attention_bias": True}]),
    "gpt2": (
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 24},
        [{"n_inner": 40}, {"tie_word_embeddings": False}],
    ),
}


def tiny(kind: str, **change: Any) -> dict[str, Any]:
    base = {"vocab_size": 96} if kind == "gpt2" else BASE
    return {"model_type": kind, **base, **TINY[kind][0], **change}


def built(config: dict[str, Any], device: str = "meta") -> Any:
    """The model that transformers makes of a config.json, on the meta device: shapes without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device(device):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")


@pytest.mark.parametrize("kind", sorted(TINY))
def test_parameters_and_windows_are_those_of_transformers(kind):
    for change in ({}, *TINY[kind][1]):
        config = tiny(kind, **change)
        model, numbers = built(config), Numbers.from_config(config)
        assert numbers.parameters() == sum(weight.numel() for weight in model.parameters()), change
        assert numbers.family == kind
        types = getattr(model.config, "layer_types", None)
        if types is None:
            window = getattr(model.config, "sliding_window", None)
            types = ["full_attention" if window is None else "sliding_attention"] * len(numbers.layers)
        mine = ["full_attention" if x.attention.window is None else "sliding_attention" for x in numbers.layers]
        assert mine == types, change
        assert {x.attention.window for x in numbers.layers} <= {None, getattr(model.config, "sliding_window", None)}


def test_every_family_has_a_model_to_be_held_against():
    assert set(TINY) | {"kimi_k2"} == set(FAMILIES)
    kimi = Numbers.from_config(tiny("deepseek_v3") | {"model_type": "kimi_k2"})
    assert kimi.parameters() == Numbers.from_config(tiny("deepseek_v3")).parameters()  # DeepSeek-V3's layout


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe"])
def test_multi_token_prediction_has_its_own_weights(kind):
    from transformers.modeling_layers import MtpModel

    config = tiny(kind, num_nextn_predict_layers=2)
    model, numbers = built(config), Numbers.from_config(config)
    own = {id(weight) for weight in model.parameters()}
    module = MtpModel(model, 2)
    extra = sum(weight.numel() for weight in module.parameters() if id(weight) not in own)
    assert len(numbers.mtp) == 2
    assert numbers.parameters(mtp=True) - numbers.parameters() == extra
    assert numbers.parameters() == Numbers.from_config(tiny(kind)).parameters()


@pytest.mark.parametrize("kind", sorted(TINY))
def test_flops_are_those_of_a_counter(kind):
    """A forward pass on the CPU under torch's counter; eager attention computes the whole square of pairs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    rows, length = 2, 5  # shorter than every window
    config = tiny(kind)
    model, numbers = built(config, "cpu").eval(), Numbers.from_config(config)
    model.config._experts_implementation = "eager"
    ids = torch.arange(rows * length).reshape(rows, length) % 90
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, use_cache=False)
    rotary = 0
    for name, flops in counter.get_flop_counts().items():
        if name.endswith("rotary_emb"):  # positions times frequencies are a product there, none of ours
            rotary += sum(flops.values())
    assert counter.get_total_flops() - rotary == numbers.forward_flops(rows * length, rows * length**2)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "mixtral", "gemma3_text", "olmo3", "gpt_oss"])
def test_cache_is_that_of_transformers(kind):
    """What the cache really holds after 20 tokens, and how much the 21st adds."""
    import torch
    from transformers import DynamicCache

    config = tiny(kind)
    model, numbers = built(config, "cpu").eval(), Numbers.from_config(config)

    def held(tokens: int) -> int:
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(torch.arange(tokens)[None], past_key_values=cache)
        # transformers drops the token that leaves the window at once; we count the window itself, 8 here
        rows = [min(tokens, x.attention.window or tokens) for x in numbers.layers]
        kept = [(layer.keys.shape[-2], layer.keys.numel() + layer.values.numel()) for layer in cache.layers]
        assert all(full - 1 <= length <= full for (length, _), full in zip(kept, rows))
        return sum(numel // length * full for (length, numel), full in zip(kept, rows))

    assert numbers.kv_bytes(20) == 2 * held(20)
    assert numbers.kv_bytes(20, 1) == held(20)
    assert numbers.kv_bytes(5) == 2 * held(5)
    assert numbers.kv_bytes_per_token() == 2 * (held(21) - held(20))


@given(st.integers(0, 40), st.integers(0, 40), st.none() | st.integers(1, 50))
def test_pairs_are_those_of_the_mask(tokens, cached, window):
    mask = [min(cached + i, window or cached + i) for i in range(1, tokens + 1)]
    assert causal_pairs(tokens, cached, window) == sum(mask)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from(["qwen3", "gemma3_text", "gpt_oss", "mistral"]))
def test_a_sequence_costs_the_sum_of_its_tokens(tokens, cached, kind):
    numbers = Numbers.from_config(tiny(kind))
    one_by_one = [numbers.decode_flops(cached + i) for i in range(tokens)]
    assert numbers.forward_flops(tokens, cached=cached) == sum(one_by_one)
    assert numbers.kv_bytes(tokens) <= numbers.kv_bytes(tokens + 1)
    assert numbers.flops_per_token(tokens, training=False) == pytest.approx(numbers.forward_flops(tokens) / tokens)
    assert numbers.flops_per_token(tokens, training=True) == pytest.approx(3 * numbers.forward_flops(tokens) / tokens)
    assert numbers.flops_per_token(tokens, training=True, causal=False) >= numbers.flops_per_token(
        tokens, training=True
    )


def test_pairs_of_several_sequences_bound_what_a_window_sees():
    numbers = Numbers.from_config(tiny("gemma3_text"))  # all four layers see 8 tokens
    inside, beyond = 2 * causal_pairs(8), 2 * causal_pairs(200)
    assert numbers.forward_flops(16, inside) == 2 * numbers.forward_flops(8)
    assert numbers.forward_flops(400, beyond) >= 2 * numbers.forward_flops(200)
    assert numbers.forward_flops(400, beyond) == pytest.approx(2 * numbers.forward_flops(200), rel=0.01)
    full = Numbers.from_config(tiny("llama"))
    assert full.forward_flops(400, beyond, 2) == full.forward_flops(200, logits=1) * 2


def test_latent_attention_decodes_in_the_latent():
    """The products of one new token, written out: queries into the latent, scores and values there, values out of it."""
    numbers = Numbers.from_config(tiny("deepseek_v3", first_k_dense_replace=4))
    d, heads, nope, rope, value, rank, q_rank, cached = 32, 4, 6, 4, 7, 10, 12, 30
    project = d * q_rank + q_rank * heads * (nope + rope) + d * (rank + rope) + heads * value * d
    absorbed = heads * nope * rank + heads * rank * value
    attend = heads * (cached + 1) * ((rank + rope) + rank)
    layer = project + absorbed + attend + 3 * d * 56
    assert numbers.decode_flops(cached) == 2 * (4 * layer + d * 96)
    attention = numbers.layers[0].attention
    assert attention.pair_flops() == 2 * heads * (nope + rope + value)
    assert attention.pair_flops(absorbed=True) == 2 * heads * (2 * rank + rope)


def test_active_parameters_leave_out_the_experts_that_a_token_does_not_visit():
    numbers = Numbers.from_config(tiny("deepseek_v3"))
    expert = 3 * 32 * 20
    assert numbers.expert_parameters() == 3 * 8 * expert  # the first of four layers is dense
    assert numbers.parameters() - numbers.active_parameters() == 3 * (8 - 3) * expert
    assert numbers.active_parameters() - numbers.active_parameters(embedding=False) == 96 * 32
    assert numbers.embedding_parameters() == 2 * 96 * 32
    tied = Numbers.from_config(tiny("gemma"))
    assert tied.expert_parameters() == 0
    assert tied.parameters() == tied.active_parameters() == tied.active_parameters(embedding=False)
    learned = Numbers.from_config(tiny("gpt2"))
    assert learned.embedding_parameters() == (96 + 24) * 32
    assert learned.active_parameters() - learned.active_parameters(embedding=False) == 24 * 32


def test_the_architecture_that_is_built_counts_the_same():
    for change in ({}, HEADS, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}):
        config = tiny("llama", **change)
        arch, numbers = Arch.from_config(config), Numbers.from_config(config)
        assert replace(arch.numbers, name="") == replace(numbers, name="")
        assert arch.parameters() == numbers.parameters()
        assert arch.forward_flops(7, 28.0, 3) == numbers.forward_flops(7, logits=3)
        assert arch.kv_bytes_per_token(1) == numbers.kv_bytes_per_token(1)


def test_a_number_is_a_value():
    numbers = Numbers.from_config(tiny("gemma3_text"), name="small")
    before = numbers.forward_flops(9)  # fills what is kept between calls
    again = pickle.loads(pickle.dumps(numbers))
    assert again == numbers == Numbers.from_config(tiny("gemma3_text"), name="small")
    assert again.name == "small"
    assert again.forward_flops(9) == before
    assert Numbers.from_config(tiny("llama")).name == "llama"
    assert replace(numbers, layers=numbers.layers[:2]).parameters() < numbers.parameters()


def test_built_by_hand():
    layer = Layer(Attention("full", 1, 1, 2, 2), FeedForward("dense", 3, gated=False), norms=1)
    numbers = Numbers("x", "x", hidden=2, vocab=5, tied=True, max_positions=9, layers=(layer, layer))
    assert numbers.parameters() == 5 * 2 + 2 * (4 * 2 * 2 + 2 * 2 * 3 + 2) + 2
    assert numbers.kv_bytes_per_token(0.5) == 4  # 2 layers x (2 + 2) numbers, half a byte each
    assert replace(numbers, layers=(layer,)).kv_bytes_per_token(0.3) == 2  # 1.2 bytes, rounded up


def test_the_language_model_of_a_multimodal_one():
    inner = tiny("gemma3_text")
    outer = {"model_type": "gemma3", "vision_config": {"hidden_size": 8}, "text_config": inner}
    assert Numbers.from_config(outer) == Numbers.from_config(inner)
    llama = tiny("llama")
    for place in ({"tie_word_embeddings": True}, {}):
        numbers = Numbers.from_config({"model_type": "llava", "text_config": llama, **place})
        assert numbers.tied is bool(place)
    for key in ("vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"):
        inner = {k: v for k, v in inner.items() if k != key}  # what Google's own text_config leaves out
    sparse = Numbers.from_config({"model_type": "gemma3", "text_config": inner})
    attention = sparse.layers[0].attention
    assert (sparse.vocab, attention.heads, attention.kv_heads, attention.head_dim) == (262208, 8, 4, 256)
    with pytest.raises(ModelError, match=r"text_config\).*'None' is not known"):
        Numbers.from_config({"model_type": "gemma3", "text_config": {"hidden_size": 8}})


def test_synonyms_of_keys():
    config = tiny("gpt_oss")
    config["experts_per_token"] = config.pop("num_experts_per_tok")
    config["num_experts"] = config.pop("num_local_experts")
    assert Numbers.from_config(config) == Numbers.from_config(tiny("gpt_oss"))
    config = tiny("deepseek_v3", num_nextn_predict_layers=1)
    config["num_local_experts"] = config.pop("n_routed_experts")
    config["num_mtp_layers"] = config.pop("num_nextn_predict_layers")
    assert Numbers.from_config(config) == Numbers.from_config(tiny("deepseek_v3", num_nextn_predict_layers=1))


def test_layers_that_are_dense_although_the_type_has_experts():
    spaced = Numbers.from_config(tiny("deepseek_v3", moe_layer_freq=2, first_k_dense_replace=1))
    assert [x.feed_forward.kind for x in spaced.layers] == ["dense", "dense", "moe", "dense"]
    without = Numbers.from_config(tiny("deepseek_v3", n_routed_experts=None))
    assert {x.feed_forward.kind for x in without.layers} == {"dense"}
    alone = Numbers.from_config(tiny("deepseek_v3", n_shared_experts=None))
    assert alone.layers[1].feed_forward.shared == 0


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("llama", {"model_type": "lama"}, "the model type 'lama' is not known.*did you mean 'llama'"),
        ("llama", {"model_type": None}, "is not known"),
        ("llama", {"model_type": ["llama"]}, "is not known"),
        ("llama", {"model_type": "qwen3_mo"}, "did you mean 'qwen3_moe'"),
        ("llama", {"model_type": "mamba2"}, "is not known"),
        ("llama", {"hidden_size": None}, "'hidden_size' is missing, a model of type 'llama' needs it"),
        ("llama", {"vocab_size": "96"}, "'vocab_size' must be a whole number of at least 1, it is '96'"),
        ("llama", {"num_hidden_layers": True}, "'num_hidden_layers'"),
        ("llama", {"num_hidden_layers": 0}, "'num_hidden_layers'"),
        ("llama", {"num_key_value_heads": 3}, "cannot share 3"),
        ("llama", {"hidden_size": 33}, "do not divide"),
        ("llama", {"max_position_embeddings": None}, "'max_position_embeddings' is missing"),
        ("llama", {"attention_bias": "no"}, "'attention_bias' must be true or false"),
        ("llama", {"tie_word_embeddings": 1}, "'tie_word_embeddings' must be true or false"),
        ("llama", {"use_bidirectional_attention": True}, "encoder"),
        ("llama", {"layer_types": ["linear_attention"] * 4}, "the layer type 'linear_attention' is not known"),
        ("llama", {"layer_types": ["full_attention"]}, "one type for each of the 4 layers"),
        ("llama", {"layer_types": SLIDE}, "'sliding_window' is missing"),
        ("mistral", {"num_key_value_heads": None}, "'num_key_value_heads' is missing"),
        ("mixtral", {"num_experts_per_tok": 5}, "cannot pass 5 of 4 experts"),
        ("mixtral", {"num_local_experts": None}, "'num_experts' is missing"),
        ("qwen3", {"head_dim": None}, "'head_dim' is missing"),
        ("qwen3", {"head_dim": 1.5}, "'head_dim' must be a whole number"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": None}, "'max_window_layers' is missing"),
        ("qwen2_moe", {"use_sliding_window": True}, "needs 'layer_types'"),
        ("qwen3_moe", {"mlp_only_layers": 3}, "'mlp_only_layers' must be a list"),
        ("qwen3_moe", {"mlp_only_layers": ["0"]}, "'mlp_only_layers' must be a list"),
        ("gemma2", {"sliding_window": None}, "'sliding_window' is missing"),
        ("gemma2", {"head_dim": None}, "'head_dim' is missing"),
        ("deepseek_v3", {"kv_lora_rank": None}, "'kv_lora_rank' is missing"),
        ("deepseek_v3", {"q_lora_rank": "low"}, "'q_lora_rank'"),
        ("deepseek_v3", {"first_k_dense_replace": None}, "'first_k_dense_replace' is missing"),
        ("deepseek_v3", {"num_nextn_predict_layers": -1}, "'num_nextn_predict_layers' must be .* at least 0"),
        ("deepseek_v2", {"mlp_bias": True}, "'mlp_bias' is not supported"),
        ("deepseek_v2", {"layer_types": SLIDE, "sliding_window": 8}, "latent attention"),
        ("deepseek_v3", {"num_nextn_predict_layers": 10**9}, "no model has more than 10000 layers"),
        (
            "llama",
            {"num_hidden_layers": 10**9},
            "'num_hidden_layers' is 1000000000, no model has more than 10000 layers",
        ),
        ("gpt2", {"n_layer": 10**9}, "no model has more than 10000 layers"),
        ("gpt2", {"n_embd": 30}, "do not divide"),
        ("gpt2", {"n_positions": None}, "'n_positions' is missing"),
    ],
)
def test_bad_configs_are_sentences(kind, change, words):
    with pytest.raises(ModelError, match=words) as caught:
        Numbers.from_config(tiny(kind, **change), "m/config.json")
    assert str(caught.value).startswith("m/config.json: ")
    assert str(caught.value).endswith(".")


def test_other_bad_configs():
    for nothing in ([], "x", None):
        with pytest.raises(ModelError, match="a table of settings is expected"):
            Numbers.from_config(nothing)  # type: ignore[arg-type]
    config = tiny("mistral")
    del config["sliding_window"]
    with pytest.raises(ModelError, match="write null for a model without a window"):
        Numbers.from_config(config)


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3", "glm4_moe"])
@pytest.mark.parametrize("key", ["q_lora_rank", "n_routed_experts", "n_shared_experts"])
def test_a_key_that_the_class_would_fill_in_must_be_stated(kind, key):
    """transformers' classes put numbers of their own there, so that a file without the key has no count of its own."""
    config = tiny(kind)
    if key not in config:
        assert (kind, key) == ("glm4_moe", "q_lora_rank")
        return
    del config[key]
    with pytest.raises(ModelError, match=f"'{key}' is missing; write null for a model of type '{kind}' without"):
        Numbers.from_config(config)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda n: n.forward_flops(-1), "'tokens' must be"),
        (lambda n: n.forward_flops(float("nan")), "'tokens' must be"),
        (lambda n: n.forward_flops(1, float("inf")), "'pairs' must be"),
        (lambda n: n.forward_flops(1, logits=-1), "'logits' must be"),
        (lambda n: n.forward_flops(1, cached=-1), "'cached' must be"),
        (lambda n: n.forward_flops(1, 1, cached=1), "either 'pairs' or 'cached'"),
        (lambda n: n.flops_per_token(0, training=True), "at least 1 token"),
        (lambda n: n.decode_flops(-1), "at least 0 tokens"),
    ],
)
def test_bad_counts_are_sentences(call, words):
    with pytest.raises(RequestError, match=words):
        call(Numbers.from_config(tiny("llama")))


def test_the_file_may_come_from_json():
    text = json.dumps(tiny("qwen2_moe"))
    assert Numbers.from_config(json.loads(text)) == Numbers.from_config(tiny("qwen2_moe"))
