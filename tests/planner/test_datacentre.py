from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.errors import RequestError
from trilaw.planner.anchors import anchor, anchors
from trilaw.planner.datacentre import DEFINITIONS, check_claim, plan_datacentre

GIGAWATT = plan_datacentre(gw=1)


def test_a_gigawatt_of_gb200_as_epoch_counts_it():
    # 132 kW a rack of 72; $38B and $8.5B a year: (calc) 545k GPUs, $70k each, $1.78 an hour
    assert GIGAWATT.chips == pytest.approx(1e9 / (132e3 / 72), rel=1e-3)
    assert GIGAWATT.chips == pytest.approx(545e3, rel=2e-3)
    assert GIGAWATT.capex == pytest.approx(38e9)
    assert GIGAWATT.usd_per_chip == pytest.approx(70e3, rel=0.01)
    assert GIGAWATT.usd_per_chip_hour == pytest.approx(1.78, abs=0.005)
    assert GIGAWATT.gw == 1.0


def test_v3_takes_hours_of_a_gigawatt():
    # 427k GPUs (a gigawatt of facility power as Bernstein counts) x 2.5 PFLOP/s x 40 %: 2.4 hours
    exact = plan_datacentre(gw=1, definition="facility", assume={"datacentre_facility_over_it": 168.6 / 132})
    assert exact.chips == pytest.approx(427e3, rel=3e-3)
    assert exact.v3_hours == pytest.approx(2.4, abs=0.02)
    assert exact.v3_hours == pytest.approx(14.8e12 * 250e9 / (exact.chips * 2.5e15 * 0.4) / 3600)
    assert exact.v3_per_day == pytest.approx(24 / exact.v3_hours)
    # 1e26 FLOP is 27 times V3
    assert exact.frontier_days * 24 / exact.v3_hours == pytest.approx(1e26 / 3.7e24)
    assert exact.frontier_per_year == pytest.approx(365 / exact.frontier_days)
    assert exact.r1_hours == pytest.approx(147e3 * 989e12 / (exact.chips * 2.5e15), rel=1e-3)


def test_definitions_of_a_gigawatt_differ_by_half():
    plans = {name: plan_datacentre(gw=1, definition=name) for name in DEFINITIONS}
    assert plans["IT"].chips > plans["facility"].chips > plans["utility"].chips
    for name, plan in plans.items():
        assert plan.watts[name] == pytest.approx(1e9)
        assert plan.gw == pytest.approx(1.0)
        assert plan.watts["facility"] / plan.watts["IT"] == pytest.approx(1.25)
        assert plan.watts["utility"] / plan.watts["facility"] == pytest.approx(1.2)
        assert plan.capex_per_gw[name] == pytest.approx(plan.capex, rel=1e-9)
        assert plan.watts_per_chip[name] == pytest.approx(1e9 / plan.chips)
    assert plans["facility"].watts_per_chip["facility"] == pytest.approx(2.34e3, rel=0.03)  # Bernstein's 2.34 kW


def test_money_and_power_agree():
    plan = plan_datacentre(capex=500e9)
    assert plan.watts["IT"] == pytest.approx(500 / 38 * 1e9)
    back = plan_datacentre(gw=plan.gw)
    assert back.capex == pytest.approx(500e9)
    assert back.chips == plan.chips


def test_tokens_answers_and_their_price():
    serve = GIGAWATT.serve
    each = serve.output_tokens_per_second / serve.count
    assert GIGAWATT.output_tokens_per_day == pytest.approx(each * GIGAWATT.chips * 86_400)
    assert GIGAWATT.answers_per_day == pytest.approx(GIGAWATT.output_tokens_per_day / 8_793)
    spent = GIGAWATT.usd_per_chip_hour * GIGAWATT.chips * 24
    assert GIGAWATT.usd_per_million_output == pytest.approx(spent / GIGAWATT.output_tokens_per_day * 1e6)
    assert serve.seconds_per_output_token <= 0.05
    assert serve.count == 72
    half = plan_datacentre(gw=1, assume={"datacentre_use": 0.5})
    assert half.output_tokens_per_day == pytest.approx(GIGAWATT.output_tokens_per_day / 2)
    assert half.usd_per_chip_hour == pytest.approx(2 * GIGAWATT.usd_per_chip_hour)
    # a chip hour costs as much whether it is used or not, so a token costs twice as much
    assert half.usd_per_million_output == pytest.approx(2 * GIGAWATT.usd_per_million_output)


@settings(max_examples=5, deadline=None)
@given(st.floats(0.01, 100), st.sampled_from(DEFINITIONS))
def test_a_plan_scales_with_its_power(gw, definition):
    small = plan_datacentre(gw=gw, definition=definition)
    large = plan_datacentre(gw=2 * gw, definition=definition)
    for name in ("capex", "flops", "output_tokens_per_day", "answers_per_day", "v3_per_day"):
        assert getattr(large, name) == pytest.approx(2 * getattr(small, name), rel=1e-3)  # whole chips
    assert large.usd_per_chip_hour == pytest.approx(small.usd_per_chip_hour, rel=1e-3)


