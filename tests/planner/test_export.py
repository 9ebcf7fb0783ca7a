"""Export classes: the published results by date, the thresholds against a second statement of them, and what cannot be decided."""

import dataclasses
import json
from datetime import date
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilaw.core.errors import RequestError
from trilaw.planner.export import DISCLAIMER, classify, density, rules, tpp
from trilaw.planner.hardware import Chip, Sourced, chip, chips

RULE_2022, RULE_2023, LETTER, RULE_2026 = date(2023, 3, 1), date(2024, 3, 1), date(2025, 5, 1), date(2026, 3, 1)
NONE, NAC = "no licence", "licence exception NAC"
DENIAL, CASE, BY_LETTER = "presumption of denial", "case-by-case", "licence by letter"


@pytest.mark.parametrize(
    ("name", "power", "per_mm2", "in_2022", "in_2023", "eccn", "in_2025", "in_2026"),
    [
        ("h100", 15_832, 19.45, DENIAL, DENIAL, "3A090.a", DENIAL, CASE),
        ("h800", 15_832, 19.45, NONE, DENIAL, "3A090.a", DENIAL, CASE),
        ("h200", 15_832, 19.45, DENIAL, DENIAL, "3A090.a", DENIAL, CASE),
        ("a100", 4_992, 6.04, DENIAL, DENIAL, "3A090.a", DENIAL, CASE),
        ("a800", 4_992, 6.04, NONE, DENIAL, "3A090.a", DENIAL, CASE),
        ("h20", 2_368, 2.91, NONE, NONE, None, BY_LETTER, BY_LETTER),
        ("l20", 1_912, 3.14, NONE, NONE, None, NONE, NONE),
        ("4090", 5_285, 8.69, NONE, NAC, "3A090.a", NAC, NAC),
        ("l40s", 5_864, 9.63, NONE, DENIAL, "3A090.a", DENIAL, CASE),
        ("mi300x", 20_919, 20.57, DENIAL, DENIAL, "3A090.a", DENIAL, CASE),
        ("mi325x", 20_919, None, DENIAL, DENIAL, "3A090.a", DENIAL, CASE),
        ("b200", 36_000, 22.5, DENIAL, DENIAL, "3A090.a", DENIAL, DENIAL),
        ("gb200", 40_000, None, DENIAL, DENIAL, "3A090.a", DENIAL, DENIAL),
        ("cpu", 5.968, None, NONE, NONE, None, NONE, NONE),
    ],
)
def test_published_results(
    name: str,
    power: float,
    per_mm2: float | None,
    in_2022: str,
    in_2023: str,
    eccn: str | None,
    in_2025: str,
    in_2026: str,
) -> None:
    c = chip(name)
    assert tpp(c) == pytest.approx(power, abs=0.5)
    assert density(c) == (None if per_mm2 is None else pytest.approx(per_mm2, abs=0.005))
    assert classify(c, date(2022, 10, 6)).review == NONE
    days = {RULE_2022: in_2022, RULE_2023: in_2023, LETTER: in_2025, RULE_2026: in_2026}
    for day, review in days.items():
        found = classify(c, day)
        assert found.review == review, day
        assert found.eccn == (None if review in (NONE, BY_LETTER) else "3A090" if day == RULE_2022 else eccn)
        assert found.notes[-1] == DISCLAIMER
        json.dumps(found.to_json(), allow_nan=False)


def test_days_on_which_the_class_changes() -> None:
    """A800 and H800 were legal for China until 2023-11-17, A100 and H100 not since 2022-10-07, the H20 until the letter of 2025-04-09."""
    for name in ("a800", "h800"):
        assert classify(chip(name), date(2023, 11, 16)).eccn is None
        assert classify(chip(name), date(2023, 11, 17)).eccn == "3A090.a"
    for name in ("a100", "h100"):
        assert classify(chip(name), date(2022, 10, 6)).eccn is None
        assert classify(chip(name), date(2022, 10, 7)).eccn == "3A090"
    assert classify(chip("h20"), date(2025, 4, 8)).review == NONE
    assert classify(chip("h20"), date(2025, 4, 9)).review == BY_LETTER
    assert classify(chip("h200"), date(2026, 1, 14)).review == DENIAL
    assert classify(chip("h200"), date(2026, 1, 15)).review == CASE


