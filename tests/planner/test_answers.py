from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.errors import RequestError
from trilaw.core.estimators import pass_at_k
from trilaw.planner.answers import best_k, beta_binomial, cost_per_solved, kinetics, lifetime_flops
from trilaw.planner.hardware import chip
from trilaw.planner.models import model
from trilaw.planner.serve import plan_serve

LLAMA = model("llama-3.1-8b")
PLAN = plan_serve(LLAMA, chip("h100"), 1, prompt=1000, response=500, samples=8, price_per_hour=3.0)


def test_the_beta_binomial_curve_of_the_literature():
    curve = beta_binomial(0.3, 2.0)
    assert [round(curve(k), 4) for k in (10, 100, 1000, 10_000)] == [0.4415, 0.7084, 0.8532, 0.9264]
    assert curve(1) == pytest.approx(0.3 / 2.3)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 5), st.floats(0.05, 5), st.integers(1, 40))
def test_the_beta_binomial_curve_is_an_integral(a, b, k):
    # B(a, b + k) / B(a, b) as a product: (b)_k / (a + b)_k
    product = math.prod((b + i) / (a + b + i) for i in range(k))
    assert beta_binomial(a, b)(k) == pytest.approx(1 - product, rel=1e-9, abs=1e-12)


def test_a_solved_problem_costs_its_prompt_once_and_every_sample():
    rows = cost_per_solved(PLAN, {1: 0.2, 4: 0.5, 16: 0.6}, [16, 1, 4, 4])
    assert [row.k for row in rows] == [1, 4, 16]
    for row in rows:
        usd = (1000 * PLAN.usd_per_million_input + row.k * 500 * PLAN.usd_per_million_output) / 1e6
        assert row.usd == pytest.approx(usd)
        assert row.usd_per_solved == pytest.approx(usd / row.accuracy)
        assert row.chip_seconds * 3.0 / 3600 == pytest.approx(usd)
        assert row.output_tokens == 500 * row.k
    one, four, many = rows
    assert four.usd < 4 * one.usd  # the prompt is shared
    assert four.usd_per_extra_solved == pytest.approx((four.usd - one.usd) / 0.3)
    assert many.usd_per_extra_solved == pytest.approx((many.usd - four.usd) / 0.1)
    assert one.usd_per_extra_solved == pytest.approx(one.usd_per_solved)
    json.dumps([row.to_json() for row in rows], allow_nan=False)


def test_the_best_k():
    steep = cost_per_solved(PLAN, {1: 0.01, 2: 0.5, 4: 0.6}, [1, 2, 4])
    assert best_k(steep).k == 2
    assert best_k(steep, accuracy=0.55).k == 4
    # one sample solves a problem for the least when every sample is right with the same chance
    flat = cost_per_solved(PLAN, lambda k: 1 - 0.7**k, range(1, 9))
    cheap_prompt = min(flat, key=lambda row: row.usd_per_solved)
    assert best_k(flat) == cheap_prompt


def test_a_measured_curve_of_the_estimators_fits():
    rows = cost_per_solved(PLAN, lambda k: pass_at_k(16, 4, k), (1, 2, 4, 8, 16))
    assert rows[0].accuracy == 0.25
    assert rows[-1].accuracy == 1.0
    assert all(a.accuracy <= b.accuracy for a, b in itertools.pairwise(rows))


def test_nothing_solved_costs_no_made_up_sum():
    rows = cost_per_solved(PLAN, {1: 0.0, 2: 0.1}, [1, 2])
    assert (rows[0].usd_per_solved, rows[0].chip_seconds_per_solved, rows[0].usd_per_extra_solved) == (None, None, None)
    assert best_k(rows).k == 2
    unpriced = plan_serve(LLAMA, chip("h20"), 1, prompt=1000, response=500)
    row = cost_per_solved(unpriced, {1: 0.5}, [1])[0]
    assert (row.usd, row.usd_per_solved) == (None, None)
    assert row.chip_seconds_per_solved == pytest.approx(2 * row.chip_seconds)