def test_published_figures_stand_beside_with_their_definition():
    names = {x.name for x in GIGAWATT.published}
    assert {
        "stargate_usd_per_gw", "nvidia_usd_per_gw", "ibm_usd_per_gw", "bernstein_usd_per_gw", "epoch_hub_usd_per_gw", "epoch_model_usd_per_gw",
    } <= names  # fmt: skip
    for one in anchors().values():
        assert one.definition
        assert one.source
        assert one.date[:2] == "20"
        assert one.unit
    assert anchor("stargate_usd_per_gw").value == pytest.approx(400e9 / 7, rel=0.01)
    powers = [x for x in anchors().values() if x.unit == "W"]
    assert all(x.definition in DEFINITIONS for x in powers)
    with pytest.raises(RequestError, match="'bernstein_usd' is no published figure"):
        anchor("bernstein_usd")


def test_plain():
    data = json.loads(json.dumps(GIGAWATT.to_json(), allow_nan=False))
    for key in (
        "gw",
        "chips",
        "capex",
        "capex_per_gw",
        "usd_per_chip_hour",
        "answers_per_day",
        "v3_per_day",
        "published",
        "sheet",
    ):
        assert key in data
    used = {a["name"] for a in data["sheet"]["assumptions"]}
    assert {"datacentre_capex_per_gw", "datacentre_facility_over_it", "datacentre_mfu"} <= used


# Claims


def test_fifty_thousand_racks_in_a_building_cannot_be():
    claim = check_claim(racks=50_000, power=1.2e9 / 8, definition="utility")
    assert claim.verdict == "impossible"
    assert claim.gpus == 3_600_000
    assert claim.watts_per_gpu == pytest.approx(42, abs=0.5)
    assert "have 42 W each" in claim.sentence
    assert "Were 50,000 the number of GPUs, each would have 3.0 kW" in claim.sentence
    meant = check_claim(gpus=400_000, power=1.2e9, definition="utility")
    assert meant.verdict == "plausible"
    assert meant.watts_per_gpu == pytest.approx(3_000)
    assert json.loads(json.dumps(meant.to_json()))["verdict"] == "plausible"


@pytest.mark.parametrize(
    ("power", "verdict"), [(599, "impossible"), (601, "short of power"), (1700, "short of power"), (1833, "plausible"), (5499, "plausible"), (5501, "power to spare")]
)  # fmt: skip
def test_verdicts(power, verdict):
    assert check_claim(gpus=1, power=power, definition="IT").verdict == verdict


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: plan_datacentre(), "Give either the money (capex) or the power (gw) of the datacentre, and not both."),
        (lambda: plan_datacentre(gw=1, capex=1e9), "and not both."),
        (lambda: plan_datacentre(gw=-1), "gw is -1 gigawatts, it must be a positive number."),
        (lambda: plan_datacentre(gw=float("nan")), "gw is nan gigawatts, it must be a positive number."),
        (lambda: plan_datacentre(gw=1e9), "gw is 1e+09 gigawatts, more than the world has: is the unit right?"),
        (lambda: plan_datacentre(capex=1e18), "capex is 1e+18 dollars, more than the world has"),
        (lambda: plan_datacentre(gw=1e-9), "1 W of IT power do not run a single GB200, which takes 1833 W with its server."),
        (lambda: plan_datacentre(gw=1, chip="gb20"), "There is no chip 'gb20' (did you mean 'GB200'?)"),
        (lambda: plan_datacentre(gw=1, definition="grid"), "'grid' is no definition of a datacentre's power (known: IT, facility, utility)."),
        (lambda: plan_datacentre(gw=1, chip="4090"), "No source gives 'all_in_watts' of RTX 4090"),
        (lambda: plan_datacentre(gw=1, target_latency=1e-9), "No number of GB200 tried serves deepseek-r1; the last said: No layout of"),
        (lambda: plan_datacentre(gw=1, assume={"datacentre_facility_over_it": 0.9}), "it cannot be below 1"),
        (lambda: plan_datacentre(gw=1, assume={"pue": 1.2}), "'pue' is no assumption of the planner"),
        (lambda: check_claim(power=1e6), "Give either racks or gpus of the claim, and not both."),
        (lambda: check_claim(power=1e6, racks=0), "racks is 0 of them, it must be a positive number."),
        (lambda: check_claim(power=0, gpus=1), "power is 0 watts, it must be a positive number."),
    ],
)  # fmt: skip
def test_bad_requests(call, sentence):
    with pytest.raises(RequestError) as error:
        call()
    assert sentence in str(error.value)
