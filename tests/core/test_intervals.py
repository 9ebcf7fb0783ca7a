from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.intervals import BOOTSTRAP, EQUAL, PAIRED, bootstrap, paired_difference, wilson


def test_bootstrap_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).random(400)
    got = bootstrap(values.tolist())
    half = 1.96 * values.std() / 20
    assert got.value == pytest.approx(values.mean())
    assert got.low == pytest.approx(values.mean() - half, abs=0.004)
    assert got.high == pytest.approx(values.mean() + half, abs=0.004)
    assert (got.n, got.method) == (400, BOOTSTRAP)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_mean_stays_in_bounds_and_repeats(values, seed):
    got = bootstrap(values, seed=seed, resamples=200)
    assert 0.0 <= got.low <= got.value <= got.high <= 1.0
    assert got == bootstrap(values, seed=seed, resamples=200)
    assert got.low < got.high


def test_resampling_in_chunks_changes_nothing(monkeypatch):
    values = [0.0, 0.25, 1.0, 0.5, 0.125]
    whole = bootstrap(values)
    monkeypatch.setattr("trilaw.core.intervals._CHUNK", 333 * 5)
    assert bootstrap(values) == whole


def test_equal_values_give_the_rule_of_three_and_not_a_point():
    solved = bootstrap([1.0] * 100)
    assert (solved.value, solved.high, solved.method) == (1.0, 1.0, EQUAL)
    assert solved.low == pytest.approx(0.05**0.01)  # P(100 of 100) is 5% at this share
    assert solved.low == pytest.approx(1 - 3 / 100, abs=0.001)
    assert bootstrap([0.0] * 100).high == pytest.approx(1 - solved.low)
    one = bootstrap([1.0])
    assert (one.low, one.high, one.n) == (pytest.approx(0.05), 1.0, 1)
    half = bootstrap([0.5] * 10)
    assert half.low == pytest.approx(0.5 * 0.05**0.1)
    assert half.high == pytest.approx(1 - half.low)
    assert bootstrap([20.0] * 2, bounds=(0.0, 100.0)).high > 20.0


def test_the_bound_for_equal_values_covers():
    # A share of 0.96 right answers: all 60 of 60 right happens in 8.6% of exams and must then not exclude 0.96.
    assert bootstrap([1.0] * 60).low < 0.96
    # At 0.95 it happens in 4.6%: this is the share that may be excluded.
    assert bootstrap([1.0] * 60).low > 0.95


def test_bad_values_are_refused():
    for values in ([], [0.5, float("nan")], [1.5], [-0.1]):
        with pytest.raises(ValueError):  # noqa: PT011
            bootstrap(values)


def test_paired_difference_sees_what_two_intervals_cannot():
    rng = np.random.default_rng(1)
    hard = rng.random(200)  # how hard a problem is dominates
    a, b = np.clip(hard + 0.02, 0, 1), hard
    got = paired_difference(a.tolist(), b.tolist())
    assert got.method == PAIRED
    assert 0.0 < got.low <= got.value <= got.high < 0.03
    assert bootstrap(a.tolist()).low < bootstrap(b.tolist()).high
    opposite = paired_difference(b.tolist(), a.tolist())
    assert opposite.value == pytest.approx(-got.value)
    with pytest.raises(ValueError, match="same problems"):
        paired_difference([1.0], [1.0, 0.0])


def test_paired_difference_of_equal_models_is_zero_with_room():
    same = paired_difference([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert same.value == 0.0
    assert same.low == pytest.approx(-same.high)
    assert same.high > 0.0


def test_wilson():
    got = wilson(8, 10)  # published value: 0.490 to 0.943
    assert (got.low, got.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 5).low == 0.0
    assert wilson(5, 5).high == 1.0
    assert wilson(0, 1).high < 1.0
    for successes, n in ((0, 0), (2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="successes"):
            wilson(successes, n)
