"""What one chip holds while a model is trained: weights, gradients, optimizer, activations, head, working space; by part, in bytes.

Activations follow "Reducing Activation Recomputation in Large Transformer Models" (arXiv 2205.05198), tensor by tensor, so that grouped-query and
latent attention, gated feed-forwards and experts count as what they are. For the GPT layer of that paper (16-bit, dropout, scores in memory)
the sum is its formulas, per layer and micro-batch of b sequences of s tokens, hidden width h, a heads, t tensor-parallel chips:

    equation 1  no parallelism                    s b h (34 + 5 a s / h)
    equation 2  tensor                            s b h (10 + 24 / t + 5 a s / (h t))
    equation 4  tensor and sequence               s b h (34 + 5 a s / h) / t
    section 5   tensor, sequence, selective       34 s b h / t          full: 2 s b h (over t with sequence parallelism; the paper writes it whole)
    equation 5  a pipeline's first stage holds the activations of all its layers for as many micro-batches as are in flight (`Layout.in_flight`)

States are sharded as in ZeRO (arXiv 1910.02054, section 5): the optimizer's over the chips that hold the same weights from stage 1 on,
gradients from 2, weights from 3. Dense weights are replicated over dp x cp chips, routed experts over tp x cp x dp / ep.

Departures: dropout masks are counted only with the assumption `train_dropout` (models since 2022 train without). Norm inputs are two a layer,
whatever further norms a family has. Experts are taken as evenly loaded. Memory that an allocator loses to fragments is in the
assumption `train_memory_use`, the share of a chip that may be filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.layout import distinct

if TYPE_CHECKING:
    from trilaw.core.numbers import Layer, Numbers
    from trilaw.planner.layout import Layout, Stage

GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of each number kept in training, and the format that matrix products run in.

    `weight` are the working weights of the layers' matrices, `wide` those of embedding and head. `linear_input` is what backward keeps of a product's
    input. `gathered` and `reduced` are what ZeRO moves of a weight and of a gradient, `dispatched` what goes to an expert.
    """

    name: str
    products: Literal["bf16", "fp8", "fp32"]
    weight: float
    wide: float
    gradient: float
    master: float
    moments: float
    activation: float
    linear_input: float
    gathered: float
    reduced: float
    dispatched: float
    about: str

    @property
    def state(self) -> float:
        """Bytes a parameter without sharding."""
        return self.weight + self.gradient + self.master + self.moments


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        p.name: p
        for p in (
            Precision(
                "bf16-mixed", "bf16", 2, 2, 4, 4, 8, 2, 2, 2, 4, 2,
                "18 bytes a parameter: BF16 weight, FP32 gradient, master weight and two moments (Megatron-LM; its optimizer shards 12 of them)",
            ),
            Precision(
                "fp8-mixed", "fp8", 2, 2, 4, 4, 8, 2, 1, 2, 4, 2,
                "as bf16-mixed, with products in FP8 and their inputs kept in FP8 (Transformer Engine)",
            ),
            Precision(
                "fp8-v3", "fp8", 1, 2, 4, 4, 4, 2, 1, 1, 4, 1,
                "DeepSeek-V3 (arXiv 2412.19437, section 3.3): FP8 weights in products, BF16 moments, FP32 gradients and master weights,"
                " FP8 dispatch to experts",
            ),
            Precision("pure-bf16", "bf16", 2, 2, 2, 0, 4, 2, 2, 2, 2, 2, "8 bytes a parameter, all BF16, no master weights"),
            Precision("fp32", "fp32", 4, 4, 4, 0, 8, 4, 4, 4, 4, 4, "16 bytes a parameter, all FP32: the weight is its own master"),
        )
    }
)  # fmt: skip


