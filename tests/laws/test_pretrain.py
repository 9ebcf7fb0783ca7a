"""The pre-training law: against a noise-free surface, scipy, the published replication, and real models held out."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.fitting import NO_BOOTSTRAP
from trilaw.laws.optimum import chinchilla_optimum
from trilaw.laws.points import LossPoint
from trilaw.laws.pretrain import METHOD, fit_pretrain, surface
from trilaw.laws.pretrain_descent import EXPONENTS, GRID, descend, starts

HOFFMANN = (1.69, 406.4, 410.7, 0.34, 0.28)  # arXiv 2203.15556, as printed
EPOCH = (1.81686, 482.00572, 2085.4342, 0.34781, 0.36585)  # arXiv 2404.10102


def isoflop_grid(theta=HOFFMANN, budgets=6, sizes=10, width=6.0, low=18, high=21):
    """N and D of `sizes` models around the optimum of each budget."""
    N, D = [], []
    for flops in np.logspace(low, high, budgets):
        best = float(chinchilla_optimum(*theta, flops)[0])
        for factor in np.geomspace(1 / width, width, sizes):
            N.append(best * factor)
            D.append(flops / 6 / (best * factor))
    return np.array(N), np.array(D)


def points_of(N, D, losses, group=""):
    return [LossPoint(float(n), float(d), float(loss), group=group) for n, d, loss in zip(N, D, losses)]


def noisy(theta=HOFFMANN, noise=0.005, seed=0, **grid):
    N, D = isoflop_grid(theta, **grid)
    return points_of(N, D, surface(*theta, N, D) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N))))


def published(shared_data):
    """The 240 points of the replication: read off a figure, D = C / (6 N), the five highest losses dropped."""
    with (shared_data / "chinchilla" / "svg_extracted_data.csv").open() as file:
        rows = [(float(r["Model Size"]), float(r["Training FLOP"]), float(r["loss"])) for r in csv.DictReader(file)]
    return [LossPoint(N, C / (6 * N), L) for N, C, L in sorted(rows, key=lambda row: row[2])[:-5]]


def overtrained(shared_data, dataset):
    """Models of arXiv 2403.08540 trained on one corpus: (below 1B parameters, above)."""
    with (shared_data / "laws" / "gadre_overtraining_104.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["dataset"] == dataset]
    points = [LossPoint(float(r["params"]), float(r["tokens"]), float(r["loss_c4_val"])) for r in rows]
    return [p for p in points if p.parameters < 1e9], [p for p in points if p.parameters >= 1e9]


@pytest.mark.parametrize("theta", [HOFFMANN, EPOCH, (0.0, 20.0, 30.0, 0.12, 0.15), (2.0, 9e4, 50.0, 0.7, 0.2)])
def test_points_without_noise_give_the_surface_back(theta):
    N, D = isoflop_grid()
    fit = fit_pretrain(points_of(N, D, surface(*theta, N, D)), bootstraps=20)
    assert fit.theta == pytest.approx(theta, rel=1e-6, abs=1e-6)
    assert fit.allocation.value == pytest.approx(theta[4] / (theta[3] + theta[4]), rel=1e-6)
    assert fit.loss(7e10, 1.4e12) == pytest.approx(
        theta[0] + theta[1] / 7e10 ** theta[3] + theta[2] / 1.4e12 ** theta[4]
    )


def test_a_known_irreducible_loss_is_kept():
    points = noisy(noise=0.01)
    fit = fit_pretrain(points, irreducible=1.69, bootstraps=50)
    assert (fit.E.value, fit.E.low, fit.E.high) == (1.69, 1.69, 1.69)
    open_fit = fit_pretrain(points, bootstraps=50)
    assert fit.alpha.high - fit.alpha.low < open_fit.alpha.high - open_fit.alpha.low  # what is known need not be learnt
    assert fit.alpha.low < 0.34 < fit.alpha.high
    assert "given as 1.69" in fit.notes[0]
    assert fit_pretrain(points, irreducible=0.0, bootstraps=0).E.value == 0.0


def objective(z, points, weights=1.0, delta=1e-3):
    """The replication's form, written out again: log E, log A, log B, alpha, beta."""
    N, D, L = np.array([(p.parameters, p.tokens, p.loss) for p in points]).T
    terms = np.stack([z[0] + 0 * N, z[1] - z[3] * np.log(N), z[2] - z[4] * np.log(D)])
    r = np.abs(np.logaddexp.reduce(terms, axis=0) - np.log(L))
    return float((weights * np.where(r <= delta, 0.5 * r * r, delta * (r - 0.5 * delta))).sum())


