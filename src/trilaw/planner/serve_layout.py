"""How a served model is spread over chips: how many share the attention, how many share the experts.

A replica is a group of chips that holds the weights once. Attention and dense layers are cut over `tensor` chips (tensor parallelism);
the routed experts are spread over `expert` chips (expert parallelism), and the `expert / tensor` groups in between each serve their
own sequences (data-parallel attention). A dense model has expert = 1.

The published DeepSeek-V3 deployments (arXiv 2412.19437 section 3.4; the day-6 note of DeepSeek's open-infra-index, February 2025) are
in DEPLOYMENTS; `redundant_experts` follows the rule that they share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trilaw.core.errors import RequestError

if TYPE_CHECKING:
    from trilaw.core.numbers import Numbers


@dataclass(frozen=True, slots=True)
class ServeLayout:
    """`tensor` chips share each attention group, `expert` chips the routed experts; `redundant` copies of busy experts are added."""

    tensor: int = 1
    expert: int = 1
    redundant: int = 0

    @property
    def chips(self) -> int:
        """Chips of one replica."""
        return max(self.tensor, self.expert)

    @property
    def groups(self) -> int:
        """Attention groups of one replica, each with its own sequences."""
        return self.chips // self.tensor

    def experts_per_chip(self, experts: int) -> float:
        """Expert slots on a chip, redundant copies counted."""
        return (experts + self.redundant) / self.expert if experts else 0.0

    def __str__(self) -> str:
        parts = [f"TP{self.tensor}"] if self.expert == 1 or self.tensor > 1 else []
        if self.expert > 1:
            parts += [f"DP{self.groups}", f"EP{self.expert}"]
        return " ".join(parts) + (f" (+{self.redundant} experts)" if self.redundant else "")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A published way to serve DeepSeek-V3. `routed` and `shared` are experts on one chip."""

    name: str
    layout: ServeLayout
    routed: int
    shared: int
    about: str
    source: str


WIDEST_TENSOR = 16  # chips that are tried for one attention group where the fast link joins fewer

DEPLOYMENTS = (
    Deployment(
        "v3-prefill",
        ServeLayout(tensor=4, expert=32, redundant=32),
        routed=9,
        shared=1,
        about="4 nodes, 32 chips: attention TP4 with sequence parallelism, DP8; 8 experts and 1 redundant one a chip",
        source="arXiv 2412.19437, section 3.4.1",
    ),
    Deployment(
        "v3-decode",
        ServeLayout(tensor=4, expert=320, redundant=64),
        routed=1,
        shared=0,
        about="40 nodes, 320 chips: attention TP4, DP80; one expert a chip, 64 of the chips hold redundant and shared experts",
        source="arXiv 2412.19437, section 3.4.2",
    ),
    Deployment(
        "production-prefill",
        ServeLayout(tensor=1, expert=32, redundant=32),
        routed=9,
        shared=1,
        about="4 nodes, EP32 and DP32, 32 redundant experts",
        source="DeepSeek open-infra-index, 202502OpenSourceWeek, day 6",
    ),
    Deployment(
        "production-decode",
        ServeLayout(tensor=1, expert=144, redundant=32),
        routed=2,
        shared=1,
        about="18 nodes, EP144 and DP144, 32 redundant experts",
        source="DeepSeek open-infra-index, 202502OpenSourceWeek, day 6",
    ),
)


def redundant_experts(experts: int, chips: int, domain: int) -> int:
    """Copies of busy experts: the fewest that give every chip equally many slots, and an eighth of the experts beyond one domain.

    It gives DeepSeek-V3's published numbers: 32 over 32 chips and over 144, 64 over 320.
    """
    least = experts // 8 if chips > domain else 0
    return least + -(experts + least) % chips


def routed_experts(numbers: Numbers) -> int:
    """Routed experts of a layer (0 for a dense model)."""
    return max((layer.feed_forward.experts for layer in numbers.layers if layer.feed_forward.kind == "moe"), default=0)


def candidates(numbers: Numbers, count: int, domain: int) -> Iterator[ServeLayout]:
    """Layouts worth trying on `count` chips: tensor degrees inside a domain that divide the heads, expert degrees beyond it."""
    experts = routed_experts(numbers)
    heads = min(layer.attention.heads for layer in numbers.layers)
    # Beyond a domain tensor parallelism is slow, and the time says so; but a dense model may fit in no other way.
    tensors = [t for t in _powers(min(count, max(domain, WIDEST_TENSOR))) if heads % t == 0]
    if not experts:
        yield from (ServeLayout(tensor=t) for t in tensors)
        return
    wide = experts + experts // 4  # one slot a chip, a quarter of them copies, is the widest that was published
    for t in tensors:
        spreads = {e for e in (*_powers(count), count, 144) if t <= e <= min(count, wide) and e % t == 0}
        for e in sorted(spreads):
            yield ServeLayout(tensor=t, expert=e, redundant=redundant_experts(experts, e, domain) if e > 1 else 0)


def check_layout(layout: ServeLayout, numbers: Numbers, count: int) -> None:
    """Raises RequestError for a layout that does not suit the model or does not fit on `count` chips."""
    experts = routed_experts(numbers)
    if min(layout.tensor, layout.expert) < 1 or layout.redundant < 0:
        raise RequestError(f"The layout {layout} has a degree below 1.")
    if not experts and (layout.expert > 1 or layout.redundant):
        raise RequestError(f"The layout {layout} spreads experts, but {numbers.name} is a dense model: use expert=1.")
    if layout.chips % layout.tensor:
        raise RequestError(
            f"The layout {layout} does not hold: {layout.expert} chips cannot be cut into groups of {layout.tensor}."
        )
    if experts and (experts + layout.redundant) % layout.expert:
        raise RequestError(
            f"The layout {layout} does not hold: {experts} experts and {layout.redundant} copies do not divide over "
            f"{layout.expert} chips; {-(experts) % layout.expert} copies would."
        )
    if layout.chips > count:
        raise RequestError(f"The layout {layout} needs {layout.chips} chips, there are {count}.")


def _powers(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length()) if 2**i <= most]
