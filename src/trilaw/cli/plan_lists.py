"""The other pages of `trilaw plan` as text, at most 100 columns wide: chips, models, comparisons, datacentres, the validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trilaw.cli.plan_tables import WIDTH, Row, columns, days, facts, hanging, number, seconds, wrapped
from trilaw.core.ledger import count, money

if TYPE_CHECKING:
    from trilaw.planner.compare import CompareRow
    from trilaw.planner.datacentre import Claim, DatacentrePlan
    from trilaw.planner.export import Classification
    from trilaw.planner.hardware import Chip
    from trilaw.planner.prices import Price
    from trilaw.planner.sourced import Sourced
    from trilaw.planner.validation_row import ValidationRow

OFF = 0.15  # an error from which the reason is told


def chip_text(chip: Chip, prices: Sequence[Price], export: Classification) -> list[str]:
    """Every number of a chip with its source, then prices, then the export class."""
    names = f" (also {', '.join(chip.aliases)})" if chip.aliases else ""
    lines = wrapped(f"{chip.name}{names}, {chip.maker or 'maker unknown'}, {chip.released or 'date unknown'}")
    lines += [*(wrapped(chip.note) if chip.note else []), ""]
    found: list[tuple[str, Sourced]] = [(f"{format} products", speed) for format, speed in chip.flops.items()]
    found += [(words, value) for name, words in _QUANTITIES.items() if (value := getattr(chip, name)) is not None]
    found += [(f"rent, {p.provider}{' (default)' if p.default else ''}", p.usd_per_hour) for p in prices]
    sources: dict[str, int] = {}
    rows: list[Row] = []
    for name, value in found:
        mark = sources.setdefault(f"{value.source}, {value.date}", len(sources) + 1)
        said = f"{scaled(value, value.low)} to {scaled(value, value.high)}" if value.low != value.high else ""
        remark = "; ".join(part for part in (said, value.note) if part)
        rows.append((name, scaled(value), f"{remark} [{mark}]".strip()))
    lines += facts(rows)
    missing = [words for name, words in _QUANTITIES.items() if getattr(chip, name) is None and "measured" not in words]
    if missing:
        lines += wrapped(f"No source gives: {', '.join(missing)}.")
    if not prices:
        lines += wrapped("No source prices an hour of it.")
    lines += ["", "Sources"]
    for source, mark in sources.items():
        lines += wrapped(f"[{mark}] {source}", "  ")
    density = "unknown, no source gives the die" if export.density is None else f"{export.density:.2f}"
    lines += ["", f"Export rules of the United States on {export.on.isoformat()}"]
    rows = [
        ("TPP", number(export.tpp), f"performance density {density}"),
        ("class", export.eccn or "none", export.clause),
        ("licence", export.review, export.licence),
        ("rule", export.rule, ""),
    ]
    lines += [f"  {line}" for line in facts(rows, WIDTH - 2)]
    for note in export.notes:
        if note != chip.note:
            lines += wrapped(f"- {note}", "  ")
    return lines


_QUANTITIES = {
    "memory_bytes": "memory",
    "memory_bandwidth": "memory bandwidth",
    "node_size": "chips in a server",
    "scale_up_size": "chips in a domain of the fast link",
    "scale_up_bandwidth": "fast link, one way",
    "scale_up_effective": "fast link, as measured",
    "scale_out_bandwidth": "network, one way",
    "scale_out_effective": "network, as measured",
    "watts": "power of the chip",
    "all_in_watts": "power with its server",
    "die_mm2": "logic dies",
}


def scaled(quantity: Sourced, value: float | None = None) -> str:
    """A quantity (or a bound of it) in the units of a data sheet."""
    value = quantity.value if value is None else value
    if quantity.unit == "$/h":
        return f"${value:.2f}/h"
    if quantity.unit in ("FLOP/s", "OP/s", "B/s", "B"):
        for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
            if value >= 0.9995 * size and not (quantity.unit == "B" and prefix == "T"):
                return f"{value / size:,.4g} {prefix}{quantity.unit}"
    return f"{value:,g} {quantity.unit}"


def compare_text(rows: Sequence[CompareRow]) -> list[str]:
    """A table of chips, then what binds, why not, and the licence of each."""
    target = {"r1-pipeline": "DeepSeek-R1's pipeline from nothing", "answers": "questions answered by DeepSeek-R1"}
    lines = [f"{target[rows[0].target]}, {rows[0].count:,} of each chip", ""]
    head = ("chip", "hours", "chip-hours", "cost", "energy", "of", "peak alone", "class")
    table = [head]
    for row in rows:
        possible = row.hours is not None
        table.append(
            (
                row.chip,
                number(row.hours) if row.hours is not None else "no",
                number(row.gpu_hours) if row.gpu_hours is not None else "",
                money(row.usd) if row.usd is not None else "unknown" if possible else "",
                f"{number(row.energy_kwh / 1000)} MWh" if row.energy_kwh is not None else "unknown" if possible else "",
                row.energy_of.removeprefix("chip ").replace("and server", "with server") if possible else "",
                f"{number(row.floor_hours)} h",
                row.eccn or "none",
            )
        )
    lines += [*columns(table, right=(1, 2, 3, 4, 6)), ""]
    for row in rows:
        parts = ", ".join(f"{name} {number(hours)} h" for name, hours in row.parts.items())
        solved = "" if row.k is None else f" With k = {row.k}, {100 * (row.accuracy or 0):.1f} % are solved."
        did = f"{parts}; binds: {row.binds}.{solved}" if row.possible else f"it cannot be done. {row.why}"
        lines += wrapped(f"{row.chip}: {did}", "  ")
    lines += ["", f"Export rules of the United States on {rows[0].on}"]
    licences: dict[str, list[str]] = {}
    for row in rows:
        licences.setdefault(row.licence, []).append(row.chip)
    for licence, chips in licences.items():
        lines += wrapped(f"{', '.join(chips)}: {licence}", "  ")
    return lines


def datacentre_text(plan: DatacentrePlan, claim: Claim | None) -> list[str]:
    """What a datacentre holds and does, beside published figures."""
    watts, serve = plan.watts, plan.serve
    rows: list[Row] = [
        ("money", f"${plan.capex / 1e9:,.4g}B", f"{money(plan.usd_per_chip)} a chip, building and network with it"),
        ("power", f"{watts['IT'] / 1e9:.3g} GW of IT", f"{watts['facility'] / 1e9:.3g} GW of facility, {watts['utility'] / 1e9:.3g} GW of utility"),
        ("chips", number(plan.chips), f"{number(plan.watts_per_chip['IT'])} W each of IT power; {plan.flops:.3g} FLOP/s dense 16-bit peak"),
        ("chip-hour", money(plan.usd_per_chip_hour), "cost of ownership: capital over its life, energy, operation"),
        ("V3's pre-training", seconds(3600 * plan.v3_hours), f"of the whole, were one run able to fill it; {number(plan.v3_per_day)} a day"),
        ("R1 from V3's base", seconds(3600 * plan.r1_hours), f"the same; {number(plan.r1_per_day)} a day"),
        ("1e26 FLOP", days(86400 * plan.frontier_days), f"the same; {number(plan.frontier_per_year)} a year"),
        ("answers", f"{count(plan.answers_per_day)} a day", f"{serve.model}, {serve.response:,} tokens each: {count(plan.output_tokens_per_day)} output tokens"),
        ("an answer costs", money(plan.usd_per_million_output * serve.response / 1e6), f"{money(plan.usd_per_million_output)} a million output tokens, cost of ownership only"),
    ]  # fmt: skip
    lines = [f"A datacentre of {plan.chip}, power as {plan.definition}", "", *facts(rows)]
    if claim is not None:
        lines += ["", *wrapped(f"The claim: {claim.sentence}")]
    lines += ["", "Published, by definition of the power"]
    table = [("value", "definition", "date", "what")]
    table += [(f"${x / 1e9:,.3g}B a GW", name, "", "here, assumed or derived") for name, x in plan.capex_per_gw.items()]
    table += [(_published(a.value, a.unit), a.definition, a.date, f"{a.who}: {a.what}") for a in plan.published]
    return lines + [f"  {line}" for line in hanging(table, WIDTH - 2)]


def _published(value: float, unit: str) -> str:
    if unit == "W":
        return f"{value / 1e9:,.3g} GW" if value >= 1e8 else f"{number(value)} W"
    return f"${value / 1e9:,.3g}B a GW" + (" a year" if unit.endswith("year") else "")


def model_rows() -> list[dict[str, Any]]:
    """The catalogue as plain data; counts, bytes and FLOPs."""
    from trilaw.planner.models import catalogue, model, source

    rows = []
    for name in catalogue():
        m = model(name)
        rows.append(
            {
                "name": name,
                "parameters": m.parameters(),
                "active_parameters": m.active_parameters(),
                "layers": len(m.layers),
                "hidden": m.hidden,
                "context": m.max_positions,
                "kv_bytes_per_token": m.kv_bytes_per_token(),
                "training_flops_per_token": m.flops_per_token(min(4096, m.max_positions), training=True),
                "source": source(name),
            }
        )
    return rows


def models_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The catalogue as a table."""
    head = ("name", "weights", "active", "layers", "width", "context", "cache a token", "training a token")
    table = [
        (
            row["name"],
            count(row["parameters"]),
            count(row["active_parameters"]),
            str(row["layers"]),
            f"{row['hidden']:,}",
            f"{row['context']:,}",
            f"{row['kv_bytes_per_token'] / 1e3:,.1f} kB" if row["kv_bytes_per_token"] else "window",
            f"{number(row['training_flops_per_token'] / 1e9)} GFLOP",
        )
        for row in rows
    ]
    return [
        *columns([head, *table], right=range(1, 8)),
        "",
        *wrapped(
            "Cache: 16 bits, layers without a window (window: there is none). Training: causal, sequences of 4,096 tokens or the model's most."
        ),
    ]


