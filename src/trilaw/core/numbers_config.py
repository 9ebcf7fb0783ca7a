"""Hugging Face's config.json, read into `Numbers`: one row a model type says how that type spells its layers.

A row states what the format leaves unsaid: which biases a type has, what an absent key means, which layers see a window. Where a type
has no meaning for an absent key the key is required. What a key of an unknown meaning could change is refused, never guessed.
The rows follow the published configuration classes and checkpoints of each family; the tests hold every row equal to the model that
`transformers` builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from trilaw.core.errors import ModelError, nearest
from trilaw.core.numbers import Attention, FeedForward, Layer, Numbers


@dataclass(frozen=True, slots=True)
class Family:
    """How one model type reads its config.json. A bias is always there (True), never (False), or as the named key says."""

    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: Literal["none", "head", "row", "key"] = (
        "none"  # head: a vector a head size; row: all heads; key: use_qk_norm
    )
    sinks: bool = False
    mla: bool = False
    norms: int = 2
    derives_head_dim: bool = True  # an absent head_dim is hidden_size / heads
    derives_kv_heads: bool = False  # absent key-value heads are as many as the heads
    tied: bool = False  # what an absent tie_word_embeddings means
    window: Literal["none", "all", "pattern", "switch"] = "none"
    pattern: int = 0  # each so many-th layer sees everything, the others a window
    experts: Literal["none", "all", "step", "tail"] = "none"
    defaults: Mapping[str, Any] = field(default_factory=dict)  # what published files of this type leave out


MOST_LAYERS = 10_000  # ten times the deepest language model; each is counted, so more would only take time and memory
_LLAMA = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", derives_kv_heads=True
)  # its files before 2023-07 have no num_key_value_heads
_QWEN3: dict[str, Any] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias", "qk_norm": "head"}
_QWEN3 |= {"derives_head_dim": False, "window": "switch"}
_GEMMA: dict[str, Any] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias", "tied": True}
_OLMO: dict[str, Any] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias", "qk_norm": "row"}
_OLMO |= {"derives_kv_heads": True}
_DEEPSEEK = Family(qkv_bias="attention_bias", out_bias="attention_bias", mla=True, experts="tail")

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": Family(window="all"),
    "mixtral": Family(window="all", experts="all"),
    "phi3": Family(window="all", derives_kv_heads=True),
    "qwen2": Family(qkv_bias=True, window="switch"),
    "qwen2_moe": Family(qkv_bias="qkv_bias", window="switch", experts="step", defaults={"qkv_bias": True}),
    "qwen3": Family(**_QWEN3),
    "qwen3_moe": Family(**_QWEN3, experts="step"),
    "gemma": Family(**_GEMMA, derives_head_dim=False),
    "gemma2": Family(**_GEMMA, derives_head_dim=False, norms=4, window="pattern", pattern=2),
    "gemma3_text": Family(
        **_GEMMA,
        qk_norm="head",
        norms=4,
        window="pattern",
        pattern=6,
        # The 4B to 27B files of March 2025 name in text_config only what differs from the class, which is this:
        defaults={
            "vocab_size": 262208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131072,
        },
    ),
    "olmo2": Family(**_OLMO),
    "olmo3": Family(**_OLMO, window="pattern", pattern=4),
    "smollm3": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", tied=True, window="switch"
    ),
    "gpt_oss": Family(
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        mlp_bias=True,
        sinks=True,
        derives_head_dim=False,
        window="pattern",
        pattern=2,
        experts="all",
        defaults={"attention_bias": True},
    ),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm4_moe": Family(qkv_bias="attention_bias", qk_norm="key", experts="tail"),
    "gpt2": Family(qkv_bias=True, out_bias=True, mlp_bias=True, norms=4, tied=True),
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """The keys of one file, checked one by one."""

    config: Mapping[str, Any]
    where: str
    family: str
    defaults: Mapping[str, Any]

    def get(self, *keys: str) -> Any:
        """The value of the first key that is there and not null; None when none is."""
        for key in keys:
            value = self.config.get(key)
            if value is not None:
                return value
        return next((self.defaults[key] for key in keys if key in self.defaults), None)

    def whole(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`, under the first of `keys` that is there (the format has synonyms)."""
        value = self.get(*keys)
        value = default if value is None else value
        if value is None:
            raise ModelError(f"{self.where}: '{keys[0]}' is missing, a model of type '{self.family}' needs it.")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            key = next((key for key in keys if self.config.get(key) is not None), keys[0])
            raise ModelError(f"{self.where}: '{key}' must be a whole number of at least {least}, it is {value!r}.")
        return value

    def layers(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A number of layers, which is no more than `MOST_LAYERS`."""
        count = self.whole(*keys, default=default, least=least)
        if count > MOST_LAYERS:
            raise ModelError(f"{self.where}: '{keys[0]}' is {count}, no model has more than {MOST_LAYERS} layers.")
        return count

    def stated(self, key: str) -> None:
        """Refuse a file that leaves `key` out, where the class of the model would put a number of its own."""
        if key not in self.config:
            raise ModelError(
                f"{self.where}: '{key}' is missing; write null for a model of type '{self.family}' without."
            )

    def flag(self, key: bool | str, default: bool = False) -> bool:
        """`key` itself where it is an answer already, otherwise the truth value under that key."""
        if isinstance(key, bool):
            return key
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: '{key}' must be true or false, it is {value!r}.")
        return value

    def whole_list(self, key: str) -> list[int]:
        """A list of layer indices, empty when the key is absent."""
        value = self.get(key) or []
        if not isinstance(value, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
            raise ModelError(f"{self.where}: '{key}' must be a list of layer numbers, it is {value!r}.")
        return value


def read(config: Mapping[str, Any], where: str = "config.json", name: str = "") -> Numbers:
    """See `Numbers.from_config`."""
    if not isinstance(config, Mapping):
        raise ModelError(f"{where}: a table of settings is expected, it is {type(config).__name__}.")
    inner = config.get("text_config")
    if isinstance(inner, Mapping):  # a multimodal model: the language model stands in its own table
        tied = config.get("tie_word_embeddings")
        config = {**({} if tied is None else {"tie_word_embeddings": tied}), **inner}
        where = f"{where} (text_config)"
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ModelError(f"{where}: the model type '{kind}' is not known{nearest(kind, FAMILIES)}.")
    family = FAMILIES[kind]
    reader = _Reader(config, where, kind, family.defaults)
    if reader.get("use_bidirectional_attention"):
        raise ModelError(f"{where}: 'use_bidirectional_attention' makes an encoder, only causal models are counted.")
    if kind == "gpt2":
        return _gpt2(reader, name)
    hidden, count = reader.whole("hidden_size"), reader.layers("num_hidden_layers")
    attention = _latent(reader, family) if family.mla else _attention(reader, family, hidden)
    windows, sparse = _windows(reader, family, count), _sparse(reader, family, count)
    blocks = {moe: (_experts if moe else _dense)(reader, family) for moe in set(sparse)}
    kinds = list(zip(windows, sparse))
    made = {(window, moe): Layer(_windowed(attention, window), blocks[moe], family.norms) for window, moe in set(kinds)}
    layers = tuple(made[kind] for kind in kinds)  # equal layers are one object, which whoever counts them can tell fast
    return Numbers(
        name=name or kind,
        family=kind,
        hidden=hidden,
        vocab=reader.whole("vocab_size"),
        tied=reader.flag("tie_word_embeddings", family.tied),
        max_positions=reader.whole("max_position_embeddings"),
        layers=layers,
        mtp=layers[-1:] * reader.layers("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0),
    )


def _gpt2(reader: _Reader, name: str) -> Numbers:
    """GPT-2's own spelling: learned positions, LayerNorm and biases everywhere, an ungated feed-forward of 4 x the hidden width."""
    hidden, heads = reader.whole("n_embd"), reader.whole("n_head")
    positions = reader.whole("n_positions", "n_ctx")
    head_dim = _share(reader, hidden, heads)
    attention = Attention("full", heads, heads, head_dim, head_dim, qkv_bias=True, out_bias=True)
    feed_forward = FeedForward("dense", reader.whole("n_inner", default=4 * hidden), gated=False, bias=True)
    return Numbers(
        name=name or reader.family,
        family=reader.family,
        hidden=hidden,
        vocab=reader.whole("vocab_size"),
        tied=reader.flag("tie_word_embeddings", FAMILIES["gpt2"].tied),
        max_positions=positions,
        layers=(Layer(attention, feed_forward, norms=4),) * reader.layers("n_layer"),
        positions=positions,
        final_norms=2,
    )


def _share(reader: _Reader, hidden: int, heads: int) -> int:
    """The head size of a family that splits the hidden width over its heads."""
    if hidden % heads:
        raise ModelError(f"{reader.where}: {heads} attention heads do not divide the hidden width {hidden} evenly.")
    return hidden // heads


def _attention(reader: _Reader, family: Family, hidden: int) -> Attention:
    heads = reader.whole("num_attention_heads")
    kv_heads = reader.whole("num_key_value_heads", default=heads if family.derives_kv_heads else None)
    if heads % kv_heads:
        raise ModelError(f"{reader.where}: {heads} attention heads cannot share {kv_heads} key-value heads evenly.")
    if family.derives_head_dim and reader.get("head_dim") is None:
        head_dim = _share(reader, hidden, heads)
    else:
        head_dim = reader.whole("head_dim")
    norm = family.qk_norm
    if norm == "key":
        norm = "head" if reader.flag("use_qk_norm") else "none"
    return Attention(
        kind="full",
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=head_dim,
        qkv_bias=reader.flag(family.qkv_bias),
        out_bias=reader.flag(family.out_bias),
        qk_norm=head_dim * {"none": 0, "head": 2, "row": heads + kv_heads}[norm],
        sinks=family.sinks,
    )


def _latent(reader: _Reader, family: Family) -> Attention:
    if reader.flag("mlp_bias"):  # the class of DeepSeek-V2 knows it, no published model has it
        raise ModelError(f"{reader.where}: 'mlp_bias' is not supported for a model of type '{reader.family}'.")
    heads, rope = reader.whole("num_attention_heads"), reader.whole("qk_rope_head_dim")
    reader.stated("q_lora_rank")
    return Attention(
        kind="mla",
        heads=heads,
        kv_heads=heads,
        head_dim=reader.whole("qk_nope_head_dim") + rope,
        value_dim=reader.whole("v_head_dim"),
        q_rank=None if reader.get("q_lora_rank") is None else reader.whole("q_lora_rank"),
        kv_rank=reader.whole("kv_lora_rank"),
        rope_dim=rope,
        qkv_bias=reader.flag(family.qkv_bias),
        out_bias=reader.flag(family.out_bias),
    )


def _windowed(attention: Attention, window: int | None) -> Attention:
    return attention if window is None else replace(attention, kind="sliding", window=window)


def _windows(reader: _Reader, family: Family, count: int) -> list[int | None]:
    """What each layer sees: a number of tokens, or None for everything."""
    types = reader.get("layer_types")
    if types is not None:
        known = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != count:
            raise ModelError(f"{reader.where}: 'layer_types' must name one type for each of the {count} layers.")
        strange = next((t for t in types if t not in known), None)
        if strange is not None:
            raise ModelError(f"{reader.where}: the layer type '{strange}' is not known{nearest(str(strange), known)}.")
    if reader.get("use_sliding_window") is False or (
        family.window == "switch" and not reader.flag("use_sliding_window")
    ):
        return [None] * count  # such files carry a sliding_window that is not in use
    if types is not None:
        sliding = [t == "sliding_attention" for t in types]
    elif family.window == "pattern":
        every = reader.whole("sliding_window_pattern", default=family.pattern)
        sliding = [(i + 1) % every != 0 for i in range(count)]
    elif family.window == "all":
        if reader.family == "mistral" and "sliding_window" not in reader.config:  # the class would put 4,096 there
            raise ModelError(f"{reader.where}: 'sliding_window' is missing; write null for a model without a window.")
        sliding = [reader.get("sliding_window") is not None] * count
    elif family.window == "switch" and reader.family in ("qwen2", "qwen3"):
        first = reader.whole("max_window_layers", least=0)
        sliding = [i >= first for i in range(count)]
    elif family.window == "switch":
        raise ModelError(f"{reader.where}: 'use_sliding_window' needs 'layer_types' to say which layers see a window.")
    else:
        sliding = [False] * count
    if family.mla and any(sliding):
        raise ModelError(f"{reader.where}: a window on latent attention is not supported.")
    window = reader.whole("sliding_window") if any(sliding) else None
    return [window if narrow else None for narrow in sliding]


def _sparse(reader: _Reader, family: Family, count: int) -> list[bool]:
    """Which layers are mixtures of experts."""
    if family.experts == "all":
        return [True] * count
    if family.experts == "step":
        step, dense = reader.whole("decoder_sparse_step", default=1), reader.whole_list("mlp_only_layers")
        return [(i + 1) % step == 0 and i not in dense for i in range(count)]
    if family.experts == "tail" and reader.get("num_local_experts") is None:
        reader.stated("n_routed_experts")
    if family.experts == "tail" and reader.get("n_routed_experts", "num_local_experts") is not None:
        first = reader.whole("first_k_dense_replace", least=0)
        every = reader.whole("moe_layer_freq", default=1)
        return [i >= first and i % every == 0 for i in range(count)]
    return [False] * count


def _dense(reader: _Reader, family: Family) -> FeedForward:
    return FeedForward("dense", reader.whole("intermediate_size"), bias=reader.flag(family.mlp_bias))


def _experts(reader: _Reader, family: Family) -> FeedForward:
    experts = reader.whole("n_routed_experts" if family.experts == "tail" else "num_experts", "num_local_experts")
    active = reader.whole("num_experts_per_tok", "experts_per_token")
    if active > experts:
        raise ModelError(f"{reader.where}: a token cannot pass {active} of {experts} experts.")
    own = "intermediate_size" if family.experts == "all" else "moe_intermediate_size"
    width = reader.whole(own)
    shared = 0
    if family.experts == "tail":
        reader.stated("n_shared_experts")
        shared = reader.whole("n_shared_experts", default=0, least=0)
    shared_width = width if shared else 0
    gate = reader.family == "qwen2_moe"
    if gate:
        shared, shared_width = 1, reader.whole("shared_expert_intermediate_size")
    return FeedForward(
        kind="moe",
        hidden=width,
        experts=experts,
        active=active,
        shared=shared,
        shared_hidden=shared_width,
        bias=reader.flag(family.mlp_bias),
        shared_gate=gate,
    )
