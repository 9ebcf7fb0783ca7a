"""How long one training step takes: computing, exposed traffic, the pipeline's bubble, the optimizer.

    step = m x slowest + bubble + exposed data traffic + optimizer

for m micro-batches of a pipeline, where `slowest` is forward and backward (F + B) of one micro-batch on the slowest stage: computing, or launching where
that takes longer (train_kernels.py), and the part of its traffic (network.py) that no computing hides. The pipeline fills and drains once, which costs F + B of all other
stages with gpipe and 1f1b (arXiv 2104.04473, section 2.2.1), 1/v of that interleaved (2.2.2); with zb1p (p-1)(F+B-2W) and with dualpipe
(p/2-1)(F&B+B-3W) (arXiv 2412.19437, table 2), where F&B is an overlapped pair and B = 2 F, W = F: a third of (p-1)(F+B), and
(p/2-1) 2/3 (F+B). Dualpipe hides expert traffic behind computing, and takes some of the chip's units for it (`train_dualpipe`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trilaw.planner.layout import distinct
from trilaw.planner.network import Flow, traffic
from trilaw.planner.train_kernels import Speeds, Work, head_work, layer_work

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers
    from trilaw.planner.layout import Layout, Stage
    from trilaw.planner.memory import Memory, Precision


@dataclass(frozen=True, slots=True)
class Step:
    """One training step, in seconds, as the chips of the slowest stage see it; `flows` is that stage's traffic."""

    products: float
    attention: float
    pointwise: float
    launch: float  # waiting for kernels to be launched
    exposed: tuple[tuple[str, float], ...]  # by kind of flow
    bubble: float
    optimizer: float
    flows: tuple[Flow, ...]

    @property
    def seconds(self) -> float:
        return sum(self.parts().values())

    @property
    def communication(self) -> float:
        """Exposed traffic."""
        return sum(seconds for _, seconds in self.exposed)

    def parts(self) -> dict[str, float]:
        """Seconds by name; they add up to the step."""
        return {
            "products": self.products,
            "attention": self.attention,
            "pointwise": self.pointwise,
            "launch": self.launch,
            "communication": self.communication,
            "bubble": self.bubble,
            "optimizer": self.optimizer,
        }

    @property
    def binds(self) -> str:
        """What most of the step goes to: "products", "attention", "pointwise", "launch", "bubble", "optimizer", or traffic with its link.

        Traffic is named as "tensor traffic, scale-up link".
        """
        parts = {name: seconds for name, seconds in self.parts().items() if name != "communication"}
        links: dict[str, str] = {flow.kind: flow.link for flow in sorted(self.flows, key=lambda flow: flow.seconds)}
        for kind, seconds in self.exposed:
            parts[f"{kind} traffic, {links[kind]} link"] = seconds
        return max(parts, key=lambda name: parts[name])

    @property
    def busiest_link(self) -> str:
        """The link that is busy longest, hidden or not; "" on a single chip."""
        busy: dict[str, float] = {}
        for flow in self.flows:
            busy[flow.link] = busy.get(flow.link, 0.0) + flow.seconds
        return max(busy, key=lambda link: busy[link]) if busy else ""


def stage_work(
    numbers: Numbers,
    stage: Stage,
    layout: Layout,
    context: int,
    policy: Precision,
    speeds: Speeds,
    known: dict[int, Work] | None = None,
) -> Work:
    """Computing of one micro-batch that passes all layers of a stage. `known` keeps what was worked out for a layer."""
    work, known = Work(), {} if known is None else known
    tokens = layout.micro_batch * context / layout.cp / (speeds.beside_dualpipe if layout.schedule == "dualpipe" else 1)
    launches = speeds.launch * (4 / 3 if layout.recompute == "full" else 1)
    for layer, count in stage.layers:
        if id(layer) not in known:
            busy = layer_work(layer, numbers.hidden, layout, context, policy, speeds) * tokens
            known[id(layer)] = busy + Work(launch=max(0.0, launches - busy.seconds))
        work += known[id(layer)] * count
    if stage.heads:
        work += head_work(numbers.hidden, numbers.vocab, layout, speeds) * (stage.heads * tokens)
        work += Work(products=6 * stage.extra_products / layout.tp / speeds.products) * tokens
    return work


def _exposed(flow: Flow, layout: Layout, compute: float, speeds: Speeds) -> float:
    """Seconds of a flow that nothing hides. What can be hidden needs computing to hide behind."""
    if flow.kind == "tensor":
        return flow.seconds * speeds.exposed_tensor
    if flow.kind == "expert":
        share = 0.0 if layout.schedule == "dualpipe" else speeds.exposed_expert
    else:
        share = speeds.exposed_other
    return max(flow.seconds * share, flow.seconds - compute)


def step_time(
    numbers: Numbers,
    stages: tuple[Stage, ...],
    layout: Layout,
    policy: Precision,
    speeds: Speeds,
    *,
    memory: Memory,
    context: int,
    micro_batches: int,
) -> Step:
    """The time of one step. `stages` is what `layout.on_chips` gives, `micro_batches` those of one pipeline, `memory` the fullest chip."""
    m = micro_batches / layout.directions
    known: dict[int, Work] = {}
    loads = {
        id(stage): _load(numbers, stage, layout, policy, speeds, context, m, known)
        for stage in distinct(stages).values()
    }
    total = sum(loads[id(stage)].seconds for stage in stages)
    slowest = max(loads.values(), key=lambda load: load.seconds)
    others = total - slowest.seconds  # F + B of one micro-batch on all other stages
    p = layout.pp
    if layout.schedule == "zb1p":
        bubble = others / 3
    elif layout.schedule == "dualpipe":  # a chip's load is that of two stages
        bubble = others / 2 / (p - 1) * (p / 2 - 1) * 2 / 3
    else:
        bubble = others / layout.interleave
    work = slowest.work
    return Step(
        products=m * work.products,
        attention=m * work.attention,
        pointwise=m * work.pointwise,
        launch=m * work.launch,
        exposed=slowest.exposed,
        bubble=bubble,
        optimizer=_optimizer(memory, policy, speeds),
        flows=slowest.flows,
    )


@dataclass(frozen=True, slots=True)
class _Load:
    """A stage's part of a step: its computing of one micro-batch, its flows of all, and what of them is exposed, in seconds."""

    work: Work
    flows: tuple[Flow, ...]
    exposed: tuple[tuple[str, float], ...]
    seconds: float  # of one micro-batch, without data traffic, which comes once a step


def _load(
    numbers: Numbers, stage: Stage, layout: Layout, policy: Precision, speeds: Speeds, context: int, m: float,
    known: dict[int, Work],
) -> _Load:  # fmt: skip
    work = stage_work(numbers, stage, layout, context, policy, speeds, known)
    flows = traffic(
        numbers, stage, layout, speeds.links, policy, context=context, micro_batches=m, node_limit=speeds.node_limit
    )
    exposed: dict[str, float] = {}
    for flow in flows:
        exposed[flow.kind] = exposed.get(flow.kind, 0.0) + _exposed(flow, layout, m * work.seconds, speeds)
    within = sum(seconds for kind, seconds in exposed.items() if kind != "data")
    return _Load(work, flows, tuple(exposed.items()), work.seconds + within / m)


def _optimizer(memory: Memory, policy: Precision, speeds: Speeds) -> float:
    """Reading gradients and writing weights, reading and writing the optimizer's own state, for the weights that the chip updates."""
    updated = memory.moments / policy.moments
    own = 2 * (policy.master + policy.moments) + (0 if policy.master else policy.weight)
    return updated * (policy.gradient + policy.weight + own) / speeds.memory
