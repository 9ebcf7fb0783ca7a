from __future__ import annotations

import json
from datetime import date

import pytest

from trilaw.core.errors import RequestError
from trilaw.planner.answers import beta_binomial, cost_per_solved
from trilaw.planner.compare import CHIPS, compare
from trilaw.planner.export import classify
from trilaw.planner.hardware import chip
from trilaw.planner.models import model
from trilaw.planner.r1_zero import r1_zero
from trilaw.planner.serve import plan_serve
from trilaw.planner.train import plan_train

DAY = date(2026, 11, 24)
ANSWERS = compare(target="answers", on=DAY)


def test_answers_are_the_plan_of_serving_times_their_number():
    row = ANSWERS[0]
    assert row.chip == "H800 SXM"
    plan = plan_serve(model("deepseek-r1"), chip("h800"), 512, prompt=200, response=8793, weight_bits=8)
    one, _ = cost_per_solved(plan, {1: 0.798, 64: 0.867}, [1, 64])
    assert (row.k, row.accuracy) == (1, 0.798)
    assert row.gpu_hours == pytest.approx(1e9 * one.chip_seconds / 3600)
    assert row.hours == pytest.approx(row.gpu_hours / 512)
    assert row.usd == pytest.approx(row.gpu_hours * 2.0)
    assert row.energy_kwh == pytest.approx(row.gpu_hours * 1.275)
    assert row.binds == plan.binds
    assert row.floor_hours < row.hours


def test_every_chip_has_a_row_in_order():
    assert [row.chip for row in ANSWERS] == [chip(name).name for name in CHIPS]
    by_name = {row.chip: row for row in ANSWERS}
    for name in ("RTX 4090", "epyc-zen4-2core"):
        row = by_name[name]
        assert not row.possible
        assert row.hours is None
        assert "fits on no number of" in row.why
        assert row.floor_hours > 0
    assert by_name["H20"].usd is None  # nobody prices it
    assert (by_name["H20"].energy_of, by_name["H100 SXM"].energy_of) == ("chip alone", "chip and server")
    assert by_name["H20"].hours > by_name["H100 SXM"].hours
    json.dumps([row.to_json() for row in ANSWERS], allow_nan=False)


@pytest.mark.parametrize("day", [date(2023, 1, 1), date(2024, 6, 1), DAY])
def test_who_may_be_sold_it_is_the_export_table(day):
    for row, name in zip(compare(["h800", "h20", "cpu"], target="answers", on=day), ("h800", "h20", "cpu")):
        found = classify(chip(name), day)
        assert (row.eccn, row.licence, row.on) == (found.eccn, found.licence, day.isoformat())


def test_a_higher_accuracy_costs_more_samples():
    curve = beta_binomial(0.3, 2.0)
    low, high = (
        compare(["h100"], target="answers", curve=curve, ks=[1, 4, 16, 64, 256], accuracy=goal, on=DAY)[0]
        for goal in (0.2, 0.6)
    )
    assert (low.k, high.k) == (4, 64)
    assert low.accuracy >= 0.2
    assert high.gpu_hours > 10 * low.gpu_hours
    twice = compare(["h100"], target="answers", curve=curve, ks=[4], answers=2e9, on=DAY)[0]
    assert twice.gpu_hours == pytest.approx(2 * low.gpu_hours)


@pytest.fixture(scope="module")
def pipeline():
    return compare(["h800", "cpu"], on=DAY)


def test_the_pipeline_is_pre_training_and_reinforcement_learning(pipeline):
    row = pipeline[0]
    assert row.possible
    train = plan_train(
        model("deepseek-v3"), chip("h800"), 2048, tokens=14.8e12, batch_tokens=15_360 * 4096, precision="fp8-v3"
    )
    zero = r1_zero(model("deepseek-v3"), chip("h800"), 512).plan
    assert row.parts == {
        "pre-training": pytest.approx(train.hours),
        "reinforcement learning": pytest.approx(zero.hours),
    }
    assert row.hours == pytest.approx(train.hours + zero.hours)
    assert row.gpu_hours == pytest.approx(train.gpu_hours + zero.gpu_hours)
    assert row.usd == pytest.approx(2.0 * row.gpu_hours)
    assert row.energy_kwh == pytest.approx(train.energy_kwh + zero.energy_kwh)
    assert row.binds.startswith("pre-training: ")
    # published: 2,664K hours for pre-training, 101K for R1-Zero
    assert train.gpu_hours == pytest.approx(2_664e3, rel=0.3)
    assert row.floor_hours == pytest.approx(14.8e12 * 250.4e9 / (2048 * 989e12) / 3600, rel=0.01)
    json.dumps(row.to_json(), allow_nan=False)


def test_a_cpu_cannot_make_r1(pipeline):
    row = pipeline[1]
    assert not row.possible
    assert row.why.startswith("Pre-training: ")
    assert row.hours is None
    assert row.floor_hours / 8760 > 100  # years on 2,048 machines


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "r1"}, "'r1' is no target to compare for"),
        ({"chips": []}, "There is no chip to compare: name at least one."),
        ({"chips": ["h9000"]}, "There is no chip 'h9000'"),
        ({"count": 0}, "count is 0, it must be positive."),
        ({"answers": -1}, "answers is -1, it must be positive."),
        ({"rl_count": 0}, "rl_count is 0, it must be positive."),
        ({"assume": {"serve_speed": 1}}, "'serve_speed' is no assumption of the planner"),
        ({"assume": {"serve_bandwidth": 2}}, "The assumption 'serve_bandwidth' is 2, it is a share"),
        ({"accuracy": 0.99}, "No k tried reaches an accuracy of 0.99; the best is 0.867."),
        ({"curve": beta_binomial(1, 1)}, "A curve that is a function needs the k's to try (ks)."),
        ({"curve": {1: 2.0}}, "The accuracy at k = 1 is 2, it must lie between 0 and 1."),
    ],
)
def test_bad_requests(changes, sentence):
    options = {"chips": ["h100"], "target": "answers", "on": DAY} | changes
    with pytest.raises(RequestError) as error:
        compare(options.pop("chips"), **options)
    assert sentence in str(error.value)
