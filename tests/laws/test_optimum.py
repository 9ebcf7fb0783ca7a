"""What the first law says about a budget: against published optima, brute force, and the parabola's known error."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.fitting import NO_BOOTSTRAP
from trilaw.laws.optimum import cheapest, chinchilla_optimum, inference_optimum, isoflop, optimum, parabola_bias
from trilaw.laws.points import LossPoint
from trilaw.laws.pretrain import fit_pretrain, surface

HOFFMANN = (1.69, 406.4, 410.7, 0.34, 0.28)  # arXiv 2203.15556, as printed
UNROUNDED = (
    1.69337,
    np.exp(6.0073404),
    np.exp(6.0179186),
    0.33917084,
    0.2849083,
)  # the same, from the TeX source (arXiv 2404.10102)
EPOCH = (1.81686, 482.00572, 2085.4342, 0.34781, 0.36585)  # arXiv 2404.10102
SARDANA = (1.69, 406.4, 410.7, 0.336, 0.283)  # exponents of arXiv 2401.00448
ASYMMETRIC = (1.69, 406.4, 410.7, 0.465, 0.155)

laws = st.tuples(
    st.floats(0.0, 2.5), st.floats(50.0, 3000.0), st.floats(50.0, 3000.0), st.floats(0.2, 0.6), st.floats(0.2, 0.6)
)


def grids(theta, width, budgets=(1e17, 1e18, 1e19, 1e20, 1e21), sizes=15, noise=0.0, seed=0):
    """{budget: points at `sizes` sizes from 1/width to width times the optimum}."""
    rng = np.random.default_rng(seed)
    found = {}
    for flops in budgets:
        N = float(chinchilla_optimum(*theta, flops)[0]) * np.geomspace(1 / width, width, sizes)
        D = flops / 6 / N
        losses = surface(*theta, N, D) * np.exp(noise * rng.standard_normal(sizes))
        found[flops] = [LossPoint(float(n), float(d), float(v)) for n, d, v in zip(N, D, losses)]
    return found


@pytest.fixture(scope="module")
def fit():
    points = grids(HOFFMANN, 6.0, np.logspace(18, 21, 6), 10, noise=0.005)
    return fit_pretrain([p for part in points.values() for p in part], bootstraps=200)


@pytest.mark.parametrize(
    ("theta", "parameters", "tokens", "loss"), [(EPOCH, 72.4e9, 1.33e12, 1.974), (UNROUNDED, 40.4e9, 2.38e12, None)]
)
def test_the_published_optimum_of_chinchilla_s_budget(theta, parameters, tokens, loss):
    N, D, L = (float(v) for v in chinchilla_optimum(*theta, 5.76e23))
    assert pytest.approx(parameters, rel=0.003) == N
    assert pytest.approx(tokens, rel=0.004) == D
    if loss:
        assert pytest.approx(18.3, abs=0.1) == D / N
        assert pytest.approx(loss, abs=0.0005) == L


@given(laws, st.floats(18, 26))
@settings(max_examples=100, deadline=None)
def test_the_optimum_spends_the_budget_and_is_a_minimum(theta, log_flops):
    flops = 10.0**log_flops
    N, D, loss = (float(v) for v in chinchilla_optimum(*theta, flops))
    assert pytest.approx(flops, rel=1e-9) == 6 * N * D
    assert loss == pytest.approx(float(surface(*theta, N, D)))
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert surface(*theta, N * factor, D / factor) > loss


@given(laws, st.floats(1.2, 1e3), st.floats(1.2, 1e3))
@settings(max_examples=30, deadline=None)
def test_units_move_the_optimum_with_them(theta, n, d):
    E, A, B, alpha, beta = theta
    N, D, _ = chinchilla_optimum(*theta, 6e20)
    other_N, other_D, _ = chinchilla_optimum(E, A * n**alpha, B * d**beta, alpha, beta, 6e20 * n * d)
    assert float(other_N / N) == pytest.approx(n, rel=1e-9)
    assert float(other_D / D) == pytest.approx(d, rel=1e-9)


def test_arrays_of_laws_broadcast():
    theta = np.array([HOFFMANN, EPOCH]).T
    N, D, loss = chinchilla_optimum(*theta, 5.76e23)
    for i, one in enumerate((HOFFMANN, EPOCH)):
        assert [float(v[i]) for v in (N, D, loss)] == pytest.approx(
            [float(v) for v in chinchilla_optimum(*one, 5.76e23)]
        )


def test_optimum_has_intervals_from_the_draws(fit):
    got = optimum(fit, 9e21)
    N, D, loss = (float(v) for v in chinchilla_optimum(*HOFFMANN, 9e21))
    assert got.parameters.low < N < got.parameters.high
    assert got.tokens.low < D < got.tokens.high
    assert got.loss.low < loss < got.loss.high
    assert 6 * got.parameters.value * got.tokens.value == pytest.approx(9e21)
    assert got.notes == ()
    assert got.parameters.method == "bootstrap over points, 90%"
    assert json.loads(json.dumps(got.to_json(), allow_nan=False))["parameters"]["value"] == got.parameters.value


def test_optimum_says_when_it_is_far_and_refuses_below_the_data(fit):
    assert optimum(fit, 1e25).notes[0].startswith("1e+04x beyond the data in compute")
    with pytest.raises(RequestError, match=r"5e\+17 FLOPs is below the smallest run of the data, 1e\+18"):
        optimum(fit, 5e17)
    assert optimum(fit, 1e18).flops == 1e18  # the smallest run itself
    with pytest.raises(RequestError, match="flops is nan"):
        optimum(fit, float("nan"))
    small = grids(HOFFMANN, 6.0, (1e18, 1e19, 1e20), 6)
    rich = [
        replace(p, tokens=p.tokens * 1000, loss=float(surface(*HOFFMANN, p.parameters, p.tokens * 1000)))
        for part in small.values()
        for p in part
    ]
    notes = optimum(fit_pretrain(rich, bootstraps=0), 1e22).notes
    assert any("tokens a parameter lie outside those of the data" in note for note in notes)


def test_without_bootstrap_the_optimum_is_a_point(fit):
    bare = fit_pretrain(fit.points, bootstraps=0)
    got, serving = optimum(bare, 1e21), inference_optimum(bare, 2.5, 1e12)
    for estimate in (got.parameters, got.loss, serving.parameters, serving.saving):
        assert estimate.low == estimate.value == estimate.high
        assert estimate.method == NO_BOOTSTRAP


def test_the_13B_example_of_sardana():
    """arXiv 2401.00448, figure 1: a 13B model of Chinchilla quality and 2T tokens of demand -> 7B, 17% and 1.7e22 FLOPs saved."""
    _, A, B, alpha, beta = SARDANA
    N0 = 13e9
    D0 = (beta * B / (alpha * A) * N0**alpha) ** (1 / beta)  # where 13B is the compute-optimal size
    loss = float(surface(*SARDANA, N0, D0))
    N, D = (float(v) for v in cheapest(*SARDANA, loss, 2e12))
    assert [float(v) for v in cheapest(*SARDANA, loss, 0.0)] == pytest.approx([N0, D0], rel=1e-9)
    assert pytest.approx(6.97e9, rel=0.001) == N
    assert pytest.approx(1.25e12, rel=0.003) == D
    before, after = 6 * N0 * D0 + 2 * N0 * 2e12, 6 * N * D + 2 * N * 2e12
    assert 1 - after / before == pytest.approx(0.174, abs=0.0005)
    assert before - after == pytest.approx(1.69e22, rel=0.002)


def test_sardana_with_the_replication_s_law():
    N0 = 13e9
    alpha, beta = EPOCH[3:]
    D0 = (beta * EPOCH[2] / (alpha * EPOCH[1]) * N0**alpha) ** (1 / beta)
    N, D = (float(v) for v in cheapest(*EPOCH, float(surface(*EPOCH, N0, D0)), 2e12))
    assert pytest.approx(6.09e9, rel=0.001) == N
    assert pytest.approx(0.74e12, rel=0.01) == D
    assert pytest.approx(0.29, abs=0.001) == 1 - (6 * N * D + 2 * N * 2e12) / (6 * N0 * D0 + 2 * N0 * 2e12)


@given(laws, st.floats(0.05, 1.5), st.floats(9, 16), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_cheapest_equals_a_search(theta, room, log_tokens, log_price):
    E, A, B, alpha, beta = theta
    loss, served, price = E + room, 10.0**log_tokens, 10.0**log_price
    N, D = (float(v) for v in cheapest(*theta, loss, served, 1.0, price))
    assert float(surface(*theta, N, D)) == pytest.approx(loss, rel=1e-9)

    def log_cost(log_n):
        left = room - A * np.exp(-alpha * log_n)
        return (
            np.log(6.0 * np.exp(log_n) * (B / left) ** (1 / beta) + price * 2.0 * np.exp(log_n) * served)
            if left > 0
            else 1e9
        )

    least = np.log(A / room) / alpha
    found = minimize_scalar(log_cost, bounds=(least + 1e-9, least + 40), method="bounded", options={"xatol": 1e-10})
    assert log_cost(np.log(N)) <= found.fun + 1e-9


def test_serving_makes_models_smaller_and_prices_weigh(fit):
    alone, some, much = (inference_optimum(fit, 2.4, served) for served in (0.0, 1e11, 1e13))
    assert alone.parameters.value == pytest.approx(alone.training_only_parameters.value)
    assert alone.saving.value == pytest.approx(0.0, abs=1e-12)
    assert alone.parameters.value > some.parameters.value > much.parameters.value
    assert alone.tokens.value < some.tokens.value < much.tokens.value
    assert 0 < some.saving.value < much.saving.value < 1
    assert much.saving.low < much.saving.value < much.saving.high
    dear = inference_optimum(fit, 2.4, 1e11, inference_cost=4.0)
    assert dear.parameters.value == pytest.approx(inference_optimum(fit, 2.4, 4e11).parameters.value)
    both = inference_optimum(fit, 2.4, 1e11, train_cost=3.0, inference_cost=3.0)
    assert both.parameters.value == pytest.approx(some.parameters.value)
    assert both.cost.value == pytest.approx(3.0 * some.cost.value)
    json.dumps(much.to_json(), allow_nan=False)


def test_inference_optimum_refuses_and_warns(fit):
    with pytest.raises(RequestError, match=r"1\.2 is not above the irreducible loss"):
        inference_optimum(fit, 1.2, 1e12)
    for options, words in (
        ({"train_cost": 0.0}, r"train_cost is 0\.0"),
        ({"inference_cost": -1.0}, "inference_cost"),
        ({"inference_tokens": -1.0}, r"inference_tokens is -1\.0"),
    ):
        with pytest.raises(RequestError, match=words):
            inference_optimum(fit, 2.4, **({"inference_tokens": 1e12} | options))
    near = inference_optimum(fit, fit.E.value + 0.02, 1e12)
    assert any("beyond the data" in note for note in near.notes)
    assert any("of the draws no model reaches this loss" in note for note in near.notes)


@pytest.mark.parametrize(
    ("theta", "errors"),
    [(HOFFMANN, (-0.33, -1.30, -2.90, -5.10)), (ASYMMETRIC, (-1.67, -6.50, -13.9, -23.1))],
)
def test_the_parabola_errs_as_published_and_the_law_does_not(theta, errors):
    """Error of D* at 1e24 from 1e17 to 1e21 without noise, for sizes of 2x, 4x, 8x and 16x about the optimum (arXiv 2603.22339)."""
    truth = float(chinchilla_optimum(*theta, 1e24)[1])
    for width, percent in zip((2.0, 4.0, 8.0, 16.0), errors):
        points = grids(theta, width)
        parabola = isoflop(points)
        assert 100 * (parabola.extrapolate(1e24)[1] / truth - 1) == pytest.approx(percent, abs=0.05)
        assert parabola.parameter_exponent == pytest.approx(
            theta[4] / (theta[3] + theta[4]), abs=1e-6
        )  # the slope is right
        beside = parabola_bias(points, 1e24)
        assert 100 * beside.tokens_bias == pytest.approx(percent, abs=0.05)
        assert beside.tokens_difference == pytest.approx(beside.tokens_bias, abs=1e-5)  # no noise: all of it is bias
        assert abs(beside.law_tokens / truth - 1) < 1e-3
        assert beside.law_tokens == pytest.approx(truth, rel=1e-5)


def test_the_parabola_is_right_on_a_symmetric_surface():
    beside = parabola_bias(grids((1.69, 400.0, 400.0, 0.3, 0.3), 16.0), 1e24)
    assert beside.tokens_bias == pytest.approx(0.0, abs=1e-6)
    assert beside.parameters_bias == pytest.approx(0.0, abs=1e-6)


def test_noise_is_told_apart_from_bias():
    points = grids(HOFFMANN, 8.0, noise=0.003)
    beside = parabola_bias(points, 1e24)
    fit = fit_pretrain([p for part in points.values() for p in part], bootstraps=0)
    assert parabola_bias(points, 1e24, fit=fit) == beside
    assert beside.tokens_bias == pytest.approx(-0.029, abs=0.02)
    assert beside.tokens_difference == pytest.approx(beside.parabola_tokens / beside.law_tokens - 1)
    assert beside.to_json()["flops"] == 1e24


def test_isoflop_by_hand():
    """Parabolas that are exact: loss = 2 + (ln N - ln N*)^2 with N* = sqrt(C)."""
    points = {
        C: [LossPoint(C**0.5 * f, C**0.5 / 6 / f, 2.0 + np.log(f) ** 2) for f in (0.5, 1.0, 3.0)] for C in (1e18, 1e20)
    }
    got = isoflop(points)
    assert [p.parameters for p in got.budgets] == pytest.approx([1e9, 1e10])
    assert [p.loss for p in got.budgets] == pytest.approx([2.0, 2.0])
    assert (got.parameter_exponent, got.token_exponent) == pytest.approx((0.5, 0.5))
    assert got.extrapolate(1e22) == pytest.approx((1e11, 1e11 / 6))
    assert got.notes == ()
    lopsided = isoflop(
        {C: [LossPoint(C**0.5 * f, C**0.5 / 6 / f, 2.0 + np.log(f) ** 2) for f in (2, 3, 4)] for C in points}
    )
    assert "outside the sizes tried at 1e+18, 1e+20 FLOPs" in lopsided.notes[0]


def test_isoflop_refuses():
    points = grids(HOFFMANN, 4.0)
    for bad, words in (
        ({1e18: points[1e18]}, "1 budgets"),
        ({**points, 1e18: points[1e18][:2]}, r"At 1e\+18 FLOPs there are 2 sizes"),
        ({**points, 1e18: [replace(p, loss=5 - p.loss) for p in points[1e18]]}, "no lowest point"),
        ({**points, 1e18: [replace(p, group="x") for p in points[1e18]]}, "2 groups"),
    ):
        with pytest.raises(LawError, match=words):
            isoflop(bad)
    with pytest.raises(RequestError, match="flops"):
        isoflop(points).extrapolate(0.0)


def test_the_optimum_of_the_replication_s_points(shared_data):
    with (shared_data / "chinchilla" / "svg_extracted_data.csv").open() as file:
        rows = [(float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"])) for r in csv.DictReader(file)]
    points = [LossPoint(N, C / (6 * N), L) for N, C, L in sorted(rows, key=lambda row: row[2])[:-5]]
    got = optimum(fit_pretrain(points, bootstraps=400), 5.76e23)
    assert got.parameters.low < 72.4e9 < got.parameters.high
    assert got.parameters.value == pytest.approx(72.4e9, rel=0.05)
    assert got.tokens.value / got.parameters.value == pytest.approx(18.3, rel=0.1)
    assert got.parameters.low > 40.4e9  # the optimum of the printed law lies outside
    assert got.loss.value == pytest.approx(1.974, abs=0.001)
    assert got.notes[0].startswith("44.5x beyond the data in compute")