def test_to_whom() -> None:
    assert classify(chip("h100"), RULE_2022).destinations == "China (with Hong Kong)"
    for word in ("D:1", "D:4", "D:5", "A:5", "A:6", "Macau"):
        assert word in classify(chip("h100"), RULE_2023).destinations
    assert "group D:5" in classify(chip("h20"), LETTER).destinations
    assert classify(chip("l20"), RULE_2026).destinations == ""


def test_diffusion_rule_is_a_note_while_it_stood() -> None:
    for day, word in [
        (date(2025, 1, 14), None),
        (date(2025, 1, 15), "790,000,000 TPP"),
        (date(2025, 5, 12), "26,900,000 TPP"),
        (date(2025, 5, 13), "not enforced"),
    ]:
        text = " ".join(classify(chip("h100"), day).notes)
        assert ("diffusion" in text) == (word is not None)
        assert word is None or word in text
    assert 49_901 * tpp(chip("h100")) == pytest.approx(790e6, rel=1e-3)  # the caps are counted in H100s
    assert 1_699 * tpp(chip("h100")) == pytest.approx(26.9e6, rel=1e-3)


def test_a_day_after_the_last_rule_says_so() -> None:
    assert "Rules later than 2026-01-15 are not in this table." in classify(chip("h100"), date(2026, 11, 24)).notes
    assert not any("later than" in note for note in classify(chip("h100"), date(2026, 1, 15)).notes)


def test_the_arithmetic_is_shown() -> None:
    lines = {line.name: line for line in classify(chip("h20"), RULE_2023).sheet.lines}
    assert lines["TPP"].value == 2368
    assert lines["performance density"].formula == "TPP / 814 mm2"
    assert lines["input/output"].value == 900e9


def invented(power: float, per_mm2: float, *, data_centre: bool = True, memory: float = 1e12) -> Chip:
    """A chip of a TPP and a performance density, and of 1 TB/s of memory unless said otherwise."""
    speed = Sourced(power * 1e12 / 8, "OP/s", "invented", "2026")
    return dataclasses.replace(
        chip("l20"),
        flops=MappingProxyType({"int8": speed}),
        die_mm2=Sourced(power / per_mm2, "mm2", "invented", "2026"),
        memory_bandwidth=Sourced(memory, "B/s", "invented", "2026"),
        data_centre=data_centre,
    )


def stated_again(power: float, per_mm2: float, data_centre: bool) -> str | None:
    """The entry of 88 FR 73458, in other words."""
    if not data_centre and power < 4800:
        return None
    if power >= 4800 or (power >= 1600 and per_mm2 >= 5.92):
        return "3A090.a"
    middle = power >= 2400 and per_mm2 >= 1.6
    return "3A090.b" if middle or (power >= 1600 and per_mm2 >= 3.2) else None


POWERS = st.one_of(st.floats(1, 9000), st.sampled_from([1599.0, 1601.0, 2399.0, 2401.0, 4799.0, 4801.0]))
DENSITIES = st.one_of(st.floats(0.5, 9), st.sampled_from([1.59, 1.61, 3.19, 3.21, 5.91, 5.93]))


@given(POWERS, DENSITIES, st.booleans())
def test_thresholds_of_2023(power: float, per_mm2: float, data_centre: bool) -> None:
    for day in (RULE_2023, RULE_2026):
        c = invented(power, per_mm2, data_centre=data_centre)
        exact, exact_density = tpp(c), density(c)
        assert exact_density is not None
        assert classify(c, day).eccn == stated_again(exact, exact_density, data_centre)


def test_thresholds_are_met_at_their_values() -> None:
    at = dataclasses.replace(chip("l20"), flops=MappingProxyType({"int8": Sourced(600e12, "OP/s", "x", "2026")}))
    assert classify(at, RULE_2023).eccn == "3A090.a"  # 600 TOPS at 8 bits are 4,800
    below = dataclasses.replace(chip("l20"), flops=MappingProxyType({"bf16": Sourced(299.9e12, "FLOP/s", "x", "2026")}))
    assert classify(below, RULE_2022).eccn is None