def hardware_rows() -> list[dict[str, Any]]:
    """The chips as plain data: SI units, None where no source gives a number."""
    from trilaw.planner.export import tpp
    from trilaw.planner.hardware import QUANTITIES, chips
    from trilaw.planner.prices import of_chip

    rows = []
    for chip in chips():
        prices = of_chip(chip)
        plain: dict[str, Any] = {"name": chip.name, "kind": chip.kind, "released": chip.released}
        plain["flops"] = {format: speed.value for format, speed in chip.flops.items()}
        plain |= {name: None if (x := getattr(chip, name)) is None else x.value for name in QUANTITIES}
        rows.append(plain | {"usd_per_hour": prices[0].usd_per_hour.value if prices else None, "tpp": tpp(chip)})
    return rows


def hardware_text(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The chips as a table."""
    head = ("name", "16-bit", "8-bit", "GB", "TB/s", "link GB/s", "network GB/s", "W", "$/h", "TPP")
    table = []
    for row in rows:
        flops = row["flops"]
        eight = flops.get("fp8", flops.get("int8"))
        link = row["scale_up_bandwidth"]
        table.append(
            (
                row["name"],
                _tera(flops.get("bf16")),
                _tera(eight),
                f"{row['memory_bytes'] / 1e9:.3g}",
                f"{row['memory_bandwidth'] / 1e12:.3g}",
                "" if link is None else f"{link / 1e9:.0f} x {row['scale_up_size']:.0f}",
                "" if row["scale_out_bandwidth"] is None else f"{row['scale_out_bandwidth'] / 1e9:.0f}",
                "" if row["watts"] is None else f"{row['watts']:,.0f}",
                "" if row["usd_per_hour"] is None else f"{row['usd_per_hour']:.2f}",
                number(row["tpp"]),
            )
        )
    return [
        *columns([head, *table], right=range(1, 10)),
        "",
        *wrapped(
            "Speeds are dense TFLOP/s (8-bit: FP8, or INT8 where there is no FP8). Links count one direction, x chips that they join. GB is 10^9 bytes, as "
            "the driver reports them where a source gives that. W is the chip's own. $/h is the table's default. TPP is that of United States export rules. Empty: no source."
        ),
    ]


def _tera(flops: float | None) -> str:
    return "" if flops is None else f"{flops / 1e12:,.4g}"


def validation_text(
    tests: Mapping[str, Sequence[ValidationRow]], calibration: Mapping[str, Sequence[ValidationRow]]
) -> list[str]:
    """Every row with its error; over 15 % with the reason."""
    lines: list[str] = []
    for room, rows in tests.items():
        lines += [
            *([""] if lines else []),
            f"{room.capitalize()}: tests, on which nothing was calibrated",
            *_rows(rows),
        ]
    for room, rows in calibration.items():
        lines += ["", f"{room.capitalize()}: calibration, errors are residuals of a fit", *_rows(rows)]
    return lines


def _rows(rows: Sequence[ValidationRow]) -> list[str]:
    table = [("measured", "planned", "error", "unit", "what")]
    for row in rows:
        table.append((number(row.measured), number(row.predicted), f"{100 * row.error:+.1f} %", row.unit, row.what))
    within = sum(abs(row.error) <= OFF for row in rows)
    lines = [*hanging(table, WIDTH, right=(0, 1, 2)), "", f"{within} of {len(rows)} within {100 * OFF:.0f} %."]
    for row in rows:
        if abs(row.error) > OFF and row.why:
            lines += wrapped(f"{row.what} ({100 * row.error:+.0f} %): {row.why}.", "  ")
    return lines