def test_kinetics_formula():
    # arXiv 2506.05333 for full attention with grouped heads, in 16 bits:
    # compute = (2 N L + 2 (2 C + L) L h d) k, memory = 2 (2 C + L k) L h_kv d x bytes a layer, here by hand for Llama-3.1-8B
    prompt, response, k, intensity = 2000, 800, 32, 300.0
    layers, heads, kv, dim = 32, 32, 8, 128
    linear = 2 * (LLAMA.parameters() - 128_256 * 4096 - 65 * 4096)  # matrix weights: no embedding, no norms
    compute = k * (linear * response + 2 * (2 * prompt + response) * response * heads * dim * layers)
    memory = 2 * (2 * prompt + response * k) * response * kv * dim * layers * intensity
    found = kinetics(LLAMA, prompt, response, k, intensity)
    assert found == pytest.approx((compute, memory), rel=1e-9)


def test_kinetics_is_the_plan_with_a_prompt_read_once():
    # memory traffic of a step, k samples of one prompt: the same bytes as the serving plan at reread = 0
    plan = plan_serve(
        LLAMA, chip("h100"), 1, prompt=2000, response=800, samples=16, concurrency=16, assume={"serve_prompt_reread": 0.0, "serve_bandwidth": 1.0}
    )  # fmt: skip
    bytes_read = kinetics(LLAMA, 2000, 800, 16, 1.0)[1]
    assert plan.decode.attention_memory * 800 * chip("h100").memory_bandwidth.value == pytest.approx(bytes_read)


def test_lifetime():
    token = LLAMA.forward_flops(1, 0, 1)
    assert lifetime_flops(LLAMA, 1e6, prompt=100, response=1000, k=4) == pytest.approx(1e6 * token * 4100)
    half = lifetime_flops(LLAMA, 1e6, prompt=100, response=1000, k=4, cached=0.5, scorer=1e9)
    assert half == pytest.approx(1e6 * (token * 4050 + 2e9 * 4100))
    # arXiv 2401.00448 without samples: 2 N D_inf, up to the embedding table
    plain = lifetime_flops(LLAMA, 1, prompt=0, response=2_000_000_000)
    assert plain == pytest.approx(2 * LLAMA.parameters() * 2e9, rel=0.08)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: cost_per_solved(PLAN, {1: 0.5}, []), "k must be whole numbers of at least 1, they are []."),
        (lambda: cost_per_solved(PLAN, {1: 0.5}, [0, 1]), "k must be whole numbers of at least 1, they are [0, 1]."),
        (lambda: cost_per_solved(PLAN, {1: 0.5, 4: 1}, [2]), "The accuracy curve has no value for k = 2; it has 1, 4."),
        (lambda: cost_per_solved(PLAN, {1: 1.5}, [1]), "The accuracy at k = 1 is 1.5, it must lie between 0 and 1."),
        (lambda: cost_per_solved(PLAN, lambda k: math.nan, [1]), "The accuracy at k = 1 is nan"),
        (lambda: beta_binomial(0, 1), "a is 0, a Beta distribution needs a positive number."),
        (lambda: beta_binomial(1, math.inf), "b is inf, a Beta distribution needs a positive number."),
        (lambda: best_k([]), "No k tried solves anything: the accuracy is 0 everywhere."),
        (lambda: best_k(cost_per_solved(PLAN, {1: 0.5}, [1]), accuracy=0.9), "No k tried reaches an accuracy of 0.9; the best is 0.5."),
        (lambda: best_k([], accuracy=2), "The accuracy asked for is 2, it must lie above 0 and at most 1."),
        (lambda: kinetics(LLAMA, 0, 1, 1, 1), "prompt is 0, it must be positive."),
        (lambda: lifetime_flops(LLAMA, -1, prompt=1, response=1), "queries is -1, it must be a finite number of at least 0."),
        (lambda: lifetime_flops(LLAMA, 1, prompt=1, response=1, cached=1), "cached is 1, it is a share: at least 0 and below 1."),
    ],
)  # fmt: skip
def test_bad_requests(call, sentence):
    with pytest.raises(RequestError) as error:
        call()
    assert sentence in str(error.value)
