"""The joint law against scipy's beta-binomial, brute force over partitions, and worlds made from known parameters."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from tests.laws.joint_world import TrueLoss, World, tables

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import maj_at_k
from trilaw.laws.fitting import NO_BOOTSTRAP
from trilaw.laws.joint import fit_joint
from trilaw.laws.joint_data import prepare
from trilaw.laws.joint_fit import _data
from trilaw.laws.joint_likelihood import Cells, maximise, terms
from trilaw.laws.joint_vote import MOST_VOTES, fit_diversity, vote, win_chances, win_table
from trilaw.laws.points import LossPoint, Measurement, ProblemCounts
from trilaw.laws.pretrain import fit_pretrain

WORLD = World()
BASES = ((1e5, 1e6), (2.5e5, 4e6), (6e5, 8e6))


@pytest.fixture(scope="module")
def made():
    return WORLD.measure(np.random.default_rng(3), questions=128, votes=True, between=0.1)


@pytest.fixture(scope="module")
def fit(made):
    return fit_joint(made, loss_law=WORLD.law, bootstraps=100)


# --- the likelihood -------------------------------------------------------------------------------------------------------------


def cells_of(rows):
    m, n, c = np.array(sorted(rows)).T
    choose = np.array([math.log(math.comb(int(a), int(b))) for a, b in zip(n, c)])
    return Cells(m, n, c, choose, np.searchsorted(m, np.arange(m.max() + 1)))


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=2),
    st.floats(0.05, 30),
    st.floats(0.001, 0.9),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_likelihood_is_scipys_beta_binomial_with_a_zero_mass(eta, nu, z, counts):
    rows = [(m, max(n, c), min(n, c)) for m in (0, 1) for n, c in counts]
    cells = cells_of(rows)
    got = terms(np.array([eta]), np.array([nu]), np.array([z]), cells, np.ones((1, len(rows))))
    expected = 0.0
    for m, n, c in rows:
        mu = 1 / (1 + math.exp(-eta[m]))
        p = stats.betabinom.pmf(c, n, mu * nu, (1 - mu) * nu)
        expected += math.log(z * (c == 0) + (1 - z) * p)
    assert got.value_S[0] == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_derivatives_are_those_of_the_likelihood(made):
    made = [m for m in made if m.tokens != 2e6]
    p = prepare([*made, *second_rl()], WORLD.law)
    assert p.layout.asymptote_slope
    assert p.layout.midpoint_slope
    data = _data(p, p.losses_M[None], np.zeros((1, len(p.used))))
    weights = np.bincount(p.cell_R).astype(float)[None]
    # At the maximum of the counts expected under the parameters the neglected curvature vanishes, elsewhere the gradient is still exact.
    theta = np.array([[0.1, -2.5, 1.8, -0.7, 0.3, 0.4, 0.2, 0.1, -2.0]])
    assert len(p.layout.names) == theta.shape[1]

    def value(row):
        return data.evaluate(row[None], weights, np.ones(1, dtype=bool))[0].value_S[0]

    found, jac = data.evaluate(theta, weights, np.ones(1, dtype=bool))
    gradient, _ = data.derivatives(found, jac)
    for i in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[i] = 1e-5
        assert gradient[0, i] == pytest.approx(
            (value(theta[0] + step) - value(theta[0] - step)) / 2e-5, rel=1e-4, abs=1e-3
        )
    # Second derivatives by logit mu, log nu and logit z.
    nu, z = p.layout.spread_of(theta)
    eta, _ = p.layout.logit_and_slopes(theta, p.base_M, data.x_SM, p.log_rl_M)

    def at(shift, log_nu, logit_z):
        moved = eta.copy()
        moved[0, 0] += shift
        return terms(moved, nu * math.exp(log_nu), 1 / (1 + np.exp(-(np.log(z / (1 - z)) + logit_z))), p.cells, weights)

    h = 1e-5
    mid = at(0, 0, 0)
    assert mid.eta_eta_SM[0, 0] == pytest.approx((at(h, 0, 0).eta_SM - at(-h, 0, 0).eta_SM)[0, 0] / (2 * h), rel=1e-5)
    for k, move in enumerate(((0, h, 0), (0, 0, h))):
        back = tuple(-v for v in move)
        assert mid.eta_spread_SM2[0, 0, k] == pytest.approx(
            (at(*move).eta_SM - at(*back).eta_SM)[0, 0] / (2 * h), rel=1e-4
        )
        assert mid.spread_spread_S22[0, k] == pytest.approx(
            (at(*move).spread_S2 - at(*back).spread_S2)[0] / (2 * h), rel=1e-4
        )


def second_rl():
    return WORLD.measure(
        np.random.default_rng(4),
        bases=(),
        rl=((2.5e5, 4e6, (1e12, 8e12, 6.4e13, 2.5e14)),),
        questions=128,
        run="second",
    )


def test_the_maximum_is_where_a_general_optimiser_finds_it(made):
    p = prepare(made, WORLD.law)
    fitted = fit_joint(made, loss_law=WORLD.law, bootstraps=0)
    data = _data(p, p.losses_M[None], np.zeros((1, len(p.used))))
    weights = np.bincount(p.cell_R).astype(float)[None]

    def loss(theta):
        found, jac = data.evaluate(theta[None], weights, np.ones(1, dtype=bool))
        return -found.value_S[0], -data.derivatives(found, jac)[0][0]

    own = fitted.inner.theta_SP[0]
    other = optimize.minimize(
        loss, own + 0.2, jac=True, method="L-BFGS-B", bounds=data.bounds_P2, options={"ftol": 1e-13}
    )
    assert loss(own)[0] <= other.fun + 1e-4
    assert own == pytest.approx(other.x, abs=5e-3)


def test_rows_in_chunks_change_nothing(made, monkeypatch):
    whole = fit_joint(made, loss_law=WORLD.law, bootstraps=12)
    monkeypatch.setattr("trilaw.laws.joint_likelihood._CHUNK", 500)
    assert fit_joint(made, loss_law=WORLD.law, bootstraps=12).draws_SP == pytest.approx(whole.draws_SP, abs=1e-9)


def test_a_row_that_starts_nowhere_is_left_alone(made):
    p = prepare(made, WORLD.law)
    data = _data(p, p.losses_M[None], np.zeros((1, len(p.used))))
    weights = np.bincount(p.cell_R).astype(float)[None]
    start = np.full((1, len(p.layout.names)), np.nan)
    assert np.isnan(maximise(data, start, weights)[1]).all()


# --- the vote -------------------------------------------------------------------------------------------------------------------


def partitions(n, largest=None):
    if n == 0:
        yield ()
    for first in range(min(n, largest or n), 0, -1):
        for rest in partitions(n - first, first):
            yield (first, *rest)


def ewens(parts, theta):
    """Probability of a partition, in exact fractions."""
    p = Fraction(math.factorial(sum(parts)))
    for i in range(sum(parts)):
        p /= theta + i
    for size, times in Counter(parts).items():
        p *= Fraction(theta**times, size**times * math.factorial(times))
    return p


@pytest.mark.parametrize("theta", [Fraction(1, 3), Fraction(2), Fraction(50)])
def test_win_table_is_the_sum_over_all_partitions(theta):
    got = win_table(np.array([float(theta)]), 9)[0]
    for w in range(10):
        assert sum(ewens(parts, theta) for parts in partitions(w)) == 1
        for j in range(1, 10):
            expected = Fraction(0)
            for parts in partitions(w):
                most = max(parts, default=0)
                expected += ewens(parts, theta) * (
                    Fraction(int(most < j)) if most != j else Fraction(1, 1 + parts.count(j))
                )
            assert got[j, w] == pytest.approx(float(expected), abs=1e-12)
    assert (got[0] == 0).all()


def test_vote_by_the_plain_sum():
    a, b, theta, silent, k = 0.7, 1.1, 1.5, 0.2, 9
    table = win_table(np.array([theta]), 16)
    got = vote(np.array([[a]]), np.array([[b]]), win_chances(table, np.array([silent]), k))[0, 0]
    expected = 0.0
    for j in range(1, k + 1):
        cast = stats.binom.pmf(np.arange(k - j + 1), k - j, 1 - silent)
        expected += stats.betabinom.pmf(j, k, a, b) * (cast @ table[0, j, : k - j + 1])
    assert got == pytest.approx(expected, abs=1e-12)


def test_the_largest_vote_stays_in_double_precision():
    for theta in (1e-4, 0.5, 1e3):
        table = win_table(np.array([theta]), MOST_VOTES)[0]
        assert np.isfinite(table).all()
        assert (np.diff(table[1:, 5]) >= -1e-9).all()  # one more right vote never hurts
    agree = win_table(np.array([1e-4]), 64)[0]
    assert agree[3, 5] == pytest.approx(0.0, abs=1e-3)  # wrong answers agree: three votes lose against five
    assert agree[5, 3] == pytest.approx(1.0, abs=1e-3)
    apart = win_table(np.array([1e3]), 64)[0]
    assert apart[2, 40] > 0.4 > apart[1, 40]  # each wrong answer stands alone


def test_diversity_maximises_ewens_formula():
    rng = np.random.default_rng(0)
    kinds = [tables(rng, int(rng.integers(0, 12)), 2.5) for _ in range(300)]
    votes = np.array([sum(t) for t in kinds])
    distinct = np.array([len(t) for t in kinds])
    weights = np.stack([np.ones(300), rng.integers(0, 3, 300)])
    got = fit_diversity(votes, distinct, weights)
    for row, theta in zip(weights, got):

        def loss(log_theta, row=row):
            t = math.exp(log_theta)
            rising = [sum(math.log(t + i) for i in range(w)) for w in votes]
            return -float(row @ (distinct * log_theta - np.array(rising)))

        assert math.log(theta) == pytest.approx(
            optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded").x, abs=1e-4
        )
    assert got[0] == pytest.approx(2.5, rel=0.15)
    assert fit_diversity(votes, np.minimum(votes, 1), np.ones((1, 300)))[0] < 0.01
    assert fit_diversity(votes, votes, np.ones((1, 300)))[0] > 900


# --- the fit --------------------------------------------------------------------------------------------------------------------


def test_known_parameters_come_back():
    made = WORLD.measure(np.random.default_rng(11), questions=500, votes=True, shared=0.3)
    got = fit_joint(made, loss_law=WORLD.law, bootstraps=40)
    at = got.reference_loss - WORLD.reference
    for name, true in (
        ("intercept", WORLD.intercept + WORLD.slope * at),
        ("slope", WORLD.slope),
        ("rl_asymptote", WORLD.asymptote),
        ("rl_steepness", WORLD.steepness),
        ("concentration", WORLD.nu),
        ("unsolvable", WORLD.z),
        ("wrong_diversity", WORLD.diversity),
        ("silent", WORLD.silent),
    ):
        estimate = getattr(got, name)
        reach = max(estimate.high - estimate.low, 0.02)
        assert estimate.low - 0.6 * reach <= true <= estimate.high + 0.6 * reach, name
        assert estimate.value == pytest.approx(true, rel=0.25, abs=0.15), name
    assert math.log(got.rl_midpoint.value / WORLD.midpoint) == pytest.approx(0.0, abs=0.5)
    assert got.between_models == pytest.approx(0.0, abs=0.08)
    for n, d, c, k in ((1e5, 4e6, 0, 1), (6e5, 8e6, 2.5e14, 16), (1e6, 2e7, 1e14, 4)):
        assert got.accuracy(n, d, c, k).value == pytest.approx(WORLD.accuracy(n, d, c, k), abs=0.035)
    # The vote law against the exact vote of subsets of the very samples.
    last = made[-1]
    for k in (3, 8, 16):
        seen = np.mean([maj_at_k(r.samples, r.right_votes, r.wrong_votes, k) for r in last.counts])
        assert got.accuracy(6e5, 8e6, 2.5e14, k, "vote").value == pytest.approx(seen, abs=0.03)


def test_height_and_midpoint_that_hang_on_the_loss_come_back():
    world = World(asymptote_slope=-4.0, midpoint_slope=3.0)
    levels = (1e12, 6e12, 4e13, 2.5e14, 1e15)
    made = world.measure(
        np.random.default_rng(2), bases=BASES, rl=tuple((*base, levels) for base in BASES), questions=400, shared=0.3
    )
    got = fit_joint(made, bootstraps=60)
    assert "its midpoint too" in got.parts["rl"].sentence
    for estimate, true in ((got.rl_asymptote_slope, -4.0), (got.rl_midpoint_slope, 3.0)):
        assert abs(estimate.value - true) < estimate.high - estimate.low  # within two half-widths of a 90% interval
        assert math.copysign(1.0, true) == math.copysign(1.0, estimate.low) == math.copysign(1.0, estimate.high)
    # The second base with two levels carries the height, not the midpoint.
    few = [m for m in made if m.parameters == 6e5 or m.rl_flops in (0.0, 1e12, 2.5e14)]
    part = fit_joint(few, bootstraps=0)
    assert part.rl_asymptote_slope is not None
    assert part.rl_midpoint_slope is None


def test_pass_at_k_is_the_integral_over_the_distribution_of_success(fit):
    eta = fit.inner.logit(6e5, 8e6, 4e12)[0, 0]
    nu, z = fit.concentration.value, fit.unsolvable.value
    mu = 1 / (1 + math.exp(-eta))
    a, b = mu * nu, (1 - mu) * nu
    for k in (1, 5, 100):
        missed = integrate.quad(lambda u, k=k: (1 - stats.beta.ppf(u, a, b)) ** k, 0, 1, limit=200)[0]
        assert fit.accuracy(6e5, 8e6, 4e12, k).value == pytest.approx((1 - z) * (1 - missed), abs=1e-5)
    half = fit.accuracy(6e5, 8e6, 4e12, 4.5).value
    assert half == pytest.approx((fit.accuracy(6e5, 8e6, 4e12, 4).value + fit.accuracy(6e5, 8e6, 4e12, 5).value) / 2)
    assert fit.accuracy(6e5, 8e6, 4e12, 1, "vote") == fit.accuracy(6e5, 8e6, 4e12, 1)


@given(st.floats(4.5, 7), st.floats(5.5, 9), st.floats(11, 16), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_more_of_anything_never_predicts_less(fit, log_n, log_d, log_c, k):
    n, d, c = 10**log_n, 10**log_d, 10**log_c
    here = fit.accuracy(n, d, c, k)
    assert 0.0 <= here.low <= here.value <= here.high <= 1.0
    for more in ((2 * n, d, c, k), (n, 2 * d, c, k), (n, d, 2 * c, k), (n, d, c, k + 1)):
        assert fit.accuracy(*more).value >= here.value - 1e-9


def test_the_search_reads_votes_off_a_table(fit):
    rng = np.random.default_rng(0)
    n, d, c = 10 ** rng.uniform(4, 7, 30), 10 ** rng.uniform(6, 9, 30), 10 ** rng.uniform(12, 16, 30)
    for k in (2, 7, 40):
        exact = fit.inner.accuracy(n, d, c, k, "vote")
        assert fit.inner.quick_accuracy(n, d, c, k, "vote") == pytest.approx(exact, abs=1e-5)


def test_same_arguments_same_answer_in_any_order(made, fit):
    again = fit_joint(made, loss_law=WORLD.law, bootstraps=100)
    assert (again.draws_SP == fit.draws_SP).all()
    turned = fit_joint(made[::-1], loss_law=WORLD.law, bootstraps=0)
    assert turned.accuracy(1e6, 2e7, 1e14, 8).value == pytest.approx(fit.accuracy(1e6, 2e7, 1e14, 8).value, abs=1e-4)
    point = turned.accuracy(1e6, 2e7, 1e14, 8)
    assert (point.low, point.high, point.method) == (point.value, point.value, NO_BOOTSTRAP)
    assert fit_joint(made, loss_law=WORLD.law, bootstraps=100, seed=1).slope != fit.slope


def test_intervals_know_their_sources(fit, made):
    assert "questions" in fit.slope.method
    assert "90%" in fit.slope.method
    assert fit.slope.n == 128
    # A loss law that is not sure of itself widens what is said of new bases, and nothing said of losses that were measured.
    unsure = fit_joint(made, loss_law=TrueLoss(scatter=0.15), bootstraps=100)
    assert unsure.slope == fit.slope
    wide, narrow = unsure.accuracy(3e6, 1e8, 0, 1), fit.accuracy(3e6, 1e8, 0, 1)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    # Losses that come from the law vary with it in every fit.
    lossless = [replace(m, loss=None) for m in made]
    assert fit_joint(lossless, loss_law=TrueLoss(scatter=0.15), bootstraps=100).slope != fit.slope
    same = fit_joint(lossless, loss_law=WORLD.law, bootstraps=100)
    assert same.slope.value == pytest.approx(fit.slope.value, rel=1e-6)
    drawless = fit_joint(made, loss_law=TrueLoss(draws=0), bootstraps=20)
    assert any("no draws" in note for note in drawless.notes)
    assert drawless.accuracy(3e6, 1e8, 0, 1).value == pytest.approx(narrow.value)


def test_the_pretraining_law_serves_as_loss_law(made):
    points = [LossPoint(n, d, WORLD.law.loss(n, d)) for n in (5e4, 2e5, 6e5) for d in (1e6, 4e6, 1.6e7)]
    law = fit_pretrain(points, bootstraps=20)
    got = fit_joint([replace(m, loss=None) for m in made], loss_law=law, bootstraps=20)
    exact = fit_joint(made, loss_law=WORLD.law, bootstraps=0)
    assert not np.isnan(
        got.inner.law_SP
    ).any()  # its parameters were recognised: searches need not ask it number by number
    assert got.accuracy(1e6, 2e7, 0, 1).value == pytest.approx(exact.accuracy(1e6, 2e7, 0, 1).value, abs=1e-3)


def test_models_that_scatter_widen_the_intervals():
    calm = World().measure(np.random.default_rng(8), questions=96, between=0.0)
    wild = World().measure(np.random.default_rng(8), questions=96, between=0.6)
    a, b = (fit_joint(m, loss_law=WORLD.law, bootstraps=60) for m in (calm, wild))
    assert b.between_models > 0.25 > a.between_models
    wide, narrow = b.accuracy(1e6, 2e7, 0, 1), a.accuracy(1e6, 2e7, 0, 1)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_model_that_the_law_does_not_describe_is_named(made):
    odd = [
        *made[:-1],
        replace(
            made[-1],
            counts=tuple(replace(r, correct=r.samples // 8, right_votes=(), wrong_votes=()) for r in made[-1].counts),
        ),
    ]
    notes = fit_joint(odd, loss_law=WORLD.law, bootstraps=20).notes
    assert any(f"does not describe '{made[-1].model}'" in note for note in notes)


def test_beyond_the_data(fit):
    assert fit.reach(6e5, 8e6, 2.5e14, 16) == pytest.approx(1.0)
    assert fit.caution(6e5, 8e6, 2.5e14, 16) is None
    assert fit.reach(6e5, 8e6, 2.5e14, 160) == pytest.approx(10.0)
    assert "samples a question" in fit.caution(6e5, 8e6, 0, 1600)
    assert "RL compute" in fit.caution(6e5, 8e6, 2.5e16, 1)
    assert "pre-training compute" in fit.caution(6e6, 8e7, 0, 1)
    assert "parameters" in fit.caution(1e3, 8e6, 0, 1)


def test_json_is_plain_and_finite(fit, made):
    found = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    assert found["parameters"]["slope"]["value"] == fit.slope.value
    assert [row["model"] for row in found["measurements"]] == [m.model for m in made]
    assert set(found["parts"]) == {"pretraining", "rl", "samples", "vote"}


# --- parts without runs behind them -----------------------------------------------------------------------------------------------


def test_two_bases_carry_no_pretraining_part():
    made = WORLD.measure(np.random.default_rng(0), bases=BASES[1:], questions=32)
    got = fit_joint(made, loss_law=WORLD.law, bootstraps=10)
    assert not got.parts["pretraining"].fitted
    assert "2 bases measured before RL" in got.parts["pretraining"].sentence
    assert "pre-train 1 more" in got.parts["pretraining"].sentence
    assert got.slope is None
    assert got.intercept is None  # one intercept a base
    assert got.accuracy(2.5e5, 4e6, 0, 4).value < got.accuracy(6e5, 8e6, 0, 4).value
    with pytest.raises(LawError, match="pre-training part is not fitted"):
        got.accuracy(1e6, 1e7, 0, 4)


def test_bases_without_loss_or_with_one_loss_carry_no_pretraining_part():
    made = WORLD.measure(np.random.default_rng(0), bases=BASES, rl=(), questions=32, losses=False)
    got = fit_joint(made, bootstraps=0)
    assert "3 of 3 bases have no loss" in got.parts["pretraining"].sentence
    same = fit_joint([replace(m, loss=2.0) for m in made], bootstraps=0)
    assert "all 3 bases have the loss 2" in same.parts["pretraining"].sentence


def test_three_levels_of_rl_carry_no_rl_part():
    made = WORLD.measure(np.random.default_rng(0), rl=((6e5, 8e6, (1e12, 1e14)),), questions=32)
    got = fit_joint(made, loss_law=WORLD.law, bootstraps=0)
    assert not got.parts["rl"].fitted
    assert "there are 3 levels of RL compute on one base at most" in got.parts["rl"].sentence
    assert any("2 of 8 measurements are left out" in note for note in got.notes)
    assert sum(row["used"] for row in got.to_json()["measurements"]) == 6
    with pytest.raises(LawError, match="RL part is not fitted"):
        got.accuracy(6e5, 8e6, 1e13, 1)


def test_one_base_with_rl_says_what_it_assumes():
    made = WORLD.measure(np.random.default_rng(0), bases=((6e5, 8e6),), questions=48)
    got = fit_joint(made, bootstraps=20)
    assert got.parts["rl"].fitted
    assert "assumes" in got.parts["rl"].sentence
    assert "one base only" in got.parts["rl"].sentence
    assert got.between_models is None
    assert any("they cannot tell how much two" in note for note in got.notes)
    assert got.accuracy(6e5, 8e6, 1e14, 16).value == pytest.approx(WORLD.accuracy(6e5, 8e6, 1e14, 16), abs=0.12)


def test_rl_that_has_not_bent_is_noted():
    world = World(midpoint=1e19, asymptote=60.0, steepness=0.5)
    made = world.measure(np.random.default_rng(1), questions=200)
    assert any("do not show where the curve bends" in note for note in fit_joint(made, bootstraps=0).notes)


def test_one_sample_a_question_carries_no_test_time_part():
    made = WORLD.measure(np.random.default_rng(0), questions=256, samples=1, votes=True)
    got = fit_joint(made, loss_law=WORLD.law, bootstraps=20)
    assert not got.parts["samples"].fitted
    assert got.concentration is None
    assert got.accuracy(6e5, 8e6, 2.5e14, 1).value == pytest.approx(WORLD.accuracy(6e5, 8e6, 2.5e14, 1), abs=0.08)
    with pytest.raises(LawError, match="every question has one sample"):
        got.accuracy(6e5, 8e6, 2.5e14, 2)
    with pytest.raises(LawError, match="The vote is not fitted"):
        got.accuracy(6e5, 8e6, 2.5e14, 1, "vote")


def test_votes_that_were_not_recorded_or_are_of_many_forms():
    plain = fit_joint(WORLD.measure(np.random.default_rng(0), questions=32), bootstraps=0)
    assert "were not recorded" in plain.parts["vote"].sentence
    with pytest.raises(LawError, match="were not recorded"):
        plain.accuracy(6e5, 8e6, 0, 4, "vote")
    made = WORLD.measure(np.random.default_rng(0), questions=32, votes=True)
    split = [replace(m, counts=tuple(replace(r, right_votes=(1,) * r.correct) for r in m.counts)) for m in made]
    assert "one right answer" in fit_joint(split, bootstraps=0).parts["vote"].sentence
    lone = [replace(m, counts=tuple(replace(r, wrong_votes=r.wrong_votes and (1,)) for r in m.counts)) for m in made]
    assert "only 0 wrong answers" in fit_joint(lone, bootstraps=0).parts["vote"].sentence


def test_without_a_loss_law_only_measured_bases_are_reached(made):
    got = fit_joint(made, bootstraps=10)
    assert got.accuracy(6e5, 8e6, 1e14, 4).value > 0.5
    with pytest.raises(LawError, match="Without a loss law"):
        got.accuracy(6e5, 9e6, 0, 1)


def test_broken_measurements_are_refused(made):
    first, second = made[0], made[1]
    short = replace(first, counts=first.counts[:5])
    none_right = replace(first, counts=tuple(ProblemCounts(r.problem, 4, 0) for r in first.counts))
    for measurements, error, words in (
        ([], LawError, "There are no measurements"),
        ([first, replace(second, task="other")], LawError, "2 tasks"),
        ([first, first], LawError, "is there twice"),
        ([replace(first, counts=())], LawError, "no counts"),
        ([short], LawError, "hold 5 questions"),
        ([none_right], LawError, "All 512 samples are wrong"),
        ([replace(first, rl_flops=1e12)], LawError, "before RL"),
        ([replace(first, loss=math.nan)], RequestError, "loss = nan"),
        ([replace(first, parameters=0.0)], RequestError, "parameters = 0"),
        ([replace(first, rl_flops=-1.0)], RequestError, "rl_flops = -1"),
        ([replace(first, counts=(ProblemCounts("a", 2, 3),))], RequestError, "3 right of 2 samples"),
        ([replace(first, counts=(*first.counts, first.counts[0]))], RequestError, "twice"),
    ):
        with pytest.raises(error, match=words):
            fit_joint(measurements)
    with pytest.raises(RequestError, match="bootstraps is -1"):
        fit_joint(made, bootstraps=-1)


def test_broken_questions_to_the_law_are_refused(fit):
    for arguments, words in (
        ((math.nan, 1e6, 0, 1), "nan parameters"),
        ((1e5, 0.0, 0, 1), "0 tokens"),
        ((1e5, 1e6, -1, 1), "-1 RL FLOPs"),
        ((1e5, 1e6, 0, 0.5), "0.5 samples"),
        ((1e5, 1e6, math.inf, 1), "inf RL FLOPs"),
        ((1e5, 1e6, 0, 1, "best"), "how is 'best'"),
        ((1e5, 1e6, 0, MOST_VOTES + 1, "vote"), "the vote law reaches to"),
    ):
        with pytest.raises(RequestError, match=words):
            fit.accuracy(*arguments)


# --- real counts ------------------------------------------------------------------------------------------------------------------


def test_codex_puzzles_give_the_published_counts_their_beta_distribution(shared_data):
    """Independent fits of the same file: a, b = .249, 1.30 with a zero mass of .07 (prompt "long")."""
    rows = (shared_data / "laws" / "codex_puzzles_counts_n1000.csv").read_text().splitlines()
    header = rows[0].split(",")
    counts = tuple(
        ProblemCounts(cells[0], int(cells[1]), int(cells[header.index("correct_long")]))
        for cells in (row.split(",") for row in rows[1:])
    )
    model = Measurement("codex", "long", "puzzles", 1.2e10, 1e11, 7e21, 0.0, None, 500.0, 100.0, counts)
    got = fit_joint([model], bootstraps=0)
    mu, nu = 1 / (1 + math.exp(-got.intercept.value)), got.concentration.value
    assert mu * nu == pytest.approx(0.249, abs=0.003)
    assert (1 - mu) * nu == pytest.approx(1.30, abs=0.02)
    assert got.unsolvable.value == pytest.approx(0.07, abs=0.005)
    assert got.accuracy(1.2e10, 1e11, 0, 1).value == pytest.approx(0.1494, abs=0.003)
    assert got.accuracy(1.2e10, 1e11, 0, 100).value == pytest.approx(0.6384, abs=0.02)


# --- proofs of minutes --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("between", "shared"), [(0.0, 0.7), (0.15, 0.7), (0.15, 0.0)])
def test_nominal_90_percent_intervals_cover(between, shared):
    asked = (
        (2.5e5, 4e6, 0, 1),
        (6e5, 8e6, 0, 4),
        (1e6, 2e7, 0, 1),
        (6e5, 8e6, 2.5e14, 1),
        (6e5, 8e6, 2.5e14, 16),
        (3e5, 4e6, 3e13, 8),
    )
    hits = np.zeros(len(asked))
    for world in range(200):
        made = WORLD.measure(np.random.default_rng(100 + world), between=between, shared=shared)
        got = fit_joint(made, loss_law=WORLD.law, bootstraps=100, seed=world)
        for i, ask in enumerate(asked):
            estimate = got.accuracy(*ask)
            hits[i] += estimate.low <= WORLD.accuracy(*ask) <= estimate.high
    print(between, shared, hits / 200)
    assert 0.85 <= hits.mean() / 200 <= 0.95
    assert (hits / 200 >= 0.82).all()  # each alone: 200 draws leave 2 points of chance


@pytest.mark.slow
def test_a_full_fit_takes_seconds():
    made = WORLD.measure(np.random.default_rng(0), questions=256)
    begin = time.process_time()
    fit_joint(made, loss_law=WORLD.law)
    assert time.process_time() - begin < 30.0
