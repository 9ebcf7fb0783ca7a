"""What a fleet costs and could earn in a day: DeepSeek's published day, and the same sum with numbers of one's own.

    cost = nodes x chips x 24 h x rent        revenue = sum of tokens x list price        margin = (revenue - cost) / cost

DeepSeek (open-infra-index, day 6) gives $87,072, $562,027 and 545 %. Its token counts are rounded to a billion, and from them the sum is
$562,100: 0.013 % more. The publication says itself that real revenue is much lower (V3 is cheaper, some services are free, nights are
discounted).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trilaw.core.errors import RequestError, nearest
from trilaw.planner.anchors import anchor
from trilaw.planner.sheet import Sheet

# Argument of `economics` -> published figure.
PUBLISHED = {
    "nodes": "deepseek_nodes",
    "price_per_hour": "deepseek_price_per_hour",
    "hit_tokens": "deepseek_hit_tokens",
    "miss_tokens": "deepseek_miss_tokens",
    "output_tokens": "deepseek_output_tokens",
    "usd_hit": "deepseek_usd_hit",
    "usd_miss": "deepseek_usd_miss",
    "usd_output": "deepseek_usd_output",
}


@dataclass(frozen=True)
class Economics:
    """A day of a fleet, in dollars. `margin` is profit over cost (5.45 = 545 %). `published` is DeepSeek's own cost, revenue and margin."""

    usd_cost: float
    usd_revenue: float
    margin: float
    chips: float
    published: Mapping[str, float]
    note: str
    sheet: Sheet = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Every field by name, the sheet as lines and assumptions."""
        return {
            "usd_cost": self.usd_cost,
            "usd_revenue": self.usd_revenue,
            "margin": self.margin,
            "chips": self.chips,
            "published": dict(self.published),
            "note": self.note,
            "sheet": self.sheet.to_json(),
        }


def economics(*, chips_per_node: int = 8, **given: float) -> Economics:
    """A day of a fleet: DeepSeek's where nothing is given.

    nodes in use on average, price_per_hour of a chip, hit_tokens (input found in the cache), miss_tokens and output_tokens of a day,
    usd_hit, usd_miss and usd_output per million of them.
    Raises RequestError for an unknown name or a number that is negative or not finite.
    """
    sheet = Sheet()
    values = {}
    for name, number in given.items():
        if name not in PUBLISHED:
            raise RequestError(f"'{name}' is no quantity of a fleet's day{nearest(name, PUBLISHED)}.")
        if not (math.isfinite(number) and number >= 0):
            raise RequestError(f"{name} is {number:g}, it must be a finite number of at least 0.")
    for name, source in PUBLISHED.items():
        found = anchor(source)
        value = float(given.get(name, found.value))
        values[name] = sheet.put(
            name, value, found.unit, found.what if name not in given else "given by you", found.source
        )
    if not (values["nodes"] > 0 and values["price_per_hour"] > 0 and chips_per_node > 0):
        raise RequestError("A fleet's day needs at least one node and a price above 0: margins are shares of the cost.")
    chips = values["nodes"] * chips_per_node
    cost = sheet.put("cost", chips * 24 * values["price_per_hour"], "$/day", "nodes x chips x 24 h x price_per_hour")
    revenue = sheet.put(
        "revenue",
        sum(values[f"{kind}_tokens"] * values[f"usd_{kind}"] for kind in ("hit", "miss", "output")) / 1e6,
        "$/day",
        "hit x usd_hit + miss x usd_miss + output x usd_output",
    )
    margin = sheet.put("margin", (revenue - cost) / cost, "share of cost", "(revenue - cost) / cost")
    published = {name: anchor(f"deepseek_{name}").value for name in ("cost", "revenue", "margin")}
    note = "Revenue if every token were billed at the list price; DeepSeek says that its own is much lower."
    if not given:
        off = 100 * (revenue / published["revenue"] - 1)
        note += (
            f" Published: ${published['revenue']:,.0f}; from the published token counts, which are rounded to a billion, "
            f"the sum is ${revenue:,.0f} ({off:+.3f} %)."
        )
    return Economics(cost, revenue, margin, chips, published, note, sheet)
