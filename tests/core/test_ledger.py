from __future__ import annotations

import pytest

from trilaw.core.ledger import Totals, count, duration, energy, flops, money, rates


def test_totals_add_up_and_speak():
    total = Totals(1e12, 2.0, 100) + Totals(2e12, 3.0, 400)
    assert total == Totals(3e12, 5.0, 500)
    assert total.tokens_per_second == 100.0
    assert str(total) == "500 tokens, 5.0 s, 100 tokens/s, 3.0e12 FLOPs"
    assert str(Totals()) == "0 tokens, 0.0 s, 0 tokens/s"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (2.5, "2.5"),
        (999, "999"),
        (1000, "1.0k"),
        (12345, "12.3k"),
        (999_960, "1.0M"),
        (2.1e9, "2.1B"),
        (3e12, "3.0T"),
    ],
)
def test_count(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7380, "2 h 3 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_flops():
    assert flops(1.2e15) == "1.2e15 FLOPs"
    assert flops(0) == "0 FLOPs"


def test_energy_and_money_at_stated_rates():
    assumed = rates(cores=2)
    assert (assumed.watts, assumed.joules(3600)) == (20.0, 72_000.0)
    assert assumed.usd(3600) == pytest.approx(0.02 * 0.15)
    assert "10 W for each of 2 cores" in assumed.about
    assert "assumed" in assumed.about
    given = rates(cores=2, watts=700, usd_per_kwh=0.1)
    assert given.usd(7200) == pytest.approx(1.4 * 0.1)
    assert "assume" not in given.about
    rent = rates(cores=8, accelerators=1, usd_per_hour=2.0)
    assert rent.watts == 580
    assert rent.usd(1800) == 1.0  # electricity is in the rent


@pytest.mark.parametrize(
    ("joules", "text"), [(0, "0.0 Wh"), (36, "1.0e-02 Wh"), (7200, "2.0 Wh"), (3.6e6, "1.0 kWh"), (7.2e9, "2.0 MWh")]
)
def test_energy(joules, text):
    assert energy(joules) == text


@pytest.mark.parametrize(
    ("usd", "text"), [(0, "$0.00"), (0.00123, "$0.0012"), (0.5, "$0.5"), (12.3, "$12.30"), (5_576_000, "$5,576,000")]
)
def test_money(usd, text):
    assert money(usd) == text