def precision(name: str) -> Precision:
    """A policy by name. Raises RequestError with the nearest."""
    if name not in PRECISIONS:
        raise RequestError(f"There is no precision '{name}'{nearest(name, PRECISIONS)}.")
    return PRECISIONS[name]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one chip of pipeline stage `stage`, by part.

    `activations` are those of the layers, `head` what the loss keeps (logits and their input), `workspace` what lives for a moment: a layer being
    recomputed, weights and gradients gathered by ZeRO-3.
    """

    weights: float
    gradients: float
    master: float
    moments: float
    activations: float
    head: float
    workspace: float
    stage: int = 0

    @property
    def states(self) -> float:
        """Weights, gradients and optimizer."""
        return self.weights + self.gradients + self.master + self.moments

    @property
    def total(self) -> float:
        return self.states + self.activations + self.head + self.workspace

    def parts(self) -> dict[str, float]:
        """Bytes by the name of the part."""
        names = ("weights", "gradients", "master", "moments", "activations", "head", "workspace")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, float]:
        """The parts, their `total`, and the `stage` that is the fullest."""
        return {**self.parts(), "total": self.total, "stage": self.stage}


def layer_activations(
    layer: Layer, hidden: int, layout: Layout, context: int, policy: Precision, *, dropout: bool = False
) -> float:
    """Bytes that one token of one layer leaves on a chip for backward (a token of a sequence split over `cp` lies on one of them)."""
    t, wide, low = layout.tp, policy.activation, policy.linear_input
    split = layout.tp if layout.sequence_parallel else 1
    if layout.recompute == "full":
        return wide * hidden / split
    keep = layout.recompute != "pointwise"
    masks = (2 * hidden / split) if dropout else 0.0
    norms = 2 * wide * hidden / split
    inputs = 2 * low * hidden / split if keep else 0.0
    return (
        norms
        + inputs
        + masks
        + _attention(layer, t, layout, context, policy, dropout)
        + _feed_forward(layer, hidden, t, split, policy, keep)
    )


def _attention(layer: Layer, t: int, layout: Layout, context: int, policy: Precision, dropout: bool) -> float:
    a, wide, low = layer.attention, policy.activation, policy.linear_input
    queries, keys = a.heads * a.head_dim / t, max(a.kv_heads / t, 1) * (a.head_dim + a.value_dim)
    latents = 0.0
    if a.kind == "mla":
        keys = a.heads * (a.head_dim + a.value_dim) / t
        ranks = (a.q_rank or 0) + (a.kv_rank or 0)
        latents = wide * (ranks + (a.rope_dim or 0))  # before their norms, on each tensor-parallel chip
        if layout.recompute == "pointwise":
            queries = keys = 0.0
        else:
            latents += low * ranks
    out = low * a.heads * a.value_dim / t
    core = 4 * a.heads / t  # flash attention keeps one FP32 number a row
    if not layout.flash:
        scores = wide + (1 + wide if dropout else 0)  # softmax; mask and output of dropout
        core = scores * a.heads * context / t if layout.recompute == "none" else 0.0
    return latents + wide * (queries + keys) + out + core


def _feed_forward(layer: Layer, hidden: int, t: int, split: int, policy: Precision, keep: bool) -> float:
    f, wide, low = layer.feed_forward, policy.activation, policy.linear_input
    before = (2 if f.gated else 1) * (wide if keep else low)
    after = low if keep else 0.0
    if f.kind == "dense":
        return f.hidden * (before + after) / t
    routed = f.active * (hidden * (policy.dispatched + (wide if keep else 0.0)) + f.hidden * (before + after)) / split
    return routed + f.shared * f.shared_hidden * (before + after) / t


def training_memory(
    numbers: Numbers,
    stages: tuple[Stage, ...],
    layout: Layout,
    policy: Precision,
    *,
    context: int,
    micro_batches: int,
    dropout: bool = False,
    stage: int | None = None,
) -> Memory:
    """The memory of the fullest stage, or of the given one. `stages` is what `layout.on_chips` gives."""
    chosen = (
        distinct(stages) if stage is None else {stage: stages[stage]}
    )  # of equal stages the first has the most in flight
    tokens = layout.micro_batch * context / layout.cp
    kept: dict[int, float] = {}  # bytes that one micro-batch leaves of each kind of layer
    working = 0.0  # the most that is computed again at once
    whole = layout if layout.recompute == "none" else replace(layout, recompute="none")
    for found in chosen.values():
        for layer, _ in found.layers:
            if id(layer) not in kept:
                left = layer_activations(layer, numbers.hidden, layout, context, policy, dropout=dropout)
                kept[id(layer)] = left * tokens
                if layout.recompute != "none":
                    full = layer_activations(layer, numbers.hidden, whole, context, policy, dropout=dropout)
                    working = max(working, (full - left) * tokens)
    split = layout.tp if layout.sequence_parallel else 1
    # section 4.3 of arXiv 2205.05198: inputs of the last norm and of the head, FP32 logits
    row = 2 * policy.activation * numbers.hidden / split + 4 * numbers.vocab / layout.tp
    held = []
    for index, found in chosen.items():
        weights, gradients, master, moments = states(found, layout, policy)
        flying = layout.in_flight(index, micro_batches) / layout.directions
        gathered = _gathered(numbers, found, layout, policy) if layout.zero == 3 else 0.0
        held.append(
            Memory(
                weights=weights,
                gradients=gradients,
                master=master,
                moments=moments,
                activations=sum(n * kept[id(layer)] for layer, n in found.layers) * flying,
                head=found.heads * row * tokens,
                workspace=working + gathered,
                stage=index,
            )
        )
    return max(held, key=lambda memory: memory.total)


def states(stage: Stage, layout: Layout, policy: Precision) -> tuple[float, float, float, float]:
    """Bytes of weights, gradients, master weights and moments on a chip of a stage (as `layout.on_chips` gives it)."""
    dense, tables, routed = stage.dense / layout.tp, stage.tables / layout.tp, stage.routed / layout.ep
    same, same_experts, zero = layout.dp * layout.cp, layout.experts_replicas, layout.zero

    def sharded(size: float, size_of_tables: float, replicas: int) -> float:
        d, x = (same * replicas, same_experts * replicas) if replicas else (1, 1)
        return (size * dense + size_of_tables * tables) / d + size * routed / x

    weights = sharded(policy.weight, policy.wide, 1 if zero >= 3 else 0)
    gradients = sharded(policy.gradient, policy.gradient, 1 if zero >= 2 else 0)
    # with "dualpipe" the chips of a stage and of its mirror image hold the same weights, so they share one optimizer
    replicas = layout.directions if zero >= 1 else 0
    master = sharded(policy.master, policy.master, replicas)
    return weights, gradients, master, sharded(policy.moments, policy.moments, replicas)


def _gathered(numbers: Numbers, stage: Stage, layout: Layout, policy: Precision) -> float:
    """What ZeRO-3 holds for a moment: the weights of two layers and the gradients of one, or those of the tables."""
    if layout.dp * layout.cp == 1 and layout.experts_replicas == 1:
        return 0.0
    largest = 0.0
    for layer, _ in stage.layers:
        routed = layer.feed_forward.experts * layer.feed_forward.expert_parameters(numbers.hidden)
        largest = max(largest, (layer.parameters(numbers.hidden) - routed) / layout.tp + routed / layout.ep)
    tables = stage.tables / layout.tp * (policy.gathered + policy.reduced)
    return max(largest * (2 * policy.gathered + policy.reduced), tables)
