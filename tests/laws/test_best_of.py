"""Best of k by a score: exact within the samples, and beyond them against scorers whose limit is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import best_of_k
from trilaw.laws.best_of import ScoredSamples, fit_best


def scored(count: int, samples: int, rng: np.random.Generator, level: float, slope: float) -> list[ScoredSamples]:
    """Values whose mean is level - slope (1 - u), u the rank of the score in the population."""
    rows = []
    for i in range(count):
        u = rng.random(samples)
        rows.append(
            ScoredSamples(f"q{i}", tuple(u), tuple((rng.random(samples) < level - slope * (1 - u)).astype(float)))
        )
    return rows


def test_best_of_k_within_the_samples_is_exact():
    rng = np.random.default_rng(0)
    rows = scored(12, 16, rng, 0.8, 0.5)
    fit = fit_best(rows, bootstraps=50)
    for k in (1, 3, 16):
        truth = sum(best_of_k(r.scores, r.values, k) for r in rows) / 12
        assert fit.predict(k).value == pytest.approx(truth)
    assert fit.predict(1).low < fit.predict(1).value < fit.predict(1).high


def test_a_value_linear_in_the_rank_is_extrapolated_without_error():
    n = 16
    rank = np.arange(1, n + 1) / (n + 1)
    rows = [ScoredSamples(f"q{i}", tuple(rank), tuple(0.2 + 0.6 * rank)) for i in range(10)]
    fit = fit_best(rows, bootstraps=10)
    for k in (1, 16, 17, 100, 10_000):
        # The expected rank of the best of k is k / (k + 1).
        assert fit.predict(k).value == pytest.approx(0.2 + 0.6 * k / (k + 1))
    assert fit.plateau.value == pytest.approx(0.8)
    assert fit.predict(math.inf) == fit.plateau


def test_the_plateau_of_a_scorer_is_found():
    fit = fit_best(scored(400, 32, np.random.default_rng(1), 0.85, 0.6), bootstraps=300)
    assert fit.plateau.low <= 0.85 <= fit.plateau.high
    assert fit.plateau.high - fit.plateau.low < 0.12
    assert fit.reach(64) == 2.0
    assert "100x beyond" in fit.caution(3200)
    assert "one sample in 32" in fit.notes[0]
    assert fit.draws_SP.shape == (300, 1)
    json.dumps(fit.to_json(), allow_nan=False)
    assert fit == fit_best(scored(400, 32, np.random.default_rng(1), 0.85, 0.6), bootstraps=300)


def test_no_extrapolation_where_the_top_has_no_order():
    rows = [ScoredSamples(f"q{i}", tuple([1.0] * 4 + [0.0] * 12), tuple([1.0] * 3 + [0.0] * 13)) for i in range(10)]
    fit = fit_best(rows, bootstraps=10)
    assert fit.plateau is None
    assert fit.predict(16).value == pytest.approx(0.75)
    with pytest.raises(
        LawError, match="Best of 17 lies beyond the 16 samples: on 10 of 10 problems several samples share"
    ):
        fit.predict(17)
    few = fit_best(scored(10, 7, np.random.default_rng(2), 0.9, 0.5), bootstraps=10)
    with pytest.raises(LawError, match="a plateau needs at least 8 samples of every problem, one has 7"):
        few.predict(math.inf)
    assert few.notes[0].startswith("No plateau")
    json.dumps(few.to_json(), allow_nan=False)


def test_scores_that_carry_no_curve_are_refused():
    good = scored(10, 8, np.random.default_rng(3), 0.9, 0.5)
    for rows, sentence in (
        (good[:9], "There are 9 problems with scores"),
        ([*good, ScoredSamples("x", (1.0,) * 5, (1.0,) * 4)], "'x' has 5 scores and 4 values"),
        ([*good, ScoredSamples("x", (1.0,) * 3, (1.0,) * 3)], "'x' has 3 samples: the curve needs at least 4"),
        ([*good, ScoredSamples("x", (math.nan,) * 4, (1.0,) * 4)], "'x' has a score that is no number"),
        ([*good, ScoredSamples("x", (1.0,) * 4, (1.5,) * 4)], "a value outside 0 to 1"),
        ([*good, good[0]], "'q0' is there 2 times"),
    ):
        with pytest.raises(LawError, match=sentence):
            fit_best(rows)
    with pytest.raises(RequestError, match="bootstraps is -1"):
        fit_best(good, bootstraps=-1)
    for k in (0, 1.5, math.nan):
        with pytest.raises(RequestError, match="whole number of samples"):
            fit_best(good, bootstraps=0).predict(k)