@pytest.mark.parametrize("seed", [0, 1])
def test_no_start_of_scipy_gets_deeper(seed):
    points = noisy(seed=seed)
    fit = fit_pretrain(points, bootstraps=0)
    ours = objective([*np.log(fit.theta[:3]), *fit.theta[3:]], points)
    assert fit.objective == pytest.approx(ours, rel=1e-9)
    draws = np.random.default_rng(seed)
    for _ in range(6):
        start = [
            *np.log(HOFFMANN[:3]) + draws.normal(0, 0.3, 3),
            *np.array(HOFFMANN[3:]) * np.exp(draws.normal(0, 0.2, 2)),
        ]
        found = minimize(
            objective, start, args=(points,), method="Nelder-Mead", options={"maxiter": 3000, "maxfev": 3000}
        )
        assert ours <= found.fun * (1 + 1e-7)


def test_each_weighted_draw_is_minimised_too():
    points = noisy(sizes=5)
    N, D, L = np.array([(p.parameters, p.tokens, p.loss) for p in points]).T
    x, y, t = (np.log(v) - np.log(v).mean() for v in (N, D, L))
    weights = np.random.default_rng(0).standard_exponential((3, len(points)))
    start = np.tile([0.5, np.log(0.2), np.log(0.3), 0.3, 0.3], (3, 1))
    z, depth = descend(start, x, y, t, weights, np.ones(5, dtype=bool), 1e-3)
    for row in range(3):
        E, a, b, alpha, beta = z[row]
        natural = [
            np.log(E) + np.log(L).mean(),
            a + np.log(L).mean() + alpha * np.log(N).mean(),
            b + np.log(L).mean() + beta * np.log(D).mean(),
            alpha,
            beta,
        ]
        assert depth[row] == pytest.approx(objective(natural, points, weights[row]), rel=1e-6)
        found = minimize(
            objective, natural, args=(points, weights[row]), method="Nelder-Mead", options={"maxfev": 2000}
        )
        assert depth[row] <= found.fun * (1 + 1e-6)


