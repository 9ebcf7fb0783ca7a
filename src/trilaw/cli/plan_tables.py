"""The plans of `trilaw plan` as text, at most 100 columns wide. GB are 10^9 bytes throughout, as on data sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trilaw.core.ledger import count, duration, money

if TYPE_CHECKING:
    from trilaw.planner.answers import AnswerRow
    from trilaw.planner.rl import RlPlan
    from trilaw.planner.serve import ServePlan
    from trilaw.planner.sheet import Sheet
    from trilaw.planner.train import TrainPlan

WIDTH = 100
Row = tuple[str, str, str]  # name, value, remark


def train_text(plan: TrainPlan) -> list[str]:
    """A training plan: what it takes, the step and the fullest chip by part, the next best layouts."""
    peak = plan.tflops_per_chip / plan.mfu
    memory = plan.memory
    rows: list[Row] = [
        ("time", days(plan.seconds), f"{number(plan.steps)} steps of {seconds(plan.step_seconds)}"),
        ("chip-hours", number(plan.gpu_hours), _range(plan)),
        cost_row(plan.usd, plan.price_per_hour, plan.sheet),
        energy_row(plan.energy_kwh),
        ("MFU", f"{100 * plan.mfu:.1f} %", f"{number(plan.tflops_per_chip)} of {number(peak)} TFLOP/s a chip"),
        (
            "speed",
            f"{count(plan.tokens_per_second)} tokens/s",
            f"{number(plan.tokens_per_second_per_chip)} a chip, {count(plan.tokens_per_day)} a day",
        ),
        ("batch", f"{count(plan.batch_tokens)} tokens", f"{number(plan.batch_tokens / plan.context)} sequences"),
        ("layout", str(plan.layout), ""),
        (
            "memory",
            gb(memory.total),
            f"of the {gb(plan.memory_capacity)} of a chip that may be filled, the fullest one",
        ),
        ("binds", plan.binds, f"busiest link: {plan.busiest_link}" if plan.busiest_link else ""),
    ]
    title = (
        f"{plan.model} on {plan.count:,} {plan.chip}: {count(plan.tokens)} tokens in sequences of {plan.context:,}, "
        f"{plan.precision}"
    )
    lines = [*wrapped(title), "", *facts(rows), ""]
    parts = [(name, seconds(x), share(x, plan.step_seconds)) for name, x in plan.step_parts.items()]
    held = [(name, gb(x), share(x, memory.total)) for name, x in memory.parts().items()]
    step = columns([("step", "", ""), *parts], right=(1, 2)) if parts else []
    lines += beside(step, columns([("memory of the fullest chip", "", ""), *held], right=(1, 2)))
    head = ("recomputed", "activations", "memory", "a step", "")
    table = [
        (
            x.layout.recompute,
            gb(x.memory.activations),
            gb(x.memory.total),
            seconds(x.step.seconds),
            "" if x.memory.total <= plan.memory_capacity else "does not fit",
        )
        for x in plan.recompute
    ]
    lines += ["", *columns([head, *table], right=(1, 2, 3))]
    if plan.flows:
        head = ("traffic of a chip in a step", "among", "link", "received", "link busy")
        flows = [(f.kind, f"{f.group:,} chips", f.link, gb(f.bytes), seconds(f.seconds)) for f in plan.flows]
        lines += ["", *columns([head, *flows], right=(1, 3, 4))]
    if plan.others:
        others = [(str(x.layout), seconds(x.step.seconds), gb(x.memory.total)) for x in plan.others[:3]]
        lines += ["", *columns([("next best layouts", "a step", "memory"), *others], right=(1, 2))]
    return lines


def _range(plan: TrainPlan) -> str:
    if plan.gpu_hours_low == plan.gpu_hours_high:
        return "at the utilisation that you gave"
    return f"{number(plan.gpu_hours_low)} to {number(plan.gpu_hours_high)} over the range of what products reach"


def serve_text(plan: ServePlan, answers: Sequence[AnswerRow] = ()) -> list[str]:
    """A serving plan, and what a solved problem costs where an accuracy was given."""
    responses = "a response" if plan.samples == 1 else f"{plan.samples:,} responses"
    title = (
        f"{plan.model} on {plan.count:,} {plan.chip}: prompts of {plan.prompt:,}, {responses} of {plan.response:,} tokens, "
        f"{plan.weight_bits}-bit weights, {plan.kv_bits}-bit cache"
    )
    each = "1 replica" if plan.replicas == 1 else f"{plan.replicas:,} replicas"
    roles = "" if plan.decode_replicas == plan.replicas else f", {plan.decode_replicas:,} of them write"
    idle = f", {plan.idle_chips:,} chips idle" if plan.idle_chips else ""
    dollars: list[Row] = [("cost", "unknown", "no source prices this chip: give --price")]
    if plan.usd_per_million_output is not None and plan.usd_per_million_input is not None:
        dollars = [
            (
                "cost",
                f"{money(plan.usd_per_million_output)} a million output tokens",
                f"{money(plan.usd_per_million_input)} a million input tokens computed",
            ),
            cost_row(1000 * (plan.request_usd or 0.0), plan.price_per_hour, plan.sheet, "1,000 requests"),
        ]
    energy = plan.kwh_per_million_output
    rows: list[Row] = [
        ("layout", str(plan.layout), each + roles + idle),
        ("in flight", f"{number(plan.concurrency)} sequences", f"{number(plan.batch)} a replica"),
        (
            "speed",
            f"{number(plan.output_tokens_per_second)} output tokens/s",
            f"{number(plan.input_tokens_per_second)} input; {number(plan.tokens_per_second_per_chip)} a chip, both",
        ),
        (
            "a user waits",
            f"{seconds(plan.seconds_to_first_token)} for the first token",
            f"then {seconds(plan.seconds_per_output_token)} a token: {number(1 / plan.seconds_per_output_token)} a second",
        ),
        *dollars,
        (
            "energy",
            "unknown" if energy is None else f"{number(energy)} kWh a million output tokens",
            "no source gives the chip's power" if energy is None else "IT equipment",
        ),
        (
            "memory",
            f"{gb(plan.memory_bytes)} a chip",
            f"weights {gb(plan.weights_bytes)}; the cache of a sequence {gb(plan.cache_bytes)}",
        ),
        ("MFU", f"{100 * plan.mfu:.1f} %", "of the 16-bit peak, in the steady state"),
        ("binds", plan.binds, f"a step of writing; prompts: {plan.prefill.binds}"),
        (
            "alone",
            f"{number(plan.prefill_tokens_per_second)} prompt tokens/s",
            f"{number(plan.decode_tokens_per_second)} response tokens/s, if all chips did nothing else",
        ),
    ]
    lines = [*wrapped(title), "", *facts(rows)]
    if answers:
        head = ("k", "solved", "tokens", "chip-seconds", "cost", "cost a solved one", "one more solved")
        table = [
            (
                f"{row.k:,}",
                f"{100 * row.accuracy:.1f} %",
                number(row.output_tokens),
                number(row.chip_seconds),
                *("-" if x is None else money(x) for x in (row.usd, row.usd_per_solved, row.usd_per_extra_solved)),
            )
            for row in answers
        ]
        lines += ["", *columns([head, *table], right=range(7))]
    return lines


def rl_text(plan: RlPlan) -> list[str]:
    """A plan of reinforcement learning: what it takes, and a rollout by part."""
    updates = "an update" if plan.rollout_steps == 1 else f"{plan.rollout_steps} updates"
    title = (
        f"{plan.model} on {plan.count:,} {plan.chip}, {plan.placement}: {plan.steps:,} updates of {plan.problems:,} problems x "
        f"{plan.samples:,} responses of {plan.response:,} tokens"
    )
    where = "all chips, in turn"
    if plan.placement == "split":
        where = f"{plan.rollout_chips:,} chips write, {plan.train_chips:,} learn"
    rows: list[Row] = [
        ("time", days(plan.seconds), f"{seconds(plan.cycle_seconds)} a rollout, which feeds {updates}"),
        ("chip-hours", number(plan.gpu_hours), f"{100 * plan.idle_share:.0f} % of the chips' time idle"),
        cost_row(plan.usd, None if plan.usd is None else plan.usd / plan.gpu_hours, plan.sheet),
        energy_row(plan.energy_kwh),
        ("MFU", f"{100 * plan.mfu:.1f} %", "of the 16-bit peak, writing counted"),
        ("tokens", count(plan.rollout_tokens), "written over the run"),
        ("writing", str(plan.layout), f"{where}; {number(plan.concurrency)} responses in flight"),
        ("memory", gb(plan.memory_bytes), "a chip, while it learns: weights, gradients, optimizer"),
        ("binds", plan.binds, ""),
    ]
    names = {
        "writing": "writing, all responses in flight",
        "tail": f"waiting for the longest, {number(plan.longest)} tokens",
        "reward": "rewards",
        "score": "scoring",
        "update": "updates",
        "sync": "new weights to the writers",
    }
    parts = [
        (text, seconds(getattr(plan, f"{name}_seconds")), share(getattr(plan, f"{name}_seconds"), plan.cycle_seconds))
        for name, text in names.items()
    ]
    both = "a rollout" if plan.placement == "colocated" else "a rollout; learning runs beside writing"
    return [*wrapped(title), "", *facts(rows), "", *columns([(both, "", ""), *parts], right=(1, 2))]


def explained(sheet: Sheet) -> list[str]:
    """The arithmetic line by line, then the assumptions with range and source."""
    lines = ["Arithmetic"]
    for line in sheet.lines:
        text = f"{line.name} = {line.formula} = {exact(line.value)} {line.unit}"
        lines += wrapped(text + (f"  [{line.source}]" if line.source else ""), "  ")
    lines += ["", "Assumptions"] if sheet.used else []
    for a in sheet.used.values():
        bounds = f"{exact(a.value)} {a.unit}" + ("" if a.low == a.high else f" ({exact(a.low)} to {exact(a.high)})")
        lines += wrapped(f"{a.name} = {bounds}. {a.about} Source: {a.source}.", "  ")
    return lines


# Words and numbers


def number(x: float) -> str:
    """Three digits, or whole with thousands."""
    return f"{x:,.0f}" if abs(x) >= 1000 or x == int(x) else f"{x:.3g}"


def exact(x: float) -> str:
    """Six digits, thousands set apart where they are few."""
    return f"{x:,.6g}" if abs(x) < 1e9 else f"{x:.6g}"


def gb(size: float) -> str:
    """Bytes in GB (10^9), smaller ones in MB or kB."""
    if not size:
        return "0"
    unit, scale = ("GB", 1e9) if size >= 0.0995e9 else ("MB", 1e6) if size >= 0.0995e6 else ("kB", 1e3)
    return f"{size / scale:,.1f} {unit}" if size >= 0.995 * scale else f"{size / scale:.2g} {unit}"


def seconds(x: float) -> str:
    """Seconds with three digits, in ms or us where they are few."""
    if 0 < x < 0.9995:
        return f"{1e3 * x:.3g} ms" if x >= 0.9995e-3 else f"{1e6 * x:.3g} us"
    return f"{x:.3g} s" if x < 1000 else duration(x)


def days(x: float) -> str:
    """Days where there are two or more, else hours and less."""
    return f"{x / 86400:,.1f} days" if x >= 2 * 86400 else duration(x)


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""


def cost_row(usd: float | None, price: float | None, sheet: Sheet, name: str = "cost") -> Row:
    """Dollars, and whose price they follow from."""
    if usd is None or price is None:
        return name, "unknown", "no source prices this chip: give --price"
    said = next((line.source or line.formula for line in sheet.lines if line.name == "price"), "")
    return name, money(usd), f"at ${price:.2f} a chip-hour: {said}"


def energy_row(kwh: float | None) -> Row:
    if kwh is None:
        return "energy", "unknown", "no source gives the chip's power"
    from trilaw.planner.prices import electricity

    price = electricity().value
    return "energy", f"{number(kwh)} kWh", f"of the IT equipment; {money(kwh * price)} at ${price:.3g}/kWh"


# Layout


def wrapped(text: str, indent: str = "") -> list[str]:
    """The text in lines of at most WIDTH, those after the first indented a little more."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    ) or [""]