@given(st.floats(4800, 40_000), st.floats(1e12, 10e12))
def test_review_of_2026(power: float, memory: float) -> None:
    c = invented(power, 5.0, memory=memory)
    expected = CASE if tpp(c) < 21_000 and memory < 6.5e12 else DENIAL
    assert classify(c, RULE_2026).review == (expected if tpp(c) >= 4800 else NAC)
    assert classify(c, RULE_2023).review == (DENIAL if tpp(c) >= 4800 else NAC)


def test_note_2_and_nac() -> None:
    assert classify(invented(3000, 4.0), RULE_2023).review == NAC  # 3A090.b, for data centres
    game = classify(invented(3000, 4.0, data_centre=False), RULE_2023)
    assert (game.eccn, game.review) == (None, NONE)
    assert game.clause.startswith("Note 2")


def test_reported_bounds_of_the_letters_are_a_note_only() -> None:
    found = classify(invented(1000, 1.0, memory=1.5e12), LETTER)
    assert found.review == NONE
    assert any("1,400 GB/s of memory" in note and "not official" in note for note in found.notes)
    assert not any("Reuters" in note for note in classify(invented(1000, 1.0, memory=1.5e12), RULE_2023).notes)


def test_a_die_that_matters_is_asked_for() -> None:
    unknown = dataclasses.replace(chip("h20"), die_mm2=None)
    with pytest.raises(RequestError) as caught:
        classify(unknown, RULE_2023)
    assert str(caught.value) == (
        "The class of H20 hangs on its performance density (TPP 2,368), and no source gives its die:"
        ' copy its table to a file of your own and add it, for example die = "814 mm2".'
    )
    assert classify(unknown, RULE_2022).eccn is None  # 2022 did not ask
    assert (
        classify(dataclasses.replace(chip("h100"), die_mm2=None), RULE_2023).eccn == "3A090.a"
    )  # nor does this one need it


def test_a_link_that_matters_is_asked_for() -> None:
    unknown = dataclasses.replace(chip("h100"), scale_up_bandwidth=None)
    with pytest.raises(RequestError, match="The class of H100 SXM hangs on its input/output, and no source gives it"):
        classify(unknown, RULE_2022)
    assert classify(unknown, RULE_2023).eccn == "3A090.a"
    assert classify(dataclasses.replace(chip("l20"), scale_up_bandwidth=None), RULE_2022).eccn is None


def test_every_chip_has_a_class_on_every_day_that_matters() -> None:
    days = {rule.start for rule in rules().rules} | {letter.start for letter in rules().letters}
    days |= {day for note in rules().notes for day in (note.start, note.end) if day}
    for day in sorted(days):
        for c in chips():
            found = classify(c, date.fromisoformat(day))
            assert found.licence.endswith(".")


def test_tpp_agrees_with_epoch(shared_data: Path) -> None:
    """Epoch AI computes TPP too, from one format; ours is the greatest over formats."""
    import csv

    with (shared_data / "hardware" / "epoch_ml_hardware.csv").open(encoding="utf-8") as file:
        table = {row["Hardware name"]: row for row in csv.DictReader(file)}
    rows = {
        "h100": "NVIDIA H100 SXM5 80GB",
        "h20": "NVIDIA HGX H20",
        "a800": "NVIDIA A800 SXM",
        "l20": "NVIDIA L20 PCle",
    }
    rows |= {"4090": "NVIDIA GeForce RTX 4090", "b200": "NVIDIA B200", "mi300x": "AMD Instinct MI300X"}
    rows |= {"910b": "Huawei Ascend 910B2", "910c": "Huawei Ascend 910C", "gb200": "NVIDIA GB200"}
    for name, row in rows.items():
        theirs = float(table[row]["Total processing performance (bit-OP/s)"]) / 1e12
        assert tpp(chip(name)) == pytest.approx(theirs, rel=0.03), name