def test_the_grid_solves_non_negative_least_squares():
    points = noisy(noise=0.02)
    N, D, L = np.array([(p.parameters, p.tokens, p.loss) for p in points]).T
    x, y, t = (np.log(v) - np.log(v).mean() for v in (N, D, L))
    z = starts(x, y, t, (True, True, True), None)
    pinned = 0
    for row in z[:: len(z) // 60]:
        columns = np.exp(-t)[:, None] * np.stack([np.ones(len(x)), np.exp(-row[3] * x), np.exp(-row[4] * y)], axis=1)
        coefficients, depth = nnls(columns, np.ones(len(x)))
        ours = np.linalg.norm(columns @ np.array([row[0], np.exp(row[1]), np.exp(row[2])]) - 1)
        assert ours == pytest.approx(depth, rel=1e-5)
        pinned += bool((coefficients == 0).any())
    assert len(z) == GRID**2
    assert pinned > 5  # the active sets were put to use


def test_the_same_arguments_give_the_same_answer():
    points = noisy(sizes=4)
    fit, again, other = (fit_pretrain(points, bootstraps=40, seed=seed) for seed in (3, 3, 4))
    assert fit == again
    assert np.array_equal(fit.draws_SP, again.draws_SP)
    assert fit.theta == other.theta
    assert fit.alpha.low != other.alpha.low
    assert fit.draws_SP.shape == (40, 5)
    assert (fit.alpha.n, fit.alpha.method) == (24, f"{METHOD}, 90%")


def test_without_bootstrap_the_interval_is_the_point():
    fit = fit_pretrain(noisy(sizes=4), bootstraps=0)
    for estimate in (fit.E, fit.allocation, fit.predict(1e9, 1e10)):
        assert estimate.low == estimate.value == estimate.high
        assert estimate.method == NO_BOOTSTRAP


@given(st.floats(-6, 6), st.floats(-6, 6), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_units_of_parameters_and_tokens_move_only_A_and_B(log_n, log_d, seed):
    points = noisy(seed=seed, sizes=5)
    moved = [replace(p, parameters=p.parameters * 10**log_n, tokens=p.tokens * 10**log_d) for p in points]
    fit, other = fit_pretrain(points, bootstraps=0), fit_pretrain(moved, bootstraps=0)
    E, A, B, alpha, beta = fit.theta
    assert other.theta == pytest.approx((E, A * 10 ** (log_n * alpha), B * 10 ** (log_d * beta), alpha, beta), rel=1e-4)


@given(st.permutations(range(30)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_points_does_not_matter(order):
    points = noisy(sizes=5)
    assert fit_pretrain([points[i] for i in order], bootstraps=0).theta == pytest.approx(
        fit_pretrain(points, bootstraps=0).theta, rel=1e-5
    )


def test_a_prediction_is_of_a_new_model():
    points = noisy(noise=0.01, seed=2)
    fit = fit_pretrain(points, bootstraps=200)
    assert fit.spread == pytest.approx(0.01, rel=0.3)
    inside = fit.predict(3e8, 6e9)
    assert inside.low < fit.loss(3e8, 6e9) < inside.high
    law = np.quantile(surface(*fit.theta_S, 3e8, 6e9), [0.05, 0.95])
    assert inside.high - inside.low > 2 * (
        law[1] - law[0]
    )  # amid the data the law is known far better than one model is
    assert np.log(inside.high / inside.low) == pytest.approx(2 * 1.645 * 0.01, rel=0.35)
    far = fit.predict(3e11, 6e12)
    assert far.high / far.low > inside.high / inside.low


def test_reach_and_caution():
    fit = fit_pretrain(noisy(), bootstraps=0)
    assert fit.reach(1e9, 1e21 / 6e9) == pytest.approx(1.0)
    N, D = (float(v) for v in chinchilla_optimum(*HOFFMANN, 3e21)[:2])
    assert fit.caution(N, D) is None
    N, D = (float(v) for v in chinchilla_optimum(*HOFFMANN, 4e23)[:2])
    assert fit.caution(N, D).startswith("400x beyond the data in compute")
    biggest = max(p.parameters for p in fit.points)
    assert fit.caution(30 * biggest, 1e8).startswith("30x beyond the data in parameters:")  # at a compute that was seen
    assert "parameters, downwards" in fit.caution(min(p.parameters for p in fit.points) / 20, 1e9)


def test_json_is_plain_and_finite():
    fit = fit_pretrain(noisy(sizes=4), bootstraps=30)
    told = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    assert told["alpha"] == {
        "value": fit.alpha.value,
        "low": fit.alpha.low,
        "high": fit.alpha.high,
        "n": 24,
        "method": f"{METHOD}, 90%",
    }
    assert told["points"] == 24
    assert told["largest_flops"] == pytest.approx(1e21)


def test_notes_say_what_the_data_do_not_determine():
    N, D = isoflop_grid()
    flat = fit_pretrain(points_of(N, D, surface(0.0, 20.0, 30.0, 0.12, 0.15, N, D)), bootstraps=0)
    assert any("E was pressed down to nought" in note for note in flat.notes)
    rng = np.random.default_rng(1)
    shallow = surface(0.3, 20.0, 30.0, 0.12, 0.15, N, D) * np.exp(0.01 * rng.standard_normal(len(N)))
    notes = fit_pretrain(points_of(N, D, shallow), bootstraps=100).notes
    assert any("E reaches down to nought" in note or "E was pressed" in note for note in notes)
    steep = 2.0 + (N / N.min()) ** -5.0 + (D / D.min()) ** -0.3
    assert any(
        f"alpha ran to the edge of what is searched, {EXPONENTS[0]:g} to 3" in n
        for n in fit_pretrain(points_of(N, D, steep), bootstraps=0).notes
    )
    losses = surface(*HOFFMANN, N, D) * np.exp(0.003 * rng.standard_normal(len(N)))
    losses[7] *= 1.5
    fit = fit_pretrain(points_of(N, D, losses), bootstraps=0)
    assert any("1 of 60 points" in note for note in fit.notes)
    assert fit.alpha.value == pytest.approx(0.34, abs=0.05)  # and Huber's loss did not follow it


def refusal(points, **options):
    with pytest.raises(LawError) as caught:
        fit_pretrain(points, **options)
    text = str(caught.value)
    assert text.endswith(".")
    return text


def test_refusals_name_what_is_missing():
    points = noisy(sizes=4)
    need = "the law needs at least 6 with at least 3 sizes and 3 token counts"
    assert refusal([]) == f"There are 0 distinct points (N, D) in 0: {need}."
    assert refusal(points[:5]) == f"There are 5 distinct points (N, D) in 5: {need}."
    assert refusal(points[:5] * 3) == f"There are 5 distinct points (N, D) in 15: {need}."
    one_size = [LossPoint(1e8, 1e9 * k, 3 + 1 / k) for k in range(1, 8)]
    assert refusal(one_size) == f"The 7 points have only 1 size (N = 1e+08): {need}."
    two_counts = [LossPoint(1e8 * k, 1e9 * (1 + k % 2), 3 + 1 / k) for k in range(1, 8)]
    assert refusal(two_counts) == f"The 7 points have only 2 token counts (D = 1e+09, 2e+09): {need}."
    assert "2 groups ('', 'other')" in refusal([*points, replace(points[0], group="other")])
    for value in (float("nan"), float("inf"), 0.0, -1.0):
        assert f"Point 3 of 24 has loss = {value}" in refusal(
            [*points[:2], replace(points[2], loss=value), *points[3:]]
        )
    assert "Point 1 of 24 has tokens = 0" in refusal([replace(points[0], tokens=0), *points[1:]])
    assert refusal([replace(p, loss=2.5) for p in points]).startswith("All 24 points have the same loss, 2.5")
    in_step = [LossPoint(n, 20 * n, 1.7 + 400 * n**-0.34 + 400 * (20 * n) ** -0.28) for n in np.geomspace(1e7, 1e10, 9)]
    assert "tokens rise in step with the parameters (D as N^1)" in refusal(in_step)
    assert "12 of 24 losses" in refusal(points, irreducible=float(np.median([p.loss for p in points])))


def test_a_loss_that_does_not_fall_is_refused():
    N, D = isoflop_grid(sizes=5)
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(5):
        try:
            fit_pretrain(points_of(N, D, 3.0 * np.exp(0.05 * rng.standard_normal(len(N)))), bootstraps=0)
        except LawError as error:
            refused.append("does not fall with" in str(error))
    assert sum(refused) == len(refused) >= 4  # chance alone passes both tests at 90% now and then
    tokens_only = 2.0 + 400 * D**-0.28
    assert "does not fall with parameters by more" in refusal(
        points_of(N, D, tokens_only * np.exp(0.01 * rng.standard_normal(30)))
    )
    rising = 2.0 + 0.1 * np.log(N / N.min()) + 400 * D**-0.28
    assert "does not fall with parameters" in refusal(points_of(N, D, rising))
    upside_down = 5.0 - surface(1.0, 40.0, 40.0, 0.34, 0.28, N, D)
    assert "does not fall with parameters or tokens" in refusal(points_of(N, D, upside_down))


def test_bad_options_are_refused():
    points = noisy(sizes=4)
    for options, words in (
        ({"bootstraps": -1}, "bootstraps is -1"),
        ({"delta": 0.0}, "delta is 0.0"),
        ({"irreducible": -0.1}, "irreducible is -0.1"),
        ({"irreducible": float("nan")}, "irreducible is nan"),
    ):
        with pytest.raises(RequestError, match=words):
            fit_pretrain(points, **options)
    with pytest.raises(RequestError, match=r"tokens is 0\.0"):
        fit_pretrain(points, bootstraps=0).predict(1e9, 0.0)


def test_a_thousand_bootstraps_of_240_points_take_seconds():
    points = noisy(EPOCH, noise=0.005, budgets=12, sizes=20, width=8.0)
    started = time.process_time()
    fit = fit_pretrain(points)
    assert time.process_time() - started < 20
    assert fit.draws_SP.shape == (1000, 5)
    assert fit.E.low < EPOCH[0] < fit.E.high


def test_the_replication_of_chinchilla(shared_data):
    fit = fit_pretrain(published(shared_data))
    assert len(fit.points) == 240
    assert fit.objective < 0.0010183
    assert fit.E.value == pytest.approx(1.817, abs=0.002)
    assert fit.alpha.value == pytest.approx(0.3473, abs=0.002)
    assert fit.beta.value == pytest.approx(0.3672, abs=0.002)
    assert fit.A.value == pytest.approx(478, abs=10)
    # arXiv 2404.10102, 95%: E 1.769-1.871, alpha .317-.373, beta .331-.415; ours at 95% and, narrower, at 90%.
    low, high = np.quantile(fit.draws_SP, [0.025, 0.975], axis=0)
    for column, published_low, published_high in ((0, 1.769, 1.871), (3, 0.317, 0.373), (4, 0.331, 0.415)):
        width = published_high - published_low
        assert low[column] == pytest.approx(published_low, abs=0.15 * width)
        assert high[column] == pytest.approx(published_high, abs=0.15 * width)
    assert 1.76 < fit.E.low < 1.80 < 1.84 < fit.E.high < 1.88
    assert fit.allocation.low < 0.513 < fit.allocation.high
    assert fit.loss(70e9, 1.4e12) == pytest.approx(1.9734, abs=0.001)
    assert objective([*np.log(HOFFMANN[:3]), *HOFFMANN[3:]], fit.points) == pytest.approx(0.00412101, rel=1e-4)


@pytest.mark.parametrize(("dataset", "loss"), [("c4_original", 2.382), ("rpj", 2.425), ("rw_original", 2.455)])
def test_a_model_of_7B_from_models_below_1B(shared_data, dataset, loss):
    """All models below 1B, none left out: the interval holds the 6.9B model, and the caution speaks as well."""
    small, large = overtrained(shared_data, dataset)
    fit = fit_pretrain(small, bootstraps=400)
    for point in large:
        predicted = fit.predict(point.parameters, point.tokens)
        assert predicted.low <= point.loss <= predicted.high
    biggest = max(large, key=lambda p: p.parameters)
    assert biggest.loss == pytest.approx(loss, abs=0.001)
    assert "beyond the data in" in fit.caution(biggest.parameters, biggest.tokens)


def test_a_cleaner_fit_can_miss_and_the_caution_says_so(shared_data):
    """Without the models trained on few tokens, whose warm-up was a large part, the interval is narrower: on C4 it misses the 6.9B model."""
    covered = {}
    for dataset in ("c4_original", "rpj", "rw_original"):
        small, large = overtrained(shared_data, dataset)
        fit = fit_pretrain([p for p in small if p.tokens / p.parameters > 19], bootstraps=1000)
        biggest = max(large, key=lambda p: p.parameters)
        predicted = fit.predict(biggest.parameters, biggest.tokens)
        covered[dataset] = predicted.low <= biggest.loss <= predicted.high
        assert "beyond the data in" in fit.caution(biggest.parameters, biggest.tokens)
    assert covered == {"c4_original": False, "rpj": True, "rw_original": True}


@pytest.mark.slow
@pytest.mark.parametrize(("points", "noise"), [(60, 0.005), (60, 0.02), (12, 0.003), (9, 0.002)])
def test_nominal_90_percent_intervals_cover(points, noise):
    """200 simulated data sets: the share in which the interval holds the truth (or, for the loss, a new model)."""
    sizes = {60: 10, 12: 4, 9: 3}[points]
    budgets = points // sizes
    rng = np.random.default_rng(7)
    N, D = isoflop_grid(budgets=budgets, sizes=sizes)
    best_N, best_D, best_loss = (float(v) for v in chinchilla_optimum(*HOFFMANN, 1e22))
    held = dict.fromkeys(("E", "alpha", "beta", "allocation", "loss", "optimum"), 0)
    carried = 0
    for _ in range(200):
        losses = surface(*HOFFMANN, N, D) * np.exp(noise * rng.standard_normal(len(N)))
        new = best_loss * np.exp(noise * rng.standard_normal())
        try:
            fit = fit_pretrain(points_of(N, D, losses), bootstraps=300)
        except LawError:
            continue  # too noisy for this many points, and it said so
        carried += 1
        low, high = np.quantile(chinchilla_optimum(*fit.theta_S, 1e22)[0], [0.05, 0.95])
        truths = {"E": HOFFMANN[0], "alpha": HOFFMANN[3], "beta": HOFFMANN[4], "allocation": 0.28 / 0.62}
        for name, truth in truths.items():
            held[name] += getattr(fit, name).low <= truth <= getattr(fit, name).high
        predicted = fit.predict(best_N, best_D)
        held["loss"] += bool(predicted.low <= new <= predicted.high)
        held["optimum"] += bool(low <= best_N <= high)
    shares = {name: count / carried for name, count in held.items()}
    print(points, noise, carried, {name: round(share, 3) for name, share in shares.items()})
    assert carried >= 150
    most = 0.95 if points == 60 else 0.99  # few points: rather too wide than too narrow
    assert all(0.85 <= share <= most for share in shares.values()), shares
