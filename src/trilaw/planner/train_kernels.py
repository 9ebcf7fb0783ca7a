"""How long a chip computes on one token of one layer in training: products, attention, pointwise work; forward, backward and recomputed.

    products    6 FLOPs a weight that a token passes / (peak x share), 8 where a layer is computed again; routed experts: x `train_experts`,
                since many small products run side by side
    attention   FLOPs of the query-key pairs / (16-bit peak x share). Flash attention computes its scores again in backward, which makes that 2.5
                forward (arXiv 2307.08691, section 4.1); without it the full square is computed, at the speed of products
    pointwise   bytes read and written by norms, residuals, activations, rotary positions, casts to FP8, softmax / (memory bandwidth x share);
                backward moves twice what forward does
    launch      kernels are queued while others run, so launching costs only where all kernels of a layer are shorter than it: a layer of a
                micro-batch takes max(the work above, `train_launch`), a third more launches where the layer is computed again

The shares are assumptions (`train_...` in assumptions.toml), each with the rows that it was calibrated on; the rest is arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError
from trilaw.core.numbers import causal_pairs
from trilaw.planner.network import Links

if TYPE_CHECKING:
    from trilaw.core.numbers import Layer
    from trilaw.planner.hardware import Chip
    from trilaw.planner.layout import Layout
    from trilaw.planner.memory import Precision
    from trilaw.planner.sheet import Sheet

A100 = ("A100", "A800")  # chips whose products were calibrated apart


def share(sheet: Sheet, name: str, *, zero: bool = False) -> float:
    """An assumption that is a share: at most 1, and above 0 unless `zero` allows it. Raises RequestError otherwise."""
    value = sheet.assume(name)
    if value > 1 or (value == 0 and not zero):
        raise RequestError(
            f"The assumption '{name}' is {value:g}, it is a share: {'at least' if zero else 'above'} 0, at most 1."
        )
    return value


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a chip reaches in training: FLOP/s and bytes/s after the assumed shares, and the other assumptions of a step."""

    products: float
    wide: float  # 16-bit products: head and, without flash attention, scores
    attention: float
    memory: float
    launch: float  # seconds to launch the kernels of a layer, forward and backward
    links: Links
    experts: float
    exposed_tensor: float
    exposed_expert: float
    exposed_other: float
    beside_dualpipe: float
    node_limit: float
    dropout: bool

    @staticmethod
    def of(chip: Chip, policy: Precision, sheet: Sheet) -> Speeds:
        """From the chip's table and the assumptions. Raises RequestError for a format that the chip lacks or a share out of range."""
        wide_format = "fp32" if policy.products == "fp32" else "bf16"
        matmul = share(sheet, "train_matmul_a100" if chip.name.startswith(A100) else "train_matmul")
        low = share(sheet, "train_matmul_low") if policy.products == "fp8" else matmul
        return Speeds(
            products=chip.rate(policy.products) * low,
            wide=chip.rate(wide_format) * matmul,
            attention=chip.rate(wide_format) * share(sheet, "train_attention"),
            memory=chip.memory_bandwidth.value * share(sheet, "train_bandwidth"),
            launch=sheet.assume("train_launch"),
            links=Links.of(chip, share(sheet, "train_link")),
            experts=share(sheet, "train_experts"),
            exposed_tensor=share(sheet, "train_exposed_tensor", zero=True),
            exposed_expert=share(sheet, "train_exposed_expert", zero=True),
            exposed_other=share(sheet, "train_exposed_other", zero=True),
            beside_dualpipe=share(sheet, "train_dualpipe"),
            node_limit=sheet.assume("train_node_limit"),
            dropout=sheet.assume("train_dropout") > 0,
        )


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds on a chip, forward, backward and recomputed together, by kind; `launch` is the time that it waits for the next kernel."""

    products: float = 0.0
    attention: float = 0.0
    pointwise: float = 0.0
    launch: float = 0.0

    @property
    def seconds(self) -> float:
        return self.products + self.attention + self.pointwise + self.launch

    def __add__(self, other: Work) -> Work:
        return Work(
            self.products + other.products,
            self.attention + other.attention,
            self.pointwise + other.pointwise,
            self.launch + other.launch,
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.products * times, self.attention * times, self.pointwise * times, self.launch * times)


def product_flops(layer: Layer, hidden: int, layout: Layout) -> tuple[float, float]:
    """FLOPs of one token's products on a chip, forward, backward and recomputed: of routed experts, and of everything else."""
    a, f = layer.attention, layer.feed_forward
    times = 8 if layout.recompute == "full" else 6
    experts = f.active * f.expert_parameters(hidden)
    plain = times * (layer.products(hidden) - experts)
    if a.kind == "mla" and layout.recompute == "pointwise":  # the products out of the latents are computed again
        keys_values = (a.kv_rank or 0) * a.heads * (a.head_dim - (a.rope_dim or 0) + a.value_dim)
        plain += 2 * (keys_values + (a.q_rank or 0) * a.heads * a.head_dim)
    return times * experts / layout.tp, plain / layout.tp