def facts(rows: Iterable[Row], width: int = WIDTH) -> list[str]:
    """Name, value and remark under each other; remarks wrap in their column."""
    rows = list(rows)
    first = max(len(name) for name, _, _ in rows) + 2
    second = min(max((len(value) for _, value, remark in rows if remark), default=0) + 2, 42)
    lines: list[str] = []
    for name, value, remark in rows:
        head = f"{name:<{first}}{value:<{second}}" if remark else f"{name:<{first}}{value}"
        if len(head) > first + second:  # a long value: its remark goes below
            lines.append(head.rstrip())
            head = " " * (first + second)
        parts = textwrap.wrap(remark, width - first - second, break_on_hyphens=False) or [""]
        if remark or len(head.strip()):
            lines.append((head + parts[0]).rstrip())
        lines += [" " * (first + second) + part for part in parts[1:]]
    return [line for line in lines if line]


def columns(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """An aligned table; the columns in `right` are set flush right."""
    aligned = set(right)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in aligned else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def beside(left: Sequence[str], right: Sequence[str], gap: int = 6) -> list[str]:
    """Two tables side by side, or under each other where they are too wide."""
    if not left:
        return list(right)
    width = max(len(line) for line in left) + gap
    if width + max(len(line) for line in right) > WIDTH:
        return [*left, "", *right]
    height = max(len(left), len(right))
    a, b = ([*lines, *[""] * (height - len(lines))] for lines in (left, right))
    return [f"{x:<{width}}{y}".rstrip() for x, y in zip(a, b)]


def hanging(rows: Sequence[Sequence[str]], width: int, right: Iterable[int] = ()) -> list[str]:
    """A table whose last column wraps at `width`."""
    heads = columns([row[:-1] for row in rows], right)
    start = max(len(head) for head in heads) + 2
    lines: list[str] = []
    for head, row in zip(heads, rows):
        parts = textwrap.wrap(row[-1], width - start, break_on_hyphens=False) or [""]
        lines += [f"{head:<{start}}{parts[0]}", *(" " * start + part for part in parts[1:])]
    return lines
