"""Prices: the published ones, whose default, and no invented ones."""

import datetime
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError
from trilaw.planner.hardware import chip, chips
from trilaw.planner.prices import electricity, given, load_file, of_chip, price, prices

UNPRICED = ["a800", "h20", "l20", "gb200", "910b", "910c", "mi300x", "mi325x", "a100 40gb", "cpu", "zen3"]


@pytest.mark.parametrize(
    ("name", "provider", "low", "value", "high"),
    [
        ("h800", None, 2.00, 2.00, 2.00),
        ("h100", None, 1.99, 2.95, 5.00),
        ("h100", "RunPod", 2.69, 4.76, 4.76),
        ("h100 pcie", None, 1.99, 3.51, 3.51),
        ("h200", None, 2.50, 4.00, 7.00),
        ("a100", None, 0.80, 1.30, 3.00),
        ("b200", "runpod", 5.98, 10.57, 10.57),
        ("4090", None, 0.34, 0.60, 0.60),
        ("l40s", None, 0.79, 1.40, 1.40),
    ],
)
def test_published_prices(name: str, provider: str | None, low: float, value: float, high: float) -> None:
    found = price(chip(name), provider)
    assert (found.low, found.value, found.high) == (low, value, high)
    assert found.unit == "$/h"
    assert found.source
    datetime.date.fromisoformat((found.date + "-01")[:10])


def test_the_r1_bill_at_deepseeks_price() -> None:
    """arXiv 2501.12948v2, Table 7: 147K hours of H800 are $294K; arXiv 2412.19437, Table 1: 2,788K hours are $5.576M."""
    assert 147e3 * price(chip("h800")).value == pytest.approx(294e3)
    assert 2788e3 * price(chip("h800")).value == pytest.approx(5.576e6)


def test_every_priced_chip_exists_and_has_one_default() -> None:
    for entry in prices():
        assert chip(entry.chip).name == entry.chip
        assert sum(other.default for other in prices() if other.chip == entry.chip) == 1


def test_a_chip_without_a_source_has_no_price() -> None:
    assert {chip(name).name for name in UNPRICED} | {entry.chip for entry in prices()} == {c.name for c in chips()}
    for name in UNPRICED:
        with pytest.raises(RequestError) as caught:
            price(chip(name))
        assert str(caught.value) == (
            f"No source prices an hour of {chip(name).name}: give a price, for example --price 2."
        )


def test_an_unknown_provider() -> None:
    with pytest.raises(RequestError, match=r"'runpot' has no price for H100 SXM \(did you mean 'runpod'\?\)\."):
        price(chip("h100"), "runpot")


def test_a_typed_price() -> None:
    assert given("$1.10/h").value == 1.10
    assert given("$0/h").source == "given by you"
    with pytest.raises(RequestError, match=r"--price = '2' lacks its '\$': write it as a text such as \"\$2\.00/h\"\."):
        given("2")


def test_electricity() -> None:
    assumed = electricity()
    assert assumed.value == pytest.approx(0.6e9 / (1e6 * 8760), rel=1e-3)
    assert assumed.low < assumed.value < assumed.high == 0.1729
    assert electricity("$0.12/kWh").value == 0.12
    with pytest.raises(RequestError, match="--electricity = '12 cents'"):
        electricity("12 cents")


OWN = """
source = "our contract"
date = "2026-11"
[[price]]
chip = "h20"
provider = "us"
price = "$1.10/h"
[[price]]
chip = "H100"
provider = "us"
price = { value = "$2/h", high = "$3/h" }
[[price]]
chip = "H100 SXM"
provider = "them"
price = "$2.50/h"
"""


def test_ones_own_prices_come_first(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN, encoding="utf-8")
    own = load_file(path)
    assert price(chip("h20"), own=own).value == 1.10
    assert price(chip("h20"), own=own).source == "our contract"
    assert price(chip("h100"), "us", own=own).high == 3.0
    assert price(chip("h800"), own=own).value == 2.0
    with pytest.raises(RequestError) as caught:
        price(chip("h100"), own=own)
    assert str(caught.value) == ("The prices for H100 SXM name no single default: name a provider (known: them, us).")
    path.write_text(OWN.replace('provider = "them"', 'provider = "them"\ndefault = true'), encoding="utf-8")
    assert price(chip("h100"), own=load_file(path)).value == 2.5


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('price = "$1.10/h"', "", "own.toml: 'price[0].price' is missing: write it as a text such as \"$2.00/h\"."),
        ('price = "$1.10/h"', 'price = "$1.10"', "own.toml: 'price[0].price' = '$1.10' has no unit: write it as a text such as \"$2.00/h\"."),
        ('price = "$1.10/h"', "price = 1.1", "own.toml: 'price[0].price' = 1.1 has no unit: write it as a text such as \"$2.00/h\"."),
        ('chip = "h20"', 'chhip = "h20"', "own.toml: the key 'price[0].chip' is missing."),
        ('provider = "us"', 'provider = "us"\ndefualt = true', "own.toml: unknown key 'price[0].defualt' (did you mean 'default'?)."),
        ('provider = "them"', 'provider = "us"', None),
        ('source = "our contract"', "", "own.toml: 'price[0].price' has no source, and the file names none at its top."),
        ('[[price]]\nchip = "h20"', '[price]\nchip = "h20"', None),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path: Path, old: str, new: str, sentence: str | None) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN.replace(old, new, 1), encoding="utf-8")
    if sentence is None and new == 'provider = "us"':
        path.write_text(OWN.replace(old, new, 1).replace('chip = "H100 SXM"', 'chip = "h100"'), encoding="utf-8")
        sentence = "own.toml: 'price[2].provider': 'us' has two prices for h100, keep one."
    with pytest.raises(RequestError) as caught:
        load_file(path)
    if sentence is not None:
        assert str(caught.value).replace(f"{tmp_path}/", "") == sentence


def test_all_prices_of_a_chip_the_default_first() -> None:
    found = of_chip(chip("h100"))
    assert [(entry.provider, entry.default) for entry in found] == [("market", True), ("runpod", False)]
    assert found[0].usd_per_hour == price(chip("h100"))
    assert of_chip(chip("h20")) == ()


def test_a_file_without_prices(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('source = "x"\ndate = "2026"\n', encoding="utf-8")
    with pytest.raises(RequestError, match=r"own\.toml has no \[\[price\]\] table\."):
        load_file(path)
