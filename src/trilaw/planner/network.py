"""What a chip sends in one training step, for which split, over which link, and how long the link is busy with it.

Bytes are those that one chip receives. A ring all-gather or reduce-scatter of S bytes over g chips moves S (g-1)/g a chip, an all-reduce twice
that (arXiv 1910.02054, section 7). Of a step of m micro-batches, n tokens of each on a chip, hidden width h, l layers on the stage:

    tensor    4 collectives a layer forward and 4 backward, each of n h (arXiv 2205.05198, section 4.2.2); recomputing a layer repeats the forward ones.
              Attention takes half of them, the feed-forward part the other half (an expert layer without shared experts takes none for it)
    pipeline  n h activations forward and their gradients backward between neighbours, once for each chunk (arXiv 2104.04473, section 2.2)
    context   keys and values of the whole sequence once forward; both and their gradients backward (ring attention, arXiv 2310.01889)
    data      gradients: all-reduce without ZeRO, reduce-scatter with it, and the new weights gathered: once a step with ZeRO-1 and 2. ZeRO-3
              gathers weights forward and backward and scatters gradients in each micro-batch
    expert    dispatch and combine a layer, forward and again backward. A token goes once to each domain with an expert of it (at most
              `train_node_limit` domains, DeepSeek-V3's M = 4 nodes, arXiv 2412.19437, section 3.2.2) and inside it to each of its experts

A group inside one scale-up domain uses the fast link. A collective over several domains crosses the network with as many adapters as the
group has chips in a domain, so that its speed is min(fast link, members in a domain x adapter). All-to-all between experts uses both links at
once; the slower one is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trilaw.core.errors import RequestError

if TYPE_CHECKING:
    from trilaw.core.numbers import Layer, Numbers
    from trilaw.planner.hardware import Chip
    from trilaw.planner.layout import Layout, Stage
    from trilaw.planner.memory import Precision
    from trilaw.planner.sourced import Sourced

Link = Literal["scale-up", "scale-out"]
Kind = Literal["tensor", "pipeline", "context", "data", "expert"]


@dataclass(frozen=True, slots=True)
class Flow:
    """Traffic of one split: bytes a chip receives in a step, the link that carries it, its bytes/s, and the seconds that it is busy."""

    kind: Kind
    group: int  # chips that take part
    link: Link
    bytes: float
    bandwidth: float
    formula: str

    @property
    def seconds(self) -> float:
        return self.bytes / self.bandwidth if self.bytes else 0.0


@dataclass(frozen=True, slots=True)
class Links:
    """The links of one chip: bytes/s one way as reached in practice (0: no such link), and the chips of a fast domain."""

    scale_up: float
    scale_out: float
    domain: int
    chip: str = ""

    @staticmethod
    def of(chip: Chip, share: float) -> Links:
        """From the chip's table: what was measured of a link where a source says so, else `share` of what its data sheet says."""

        def reach(measured: Sourced | None, sheet: Sourced | None) -> float:
            if measured is not None:
                return measured.value
            return sheet.value * share if sheet is not None else 0.0

        up = reach(chip.scale_up_effective, chip.scale_up_bandwidth)
        out = reach(chip.scale_out_effective, chip.scale_out_bandwidth)
        return Links(up, out, int(chip.scale_up_size.value) if up else 1, chip.name)

    def carry(self, group: int, stride: int) -> tuple[Link, float]:
        """The link of a collective over `group` chips whose ranks lie `stride` apart, and its speed for each chip.

        Raises RequestError where the chip has no such link.
        """
        if stride * group <= self.domain and self.scale_up:
            return "scale-up", self.scale_up
        members = max(1, self.domain // stride)
        out = self.scale_out * members
        if not out:
            raise RequestError(
                f"{group} {self.chip} chips must talk over a network, and no source gives 'scale_out_bandwidth' of it:"
                " copy its table to a file of your own and add it."
            )
        return ("scale-up", self.scale_up) if 0 < self.scale_up <= out and members > 1 else ("scale-out", out)


def domains_reached(ep: int, domain: int, active: int, limit: float) -> tuple[float, float]:
    """Other domains that a token is sent to over the network, and copies of it moved inside domains, when its experts are drawn evenly.

    Of N domains, `active` draws reach N (1 - (1 - 1/N)^active) distinct ones (with replacement, a close upper count of the group's choice), no more
    than `limit` where it is above 0; (N - 1) / N of them are other ones.
    """
    inside = min(ep, domain)
    n = -(-ep // inside)
    reached = n * (1 - (1 - 1 / n) ** active)
    if limit > 0:
        reached = min(reached, limit)
    return reached * (n - 1) / n, active * (inside - 1) / inside


def traffic(
    numbers: Numbers,
    stage: Stage,
    layout: Layout,
    links: Links,
    policy: Precision,
    *,
    context: int,
    micro_batches: float,
    node_limit: float = 0,
) -> tuple[Flow, ...]:
    """The flows of a chip of `stage` (what `layout.on_chips` gives) in a step of `micro_batches` through each of its layers.

    Splits of degree 1 have none. Raises RequestError where the chip lacks a link that the layout needs.
    """
    h, m, e = numbers.hidden, micro_batches, policy.activation
    t, c, d = layout.tp, layout.cp, layout.dp
    tokens = layout.micro_batch * context / c
    again = 1 if layout.recompute == "full" else 0
    layers = stage.layers
    flows: list[Flow] = []
    if t > 1:
        halves = sum(n * (1 if x.feed_forward.kind == "moe" and not x.feed_forward.shared else 2) for x, n in layers)
        size = m * halves * 2 * (2 + again) * tokens * h * e * (t - 1) / t
        flows.append(
            Flow("tensor", t, *_sized(links.carry(t, 1), size), "m x l x 4 x (2 + recomputed) x n h x (tp-1)/tp")
        )
    if c > 1:
        cache = sum(
            n * min(x.attention.window or context, context) / context
            * max(x.attention.kv_heads / t, 1) * (x.attention.head_dim + x.attention.value_dim)
            for x, n in layers
        )  # fmt: skip
        size = m * (3 + again) * cache * tokens * (c - 1) * e
        flows.append(
            Flow("context", c, *_sized(links.carry(c, t), size), "m x (3 + recomputed) x keys and values x (cp-1)/cp")
        )
    if layout.ep > 1:
        flows += _expert(h, layers, layout, links, policy, m * tokens * (2 + again), node_limit)
    if layout.pp > 1:
        split = t if layout.sequence_parallel else 1
        size = m * 2 * layout.interleave * layout.directions * tokens * h * e / split
        link: tuple[Link, float] = (
            ("scale-up", links.scale_up) if t * c * d < links.domain else links.carry(2, links.domain)
        )
        flows.append(Flow("pipeline", layout.pp, *_sized(link, size), "m x 2 x v x n h"))
    flows += _data(stage, layout, links, policy, m)
    return tuple(flows)


def _sized(link: tuple[Link, float], size: float) -> tuple[Link, float, float]:
    return link[0], size, link[1]


def _expert(
    h: int,
    layers: tuple[tuple[Layer, int], ...],
    layout: Layout,
    links: Links,
    policy: Precision,
    tokens: float,
    limit: float,
) -> list[Flow]:
    out = inside = 0.0
    for layer, count in layers:
        if layer.feed_forward.kind == "moe":
            far, near = domains_reached(layout.ep, links.domain, layer.feed_forward.active, limit)
            out, inside = out + count * far, inside + count * near
    row = tokens / (layout.tp if layout.sequence_parallel else 1) * h * (policy.dispatched + policy.activation)
    formula = "m x l x (2 + recomputed) x n h x copies x (dispatch + combine bytes)"
    ways: list[tuple[tuple[Link, float], float]] = []
    if inside and links.scale_up:
        ways.append((("scale-up", links.scale_up), inside))
    if out:
        ways.append((links.carry(layout.ep, links.domain), out))
    found = [Flow("expert", layout.ep, *_sized(link, row * copies), formula) for link, copies in ways]
    return [max(found, key=lambda flow: flow.seconds)] if found else []


def _data(stage: Stage, layout: Layout, links: Links, policy: Precision, micro_batches: float) -> list[Flow]:
    flows = []
    for weights, group, stride in (
        ((stage.dense + stage.tables) / layout.tp, layout.dp * layout.cp, layout.tp),
        (stage.routed / layout.ep, layout.experts_replicas, layout.ep),
    ):
        if group == 1 or not weights:
            continue
        if layout.zero == 0:
            moved, words = 2 * policy.reduced, "2 x gradients x (g-1)/g"
        elif layout.zero < 3:
            moved, words = policy.reduced + policy.gathered, "(gradients + weights) x (g-1)/g"
        else:
            moved, words = (
                (policy.reduced + 2 * policy.gathered) * micro_batches,
                "m x (gradients + 2 x weights) x (g-1)/g",
            )
        size = weights * moved * (group - 1) / group
        flows.append(Flow("data", group, *_sized(links.carry(group, stride), size), words))
    return flows
