"""Export class of a chip under United States rules, by date: arithmetic on published thresholds, and no legal advice.

Total processing performance (88 FR 73458) is TOP/s x bits of the operation, dense, the maximum over formats; a multiply-add counts as two
operations, as in data sheets. Performance density is TPP over the area of the logic dies in mm2. Rules, letters and notes with their dates stand in
export/us.toml; this file evaluates them. What they ask beyond numbers (end use, end user, certificates) is not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from trilaw.core.errors import RequestError
from trilaw.planner.hardware import BITS, Chip
from trilaw.planner.sheet import Sheet
from trilaw.planner.sourced import Table, read_text
from trilaw.planner.units import BANDWIDTH

DISCLAIMER = "This is arithmetic on published thresholds, no legal advice."
Review = Literal["no licence", "licence exception NAC", "case-by-case", "presumption of denial", "licence by letter"]


@dataclass(frozen=True, slots=True)
class Clause:
    """A clause of an entry: `eccn` applies where every bound holds."""

    eccn: str
    text: str
    tpp: tuple[float, float]  # from the first on, up to but not at the second
    density: tuple[float, float]
    io_min: float  # B/s, both directions


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, from its first day on. `not_data_centre_below`: Note 2. `case_by_case`: bounds of TPP and of B/s of memory, None: no such review."""

    id: str
    start: str
    citation: str
    destinations: str
    clauses: tuple[Clause, ...]
    not_data_centre_below: float
    case_by_case: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A licence requirement by letter; all B/s. The reported bounds (memory, I/O, sum) are not official."""

    start: str
    text: str
    destinations: str
    memory_min: float
    io_min: float
    reported: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Note:
    """A remark that holds from `start` to the day before `end`."""

    of: str
    start: str
    end: str
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What export/us.toml holds."""

    as_of: str
    rules: tuple[Rule, ...]
    letters: tuple[Letter, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The class of a chip on a day. `eccn` is None where no entry applies; `density` is None where the die is not known."""

    chip: str
    on: date
    tpp: float
    density: float | None
    eccn: str | None
    rule: str
    clause: str
    destinations: str
    review: Review
    licence: str
    notes: tuple[str, ...]
    sheet: Sheet

    def to_json(self) -> dict[str, Any]:
        """Every field by name; `on` as 2026-01-15, `sheet` as `Sheet.to_json`."""
        return {
            "chip": self.chip,
            "on": self.on.isoformat(),
            "tpp": self.tpp,
            "density": self.density,
            "eccn": self.eccn,
            "rule": self.rule,
            "clause": self.clause,
            "destinations": self.destinations,
            "review": self.review,
            "licence": self.licence,
            "notes": list(self.notes),
            "sheet": self.sheet.to_json(),
        }


def tpp(chip: Chip) -> float:
    """Total processing performance: the greatest TOP/s x bits over the chip's formats."""
    return max(speed.value * BITS[format] for format, speed in chip.flops.items()) / 1e12


def density(chip: Chip) -> float | None:
    """TPP / mm2 of logic dies; None where no source gives the die."""
    return None if chip.die_mm2 is None else tpp(chip) / chip.die_mm2.value


def classify(chip: Chip, on: date) -> Classification:
    """The class of `chip` on a day.

    Raises RequestError where a clause hangs on a number that the chip's table lacks (its die, its link).
    """
    table, day, sheet = rules(), on.isoformat(), Sheet()
    power, per_mm2 = tpp(chip), density(chip)
    best = max(chip.flops, key=lambda format: chip.flops[format].value * BITS[format])
    speed = chip.flops[best]
    sheet.put("TPP", power, "TOP/s x bit", f"{speed.value / 1e12:g} TOP/s in {best} x {BITS[best]} bit", speed.source)
    if chip.die_mm2 is not None and per_mm2 is not None:
        formula = f"TPP / {chip.die_mm2.value:g} mm2"
        sheet.put("performance density", per_mm2, "TPP/mm2", formula, chip.die_mm2.source)
    link = chip.scale_up_bandwidth
    io = None if link is None else 2.0 * link.value
    if link is not None and io is not None:
        sheet.put("input/output", io, "B/s", f"2 directions x {link.value / 1e9:g} GB/s", link.source)

    rule = [candidate for candidate in table.rules if candidate.start <= day][-1]
    clause = next((c for c in rule.clauses if _meets(c, power, per_mm2, io, chip.name)), None)
    exempt = clause is not None and not chip.data_centre and power < rule.not_data_centre_below
    controlled = clause is not None and not exempt
    memory = chip.memory_bandwidth.value
    letter = None if controlled else _letter(table, day, memory, io)

    notes = [chip.note] if chip.note else []
    if letter is None and not controlled:
        notes += [_reported(x) for x in table.letters if x.start <= day and _over(x.reported, memory, io)]
    for note in table.notes:
        if note.start <= day and (not note.end or day < note.end):
            fits = {"all": True, "controlled": controlled, "letter": letter is not None}
            notes += [note.text] if fits[note.of] else []
    if day > table.as_of:
        notes.append(f"Rules later than {table.as_of} are not in this table.")

    text, destinations = (
        (clause.text, rule.destinations)
        if clause is not None and controlled
        else (letter.text, letter.destinations)
        if letter is not None
        else ("Note 2: not for data centres, and TPP below 4,800", "")
        if exempt
        else ("no clause is met", "")
    )
    review: Review = "no licence"
    if clause is not None and controlled:
        review = _review(rule, clause, chip, power)
    elif letter is not None:
        review = "licence by letter"
    return Classification(
        chip=chip.name,
        on=on,
        tpp=power,
        density=per_mm2,
        eccn=clause.eccn if clause is not None and controlled else None,
        rule=f"{rule.id} ({rule.citation})",
        clause=text,
        destinations=destinations,
        review=review,
        licence=_sentence(review, destinations),
        notes=(*notes, DISCLAIMER),
        sheet=sheet,
    )


def _meets(clause: Clause, power: float, per_mm2: float | None, io: float | None, name: str) -> bool:
    if not clause.tpp[0] <= power < clause.tpp[1]:
        return False
    if clause.density != (0.0, float("inf")):
        if per_mm2 is None:
            raise RequestError(
                f"The class of {name} hangs on its performance density (TPP {power:,.0f}), and no source gives its die:"
                ' copy its table to a file of your own and add it, for example die = "814 mm2".'
            )
        if not clause.density[0] <= per_mm2 < clause.density[1]:
            return False
    if clause.io_min and io is None:
        raise RequestError(
            f"The class of {name} hangs on its input/output, and no source gives it: copy its table to a file of your own"
            ' and add it (one direction), for example scale_up_bandwidth = "450 GB/s".'
        )
    return io is None or io >= clause.io_min


def _letter(table: Rules, day: str, memory: float, io: float | None) -> Letter | None:
    """The first letter that names the chip's numbers; a link that is not known counts as none."""
    for letter in table.letters:
        if letter.start <= day and (memory >= letter.memory_min or (io or 0.0) >= letter.io_min):
            return letter
    return None


def _over(bounds: tuple[float, float, float], memory: float, io: float | None) -> bool:
    link = io or 0.0
    return memory >= bounds[0] or link >= bounds[1] or memory + link >= bounds[2]


def _reported(letter: Letter) -> str:
    memory, io, both = (f"{bound / 1e9:,.0f}" for bound in letter.reported)
    return (
        f"Reuters reported on 2025-04-16, by what Intel told its customers, that such letters ask for a licence from {memory} GB/s of memory,"
        f" {io} GB/s of input/output, or {both} GB/s of both on: this chip reaches that. It is not official and not applied here."
    )


def _review(rule: Rule, clause: Clause, chip: Chip, power: float) -> Review:
    """NAC (since 2023) takes what 3A090 names, but not items for data centres under 3A090.a."""
    if clause.eccn == "3A090.b" or (clause.eccn == "3A090.a" and not chip.data_centre):
        return "licence exception NAC"
    bounds = rule.case_by_case
    if bounds is not None and power < bounds[0] and chip.memory_bandwidth.value < bounds[1]:
        return "case-by-case"
    return "presumption of denial"


def _sentence(review: Review, destinations: str) -> str:
    """One sentence on the licence."""
    return {
        "no licence": "No licence for this chip under these rules.",
        "licence exception NAC": f"Controlled to {destinations}; License Exception NAC may take it, after notification where it goes to Macau or group D:5 (China among them).",
        "case-by-case": f"Licence needed to {destinations}; for China and Macau reviewed case by case.",
        "presumption of denial": f"Licence needed to {destinations}; for China reviewed with a presumption of denial.",
        "licence by letter": f"Licence needed to {destinations}, by letter and not by an entry of the control list.",
    }[review]


@lru_cache(maxsize=1)
def rules() -> Rules:
    """The rules of export/us.toml, in the order of their dates."""
    text = resources.files("trilaw.planner").joinpath("export", "us.toml").read_text(encoding="utf-8")
    table = read_text(text, "export/us.toml")
    table.take_origin()
    found: dict[str, Rule] = {}
    for entry in table.tables("rule"):
        rule = _rule(entry, found)
        found[rule.id] = rule
    letters = tuple(_read_letter(entry) for entry in table.tables("letter"))
    notes = []
    for entry in table.tables("note"):
        of = entry.choice("of", ("all", "controlled", "letter"))
        notes.append(Note(of, entry.day("start"), entry.day("end", ""), entry.text("text")))
        entry.end()
    result = Rules(table.day("as_of"), tuple(sorted(found.values(), key=lambda r: r.start)), letters, tuple(notes))
    table.end()
    return result


def _rule(entry: Table, earlier: dict[str, Rule]) -> Rule:
    base = entry.text("same_as", "")
    clauses = [_clause(c) for c in entry.tables("clause")]
    case_tpp, case_memory = entry.number("case_by_case_tpp_below"), _speed(entry, "case_by_case_memory_below")
    below = entry.number("not_data_centre_below") or 0.0
    rule = Rule(
        id=entry.text("id"),
        start=entry.day("start"),
        citation=entry.text("citation"),
        destinations=entry.text("destinations", ""),
        clauses=earlier[base].clauses if base else tuple(clauses),
        not_data_centre_below=earlier[base].not_data_centre_below if base else below,
        case_by_case=None if case_tpp is None or case_memory is None else (case_tpp, case_memory),
    )
    entry.end()
    return rule


def _clause(entry: Table) -> Clause:
    infinity = float("inf")
    tpp_bounds = (entry.number("tpp_min") or 0.0, entry.number("tpp_below") or infinity)
    density_bounds = (entry.number("density_min") or 0.0, entry.number("density_below") or infinity)
    io_min = _speed(entry, "io_min") or 0.0
    clause = Clause(entry.text("eccn"), entry.text("text"), tpp_bounds, density_bounds, io_min)
    entry.end()
    return clause


def _read_letter(entry: Table) -> Letter:
    bounds = [_speed(entry, f"{part}_min") or 0.0 for part in ("memory", "io")]
    memory, io, both = (_speed(entry, f"reported_{part}_min") or 0.0 for part in ("memory", "io", "sum"))
    letter = Letter(
        entry.day("start"), entry.text("text"), entry.text("destinations"), bounds[0], bounds[1], (memory, io, both)
    )
    entry.end()
    return letter


def _speed(entry: Table, key: str) -> float | None:
    """A bandwidth of a rule, B/s: its source is the rule."""
    found = entry.quantity(key, BANDWIDTH)
    return None if found is None else found.value