def pointwise_bytes(layer: Layer, hidden: int, layout: Layout, policy: Precision) -> float:
    """Bytes that the pointwise kernels of a layer read and write for one token in a forward pass, softmax without flash attention left out."""
    a, f, t = layer.attention, layer.feed_forward, layout.tp
    split = t if layout.sequence_parallel else 1
    numbers = 8 * hidden / split  # two norms, each with its residual: two reads, two writes
    numbers += (
        2 * a.head_dim * max((a.heads + a.kv_heads) / t, 1)
    )  # rotary positions: queries and keys read and written
    inputs = 2 * hidden / split + a.heads * a.value_dim / t
    through = 3 if f.gated else 2  # activation: read one or two, write one
    if f.kind == "dense":
        numbers += through * f.hidden / t
        inputs += f.hidden / t
    else:  # dispatch copies a token to its experts, combine sums what comes back: a read and a write each
        numbers += f.active * (through * f.hidden + 4 * hidden) / split + f.shared * through * f.shared_hidden / t
        inputs += f.active * (f.hidden + hidden) / split + f.shared * f.shared_hidden / t
    casts = inputs * (policy.activation + 2) if policy.products == "fp8" else 0.0  # read, write it and its transpose
    return numbers * policy.activation + casts


def layer_work(layer: Layer, hidden: int, layout: Layout, context: int, policy: Precision, speeds: Speeds) -> Work:
    """Seconds on ONE token of a layer, forward, backward and recomputed."""
    a, t, recompute = layer.attention, layout.tp, layout.recompute
    full = recompute == "full"
    experts, plain = product_flops(layer, hidden, layout)
    products = plain / speeds.products + experts / (speeds.products * speeds.experts)
    moved = pointwise_bytes(layer, hidden, layout, policy) / speeds.memory
    pointwise = moved * (4 if full or recompute == "pointwise" else 3)
    if layout.flash:
        scores = a.pair_flops() * causal_pairs(context, 0, a.window) / context / t / speeds.attention
        attention = scores * (4.5 if full else 3.5)
    else:  # scores are written, read and written by the softmax and read again; dropout reads, writes and makes a mask besides
        times = 4 if recompute != "none" else 3
        attention = a.pair_flops() * context / t / speeds.wide * times
        passes = 6.5 if speeds.dropout else 4
        pointwise += times * passes * policy.activation * a.heads * context / t / speeds.memory
    return Work(products, attention, pointwise)


def head_work(hidden: int, vocab: int, layout: Layout, speeds: Speeds) -> Work:
    """Seconds on ONE token of the head: 16-bit products; logits written, read by the loss in FP32, their gradient written."""
    products = 6 * hidden * vocab / layout.tp / speeds.wide
    return Work(products=products, pointwise=12 * vocab / layout.tp / speeds.memory)
