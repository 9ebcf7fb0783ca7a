"""What one model costs: weights, matrix products and cache, counted layer by layer from config.json. Pure arithmetic, no torch.

Every other part that speaks of a model's size (the architecture that is built, the ledger, the planner) asks here, so that there is
one count. `trilaw.core.numbers_config` reads the file; this page counts.

Conventions, all of them:
- A weight is counted once (a tied head is the embedding). Norms, biases and attention sinks count as weights; buffers do not (the
  routing bias of DeepSeek-V3, which no gradient moves, is a buffer).
- FLOPs are those of matrix products, 2 a multiply-add: projections, router, active experts, scores and values, head. Norms, softmax,
  activations, rotary positions and the embedding look-up are left out. Backward is twice forward, recomputation is not included.
- Causal attention counts the pairs that the mask keeps: T (T + 1) / 2 of a sequence, fewer under a window. `causal=False` counts the
  whole T x T square, as PaLM's MFU (arXiv 2204.02311, appendix B) and Megatron-LM (arXiv 2205.05198) do.
- Multi-head latent attention (MLA, arXiv 2405.04434) is counted expanded for prefill and training, and in the weight-absorbed form for
  decoding: scores and values are then taken in the latent, kv_rank + rope_dim and kv_rank wide.

Training GFLOPs a token at 4,096 tokens against arXiv 2505.09343, table 2. 6 x (matrix weights, head included, embedding not) and causal
attention give DeepSeek-V3 250.5 (published 250), DeepSeek-V2 155.3 (155) and Llama-3.1-405B 2,473 (2,448: +1.0 %). The 394 published for
"Qwen-72B" follows from no convention: we count 444.9 for Qwen2.5-72B, whose 80 layers' weights alone, without attention and head, make 421.3; what
gives the Llama row within half a per cent (half of the causal attention, or keys' and values' weights left out) gives Qwen's 72B models, the
first generation or Qwen2.5, 378 to 440. With 72 layers in place of 80 and half of the causal attention it would be 393.9; the paper does not say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from trilaw.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention of one layer. `head_dim` is the width of a query or key head, `value_dim` that of a value head.

    kind: "full" sees all tokens before it (however many key-value heads), "sliding" sees the last `window` tokens, itself among them,
    "mla" sees all and caches one latent of `kv_rank` + `rope_dim` numbers a token; there `head_dim` includes `rope_dim`, every head has its
    own key and value, and queries pass a latent of `q_rank` unless it is None.
    """

    kind: Literal["full", "sliding", "mla"]
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    q_rank: int | None = None
    kv_rank: int | None = None
    rope_dim: int | None = None
    qkv_bias: bool = False  # of MLA: on the two projections into latents
    out_bias: bool = False
    qk_norm: int = 0  # weights of the norms on queries and keys together, 0 without
    sinks: bool = False  # one learned logit a head

    def products(self, hidden: int) -> int:
        """Weights of the projections: each is one multiply-add a token."""
        out = self.heads * self.value_dim * hidden
        if self.kind != "mla":
            return hidden * (self.heads * self.head_dim + self.kv_heads * (self.head_dim + self.value_dim)) + out
        kv_rank, rope = self.kv_rank or 0, self.rope_dim or 0
        queries = self.heads * self.head_dim
        into = hidden * queries if self.q_rank is None else self.q_rank * (hidden + queries)
        return into + hidden * (kv_rank + rope) + kv_rank * self.heads * (self.head_dim - rope + self.value_dim) + out

    def parameters(self, hidden: int) -> int:
        """All weights."""
        if self.kind == "mla":
            ranks = (self.q_rank or 0) + (self.kv_rank or 0)
            bias, norm = ranks + (self.rope_dim or 0), ranks  # a norm stands behind each latent
        else:
            bias = self.heads * self.head_dim + self.kv_heads * (self.head_dim + self.value_dim)
            norm = self.qk_norm
        return (
            self.products(hidden)
            + norm
            + (bias if self.qkv_bias else 0)
            + (hidden if self.out_bias else 0)
            + (self.heads if self.sinks else 0)
        )

    def pair_flops(self, *, absorbed: bool = False) -> int:
        """FLOPs of one query-key pair over all heads: its score and its share of the value. `absorbed` matters to MLA only."""
        if absorbed and self.kind == "mla":
            return 2 * self.heads * (2 * (self.kv_rank or 0) + (self.rope_dim or 0))
        return 2 * self.heads * (self.head_dim + self.value_dim)

    def cache_elements(self) -> int:
        """Numbers that one token leaves in this layer's cache."""
        if self.kind == "mla":
            return (self.kv_rank or 0) + (self.rope_dim or 0)
        return self.kv_heads * (self.head_dim + self.value_dim)


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward part of one layer. Of a mixture of experts, `hidden` is the width of one routed expert.

    A token passes through `active` of the `experts` and through all `shared` ones (`shared_hidden` wide each). `gated` has three matrices
    (up, gate, down), otherwise two. `bias`: on every matrix and the router. `shared_gate`: a learned scalar gate on the shared experts.
    """

    kind: Literal["dense", "moe"]
    hidden: int
    gated: bool = True
    experts: int = 0
    active: int = 0
    shared: int = 0
    shared_hidden: int = 0
    bias: bool = False
    shared_gate: bool = False

    def _block(self, hidden: int, width: int, bias: bool) -> int:
        matrices = 3 if self.gated else 2
        return matrices * hidden * width + ((matrices - 1) * width + hidden if bias else 0)

    def expert_parameters(self, hidden: int) -> int:
        """Weights of one routed expert, 0 where there is none."""
        return self._block(hidden, self.hidden, self.bias) if self.kind == "moe" else 0

    def _passed(self, hidden: int, experts: int, bias: bool) -> int:
        if self.kind == "dense":
            return self._block(hidden, self.hidden, bias)
        router = self.experts * (hidden + (1 if bias else 0)) + (hidden if self.shared_gate else 0)
        return (
            router
            + experts * self._block(hidden, self.hidden, bias)
            + self.shared * self._block(hidden, self.shared_hidden, bias)
        )

    def products(self, hidden: int) -> int:
        """Weights in matrix products that one token passes: router, active and shared experts."""
        return self._passed(hidden, self.active, False)

    def parameters(self, hidden: int) -> int:
        """All weights."""
        return self._passed(hidden, self.experts, self.bias)

    def active_parameters(self, hidden: int) -> int:
        """Weights that one token passes."""
        return self._passed(hidden, self.active, self.bias)


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `norms` counts its norm vectors of the hidden width (a LayerNorm has two: scale and shift)."""

    attention: Attention
    feed_forward: FeedForward
    norms: int = 2

    def products(self, hidden: int) -> int:
        """Weights in matrix products that one token passes."""
        return self.attention.products(hidden) + self.feed_forward.products(hidden)

    def parameters(self, hidden: int) -> int:
        """All weights."""
        return self.attention.parameters(hidden) + self.feed_forward.parameters(hidden) + self.norms * hidden

    def active_parameters(self, hidden: int) -> int:
        """Weights that one token passes."""
        return self.attention.parameters(hidden) + self.feed_forward.active_parameters(hidden) + self.norms * hidden


