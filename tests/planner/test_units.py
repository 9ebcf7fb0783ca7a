"""Units: round trip to the last bit, exact factors, and a sentence for every kind of mistake."""

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilaw.core.errors import RequestError
from trilaw.planner import units
from trilaw.planner.units import BANDWIDTH, ENERGY_PRICE, FLOPS, MEMORY, OPS, POWER, PRICE, parse, write

DIMENSIONS = [value for value in vars(units).values() if isinstance(value, units.Dimension)]


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("80 GB", MEMORY, 80e9),
        ("80GB", MEMORY, 80e9),
        ("24 GiB", MEMORY, 24 * 2**30),
        ("1 TiB", MEMORY, 2**40),
        ("3.35 TB/s", BANDWIDTH, 3.35e12),
        ("400 Gb/s", BANDWIDTH, 50e9),
        ("989.4 TFLOP/s", FLOPS, 989.4e12),
        ("1979 TOP/s", OPS, 1979e12),
        ("700 W", POWER, 700.0),
        ("1.2 GW", POWER, 1.2e9),
        ("$2.00/h", PRICE, 2.0),
        ("$0/h", PRICE, 0.0),
        ("$0.0685/kWh", ENERGY_PRICE, 0.0685),
        ("1e3 W", POWER, 1000.0),
    ],
)
def test_known_quantities(text: str, dimension: units.Dimension, value: float) -> None:
    assert parse(text, dimension, "here") == value


def test_examples_are_quantities_and_units_are_written_ascending() -> None:
    assert len(DIMENSIONS) == 9
    for dimension in DIMENSIONS:
        assert parse(dimension.example, dimension, "here") > 0
        sizes = [dimension.units[unit] for unit in dimension.written]
        assert sizes == sorted(sizes)
        assert sizes[0] == 1


def test_gb_and_gib_differ() -> None:
    assert parse("80 GiB", MEMORY, "x") / parse("80 GB", MEMORY, "x") == pytest.approx(1.073741824)


@given(st.sampled_from(DIMENSIONS), st.floats(min_value=0, max_value=1e300, allow_nan=False, allow_infinity=False))
def test_what_is_written_is_read_back_to_the_last_bit(dimension: units.Dimension, value: float) -> None:
    assert parse(write(value, dimension), dimension, "here") == value


@given(st.sampled_from(DIMENSIONS), st.integers(0, 10**9), st.integers(0, 6), st.data())
def test_a_quantity_is_its_number_times_its_unit(
    dimension: units.Dimension, whole: int, places: int, data: st.DataObject
) -> None:
    unit = data.draw(st.sampled_from(sorted(dimension.units)))
    number = Decimal(whole).scaleb(-places)
    text = f"{dimension.prefix}{number:f}{'' if unit.startswith('/') else ' '}{unit}"
    assert parse(text, dimension, "here") == float(number * dimension.units[unit])


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_one_sentence(text: str) -> None:
    said = ""
    try:
        assert math.isfinite(parse(text, MEMORY, "a.toml: 'memory'"))
    except RequestError as error:
        said = str(error)
    if said:
        assert said.startswith("a.toml: 'memory'")
        assert '"80 GB"' in said or "too large" in said


@pytest.mark.parametrize(
    ("text", "dimension", "sentence"),
    [
        (80, MEMORY, "a.toml: 'memory' = 80 has no unit: write it as a text such as \"80 GB\"."),
        ("80", MEMORY, "a.toml: 'memory' = '80' has no unit: write it as a text such as \"80 GB\"."),
        (True, MEMORY, "a.toml: 'memory' must be an amount of memory: write it as a text such as \"80 GB\"."),
        (None, MEMORY, "a.toml: 'memory' must be an amount of memory: write it as a text such as \"80 GB\"."),
        ("-80 GB", MEMORY, "a.toml: 'memory' = '-80 GB' is not an amount of memory: write it as a text such as \"80 GB\"."),
        ("80 GB each", MEMORY, "a.toml: 'memory' = '80 GB each' is not an amount of memory: write it as a text such as \"80 GB\"."),
        ("nan GB", MEMORY, "a.toml: 'memory' = 'nan GB' is not an amount of memory: write it as a text such as \"80 GB\"."),
        ("80 gb", MEMORY, "a.toml: 'memory' = '80 gb': 'gb' is no unit of an amount of memory (did you mean 'GB'?); write it as a text such as \"80 GB\"."),
        ("989 TFLOPS", FLOPS, "a.toml: 'memory' = '989 TFLOPS': 'TFLOPS' is no unit of a speed of arithmetic (did you mean 'TFLOP/s'?); write it as a text such as \"989.4 TFLOP/s\"."),
        ("1979 TFLOP/s", OPS, "a.toml: 'memory' = '1979 TFLOP/s': 'TFLOP/s' is no unit of a speed of whole-number arithmetic (did you mean 'TOP/s'?); write it as a text such as \"1979 TOP/s\"."),
        ("2.00/h", PRICE, "a.toml: 'memory' = '2.00/h' lacks its '$': write it as a text such as \"$2.00/h\"."),
        ("$2.00", PRICE, "a.toml: 'memory' = '$2.00' has no unit: write it as a text such as \"$2.00/h\"."),
        ("1e999 GB", MEMORY, "a.toml: 'memory' = '1e999 GB' is too large to be an amount of memory."),
    ],
)  # fmt: skip
def test_mistakes(text: object, dimension: units.Dimension, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(text, dimension, "a.toml: 'memory'")
    assert str(caught.value) == sentence


def test_a_unit_of_nothing_alike_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"'kg' is no unit of a power \(known: GW, MW, W, kW\)"):
        parse("80 kg", POWER, "x")


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_only_quantities_are_written(value: float) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory"):
        write(value, MEMORY)
