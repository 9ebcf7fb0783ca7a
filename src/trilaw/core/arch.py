"""The numbers of an architecture that can be built and trained here, read from config.json. No torch.

`model` builds modules from an `Arch`, ledgers compute with it. What it counts (weights, FLOPs, cache) it asks of `trilaw.core.numbers`, which
knows more families than can be built: one truth, and a test holds `parameters()` and `forward_flops()` equal to the real tensors and to
`torch.utils.flop_counter`. Today it knows the Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied or untied head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trilaw.core.errors import ModelError, nearest
from trilaw.core.numbers import Attention, FeedForward, Layer, Numbers

FAMILIES = ("llama",)


@dataclass(frozen=True)
class Arch:
    """One decoder-only transformer. Sizes are counts, `head_dim` is per head, `max_positions` is the longest context in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    family: str = "llama"
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: Mapping[str, Any] | None = None  # the scaling table of config.json as it stands
    tied: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # keys of config.json kept as they came, for saving

    @staticmethod
    def from_config(config: Mapping[str, Any], where: str = "config.json") -> Arch:
        """Read Hugging Face's config.json (the layouts of transformers 4 and 5).

        Raises ModelError for an unknown family, a missing field, an activation other than SiLU, or sizes that do not divide.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise ModelError(f"{where}: the architecture '{family}' is not supported{nearest(str(family), FAMILIES)}.")
        sizes = {
            key: _whole(config, key, where)
            for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        }
        if config.get("hidden_act", "silu") != "silu":
            raise ModelError(f"{where}: the activation '{config['hidden_act']}' is not supported (only 'silu' is).")
        heads = sizes["num_attention_heads"]
        kv_heads = heads if config.get("num_key_value_heads") is None else _whole(config, "num_key_value_heads", where)
        if heads % kv_heads:
            raise ModelError(f"{where}: {heads} attention heads cannot share {kv_heads} key-value heads evenly.")
        if config.get("head_dim") is not None:
            head_dim = _whole(config, "head_dim", where)
        elif sizes["hidden_size"] % heads:
            raise ModelError(
                f"{where}: {heads} attention heads do not divide hidden_size {sizes['hidden_size']} evenly."
            )
        else:
            head_dim = sizes["hidden_size"] // heads
        if head_dim % 2:
            raise ModelError(f"{where}: rotary positions need an even head size, it is {head_dim}.")
        # transformers 5 puts theta and scaling together under rope_parameters, transformers 4 apart.
        key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
        if not isinstance(config.get(key) or {}, Mapping):
            raise ModelError(f"{where}: '{key}' must be a table, it is {config[key]!r}.")
        rope = dict(config.get(key) or {})
        theta = rope.pop("rope_theta", None) or config.get("rope_theta") or 10_000.0
        norm_eps = config.get("rms_norm_eps", 1e-6)
        for name, number in (("rope_theta", theta), ("rms_norm_eps", norm_eps)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
                raise ModelError(f"{where}: '{name}' must be a positive number, it is {number!r}.")
        kind = rope.get("rope_type") or rope.get("type") or "default"
        bos, eos = config.get("bos_token_id"), config.get("eos_token_id")
        eos_ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
        for key, ids in (("bos_token_id", () if bos is None else (bos,)), ("eos_token_id", eos_ids)):
            if not all(isinstance(i, int) for i in ids):
                raise ModelError(f"{where}: '{key}' must be a token id, it is {config[key]!r}.")
        return Arch(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            layers=sizes["num_hidden_layers"],
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            max_positions=_whole({"max_position_embeddings": 2048, **config}, "max_position_embeddings", where),
            family=family,
            norm_eps=float(norm_eps),
            rope_theta=float(theta),
            rope_scaling=None if kind == "default" else rope,
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            bos_id=bos,
            eos_ids=eos_ids,
            extra=dict(config),
        )

    def to_config(self) -> dict[str, Any]:
        """config.json for this architecture, in the layout that transformers 4 and 5 both read."""
        config = dict(self.extra)
        config.pop("rope_parameters", None)
        config |= {
            "architectures": ["LlamaForCausalLM"],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": dict(self.rope_scaling) if self.rope_scaling else None,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "bos_token_id": self.bos_id,
            "eos_token_id": list(self.eos_ids) if len(self.eos_ids) > 1 else self.eos_ids[0] if self.eos_ids else None,
        }
        return config

    @cached_property
    def numbers(self) -> Numbers:
        """The counts behind the methods below, layer by layer."""
        attention = Attention(
            kind="full",
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            value_dim=self.head_dim,
            qkv_bias=self.attention_bias,
            out_bias=self.attention_bias,
        )
        layer = Layer(attention, FeedForward("dense", self.intermediate_size, bias=self.mlp_bias))
        return Numbers(
            name=self.family,
            family=self.family,
            hidden=self.hidden_size,
            vocab=self.vocab_size,
            tied=self.tied,
            max_positions=self.max_positions,
            layers=(layer,) * self.layers,
        )

    def parameters(self) -> int:
        """Weights, each counted once (a tied head is the embedding)."""
        return self.numbers.parameters()

    def forward_flops(self, tokens: int, pairs: float, logits: int | None = None) -> float:
        """FLOPs of a forward pass: 2 a multiply-add, matrix products only.

        tokens: how many pass through the layers. pairs: query-key pairs attended, over all tokens (a causal sequence of length T
        has T (T + 1) / 2). logits: how many tokens need the head (all by default).
        """
        return self.numbers.forward_flops(tokens, pairs, logits)

    def train_flops(self, tokens: int, pairs: float, logits: int | None = None) -> float:
        """FLOPs of forward and backward (three times the forward pass: each product has two gradients)."""
        return 3.0 * self.forward_flops(tokens, pairs, logits)

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Bytes that a token adds to the cache."""
        return self.numbers.kv_bytes_per_token(element_bytes)


def _whole(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ModelError(f"{where}: '{key}' must be a positive whole number, it is {value!r}.")
    return value