@dataclass(frozen=True)
class Numbers:
    """The counts of one decoder-only language model (of a multimodal one, its language model without the vision tower).

    `mtp` holds the blocks of its multi-token-prediction modules (arXiv 2412.19437, section 2.2): they are no part of the model proper, and
    only `parameters(mtp=True)` counts them.
    """

    name: str
    family: str
    hidden: int
    vocab: int
    tied: bool
    max_positions: int
    layers: tuple[Layer, ...]
    mtp: tuple[Layer, ...] = ()
    positions: int = 0  # rows of a learned position table
    final_norms: int = 1  # norm vectors after the last layer

    @staticmethod
    def from_config(config: Mapping[str, Any], where: str = "config.json", name: str = "") -> Numbers:
        """Read Hugging Face's config.json (`trilaw.core.numbers_config.FAMILIES` lists the model types).

        Raises ModelError for an unknown model type, a missing or malformed field, or sizes that do not fit each other.
        """
        from trilaw.core.numbers_config import read  # it builds what stands above, so it cannot be imported first

        return read(config, where, name)

    @cached_property
    def _kinds(self) -> tuple[tuple[Layer, int], ...]:
        """The distinct layers and how many of each there are: a sum over these is a sum over all."""
        return tuple(Counter(self.layers).items())

    @cached_property
    def _products(self) -> int:
        return sum(count * layer.products(self.hidden) for layer, count in self._kinds)

    def _pair_flops(self, absorbed: bool) -> dict[int | None, int]:
        """FLOPs of a query-key pair, summed over the layers of each window (None: without)."""
        sums: dict[int | None, int] = {}
        for layer, count in self._kinds:
            flops = count * layer.attention.pair_flops(absorbed=absorbed)
            sums[layer.attention.window] = sums.get(layer.attention.window, 0) + flops
        return sums

    @cached_property
    def _expanded(self) -> dict[int | None, int]:
        return self._pair_flops(absorbed=False)

    @cached_property
    def _absorbed(self) -> dict[int | None, int]:
        return self._pair_flops(absorbed=True)

    def parameters(self, *, mtp: bool = False) -> int:
        """All weights, each once. With `mtp`, also those that only the multi-token-prediction modules have.

        Such a module has its block, a projection of twice the hidden width onto it and three norms; embedding and head are the model's own
        (checkpoints may store copies of them: the 685B of DeepSeek-V3's repository are 671B + 11.6B of the module + 2 x 0.9B of copies).
        """
        total = self.embedding_parameters() + self.final_norms * self.hidden
        total += sum(count * layer.parameters(self.hidden) for layer, count in self._kinds)
        if mtp:
            total += sum(layer.parameters(self.hidden) + (2 * self.hidden + 3) * self.hidden for layer in self.mtp)
        return total

    def active_parameters(self, *, embedding: bool = True) -> int:
        """Weights that one token passes: `parameters()` without the routed experts that it does not visit.

        The embedding table counts whole by default, as does the head, so that a dense model has all its parameters active (Mixtral's 12.9B,
        Qwen3's 3.3B of 30B and 22B of 235B and DeepSeek-V3's 37B are counted so). With `embedding=False` an untied table and learned positions
        are left out (the 3.6B and 5.1B of gpt-oss, and 36.6B of DeepSeek-V3, whose weight file's page says 36.7B).
        """
        total = self.final_norms * self.hidden + self.vocab * self.hidden
        if embedding:
            total = self.embedding_parameters() + self.final_norms * self.hidden
        return total + sum(count * layer.active_parameters(self.hidden) for layer, count in self._kinds)

    def expert_parameters(self) -> int:
        """Weights of all routed experts of all layers."""
        return sum(
            count * layer.feed_forward.experts * layer.feed_forward.expert_parameters(self.hidden)
            for layer, count in self._kinds
        )

    def embedding_parameters(self) -> int:
        """Weights of embedding and head (one table where they are tied) and of learned positions."""
        return self.hidden * (self.vocab * (1 if self.tied else 2) + self.positions)

    def forward_flops(
        self, tokens: float, pairs: float | None = None, logits: float | None = None, *, cached: float = 0
    ) -> float:
        """FLOPs of a forward pass of `tokens` tokens, `logits` of which (all by default) need the head.

        Without `pairs`, the tokens are one causal sequence that follows `cached` tokens, and each layer counts what its window lets it see.
        `pairs` gives the query-key pairs of all tokens instead (for several sequences, or a full square); a layer with a window then counts at
        most `window` a token: exact where every token sees that many or none does, an upper bound between.
        Raises RequestError for a negative count, or for `pairs` together with `cached`.
        """
        for what, number in (("tokens", tokens), ("pairs", pairs), ("logits", logits), ("cached", cached)):
            if number is not None and not 0 <= number < math.inf:
                raise RequestError(f"'{what}' must be a finite number of at least 0, it is {number}.")
        if pairs is not None and cached:
            raise RequestError(
                "Give either 'pairs' or 'cached': the pairs of a sequence follow from its cached tokens."
            )
        total = 2 * (tokens * self._products + (tokens if logits is None else logits) * self.hidden * self.vocab)
        for window, flops in self._expanded.items():
            if pairs is None:
                total += flops * causal_pairs(tokens, cached, window)
            else:
                total += flops * (pairs if window is None else min(pairs, tokens * window))
        return float(total)

    def flops_per_token(self, context: int, *, training: bool, causal: bool = True) -> float:
        """Mean FLOPs of a token in a sequence of `context` tokens with the head on every one; `training` is three times forward.

        Recomputed activations are not in it. `causal=False` charges every token with `context` pairs (`window` under a window).
        Raises RequestError for a context below 1.
        """
        if context < 1:
            raise RequestError(f"A context has at least 1 token, it is {context}.")
        forward = self.forward_flops(context, None if causal else context * context)
        return (3.0 if training else 1.0) * forward / context

    def decode_flops(self, kv_length: float) -> float:
        """FLOPs of one new token, its logits included, that attends to `kv_length` cached tokens and itself (MLA: weight-absorbed).

        Raises RequestError for a negative length.
        """
        if not 0 <= kv_length < math.inf:
            raise RequestError(f"A cache holds a finite number of at least 0 tokens, it is {kv_length}.")
        seen = kv_length + 1
        pairs = sum(flops * (seen if window is None else min(seen, window)) for window, flops in self._absorbed.items())
        return float(2 * (self._products + self.hidden * self.vocab) + pairs)

    def kv_bytes_per_token(self, element_bytes: float = 2) -> int:
        """Bytes by which the cache grows with each token, in the layers without a window (0 where all have one), rounded up.

        Keys and values are counted once per key-value head; how many copies a parallel layout keeps is the layout's matter.
        """
        elements = sum(
            n * layer.attention.cache_elements() for layer, n in self._kinds if layer.attention.window is None
        )
        return math.ceil(elements * element_bytes)

    def kv_bytes(self, tokens: float, element_bytes: float = 2) -> float:
        """Bytes of the cache of one sequence of `tokens` tokens; a layer with a window keeps the last `window` of them."""
        return float(
            sum(
                count
                * layer.attention.cache_elements()
                * (tokens if layer.attention.window is None else min(tokens, layer.attention.window))
                for layer, count in self._kinds
            )
            * element_bytes
        )


def causal_pairs(tokens: float, cached: float = 0, window: int | None = None) -> float:
    """Query-key pairs of `tokens` tokens after `cached` ones: each sees all before it and itself, at most `window` of them."""
    growing = tokens if window is None else min(tokens, max(window - cached, 0))
    pairs = growing * cached + growing * (growing + 1) / 2
    return pairs if window is None else pairs + (tokens - growing) * window
