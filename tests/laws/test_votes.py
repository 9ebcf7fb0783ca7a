"""The vote: exact within the samples, and beyond them against populations whose limit is known."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from scipy.stats import multinomial

from trilaw.core.errors import LawError, RequestError
from trilaw.core.estimators import maj_at_k
from trilaw.laws import votes as vote_law
from trilaw.laws.points import ProblemCounts
from trilaw.laws.votes import fit_votes


def voted(name: str, right: tuple[int, ...], wrong: tuple[int, ...], silent: int = 0) -> ProblemCounts:
    return ProblemCounts(name, sum(right) + sum(wrong) + silent, sum(right), right, wrong)


def alike(count: int, right: tuple[int, ...], wrong: tuple[int, ...], silent: int = 0) -> list[ProblemCounts]:
    return [voted(f"{right}{wrong}{i}", right, wrong, silent) for i in range(count)]


def population(rng: np.random.Generator, count: int, scatter: float, zero: float = 0.0) -> np.ndarray:
    """[count, 13]: the share of the right answer, then of 12 wrong ones; what is left scatters."""
    right_P = np.where(rng.random(count) < zero, 0.0, rng.beta(0.8, 0.8, count))
    sticks = rng.beta(1.0, scatter, (count, 12))
    left = np.cumprod(np.concatenate([np.ones((count, 1)), 1 - sticks[:, :-1]], axis=1), axis=1)
    return np.concatenate([right_P[:, None], (1 - right_P)[:, None] * sticks * left], axis=1)


def observed(shares_PA: np.ndarray, samples: int, rng: np.random.Generator) -> list[ProblemCounts]:
    rest = np.maximum(0.0, 1.0 - shares_PA.sum(axis=1, keepdims=True))
    full = np.concatenate([shares_PA, rest], axis=1)
    rows = []
    for i, votes in enumerate(rng.multinomial(samples, full / full.sum(axis=1, keepdims=True))):
        right = (int(votes[0]),) if votes[0] else ()
        rows.append(voted(f"q{i}", right, (*(int(n) for n in votes[1:-1] if n), *[1] * int(votes[-1]))))
    return rows


# ---------------------------------------------------------------- votes


def test_the_curve_within_the_samples_is_exact():
    fit = fit_votes(alike(12, (26,), (10, 8, 20)), bootstraps=20)
    for k, value in ((4, 0.4877), (8, 0.5709), (16, 0.6770), (32, 0.8086), (64, 1.0)):
        assert fit.predict(k).value == pytest.approx(value, abs=5e-5)
    rows = [*alike(6, (9,), (5, 2)), *alike(6, (3,), (8, 4, 1)), voted("s", (2, 2), (3,), silent=9)]
    fit = fit_votes(rows, bootstraps=20)
    for k in range(1, 17):
        truth = sum(maj_at_k(16, r.right_votes, r.wrong_votes, k) for r in rows) / len(rows)
        assert fit.predict(k).value == pytest.approx(truth, abs=1e-12)
    assert fit.predict(1).low < fit.predict(1).value < fit.predict(1).high


def test_a_vote_of_k_is_the_sum_over_all_outcomes():
    shares = np.array([0.4, 0.35, 0.15])  # a right answer, two wrong ones; 0.1 do not vote
    right, k = 1, 6
    truth = 0.0
    for votes in itertools.product(range(k + 1), repeat=3):
        if sum(votes) <= k:
            chance = multinomial.pmf([*votes, k - sum(votes)], k, [*shares, 0.1])
            tied = [i for i, n in enumerate(votes) if n == max(votes) and n > 0]
            truth += chance * (sum(i < right for i in tied) / len(tied) if tied else 0.0)
    answers = vote_law._Answers(np.tile(shares, (200_000, 1)), right)
    assert answers.vote(k, np.random.default_rng(0)) == pytest.approx(truth, abs=0.004)
    assert answers.limit() == 1.0
    both = vote_law._Answers(np.array([[0.2, 0.3, 0.4], [0.45, 0.1, 0.4]]), 2)
    assert both.limit() == 0.5


def test_clear_majorities_are_a_plateau_at_once():
    fit = fit_votes([*alike(10, (60,), (4,)), *alike(10, (3,), (61,))], bootstraps=200)
    assert fit.plateau.value == pytest.approx(0.5, abs=0.005)
    assert fit.plateau.low < 0.4 < 0.6 < fit.plateau.high  # ten of twenty problems
    assert fit.saturates_at is not None
    assert fit.saturates_at <= 8
    assert fit.predict(math.inf) == fit.plateau
    assert fit.predict(100_000).value == pytest.approx(fit.plateau.value, abs=0.005)


def test_the_plateau_of_a_population_is_found_and_the_curve_does_not_jump():
    rng = np.random.default_rng(3)
    large = population(rng, 40_000, 2.0, zero=0.1)
    plateau = float((large[:, 0] >= large.max(axis=1)).mean())
    fit = fit_votes(observed(population(rng, 250, 2.0, zero=0.1), 32, rng), bootstraps=300)
    assert fit.plateau.low <= plateau <= fit.plateau.high
    assert fit.scatter == pytest.approx(2.0, rel=0.3)
    values = [fit.predict(k).value for k in (1, 4, 16, 31, 32, 33, 64, 256, 4096, math.inf)]
    assert values[5] == pytest.approx(values[4], abs=0.01)
    assert values[-1] == pytest.approx(values[-2], abs=0.01)
    assert all(b > a - 0.01 for a, b in itertools.pairwise(values))
    assert fit.predict(fit.saturates_at).value == pytest.approx(fit.plateau.value, abs=0.01)
    assert fit.caution(320) is None
    assert "in samples a problem" in fit.caution(640)
    assert fit.reach(64) == 2.0
    assert "without end" in fit.notes[0]
    assert fit.draws_SP.shape == (300, 1)
    read = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    assert read["saturates_at"] == fit.saturates_at
    assert read["samples"] == [32, 32]


def test_wrong_answers_that_scatter_are_no_rivals():
    """Three of sixteen votes win where every wrong answer has one or two and others scatter, more surely than against a wrong answer
    with three."""
    spread = alike(12, (3,), (2, *[1] * 11))
    block = alike(12, (3,), (3, 10))
    assert fit_votes(spread, bootstraps=0).plateau.value > 0.8
    assert fit_votes(block, bootstraps=0).plateau.value < 0.1


def test_numbers_of_samples_may_differ_for_votes():
    rows = [*alike(8, (9,), (5, 2)), *alike(8, (20,), (30, 14))]
    fit = fit_votes(rows, bootstraps=10)
    exact = sum(maj_at_k(r.samples, r.right_votes, r.wrong_votes, 16) for r in rows) / 16
    assert fit.predict(16).value == pytest.approx(exact)
    assert fit.predict(64).value < fit.predict(16).value
    assert any("16 to 64 samples" in note for note in fit.notes)


def test_the_same_arguments_give_the_same_curve():
    rng = np.random.default_rng(5)
    rows = observed(population(rng, 30, 1.0), 16, rng)
    one, two = fit_votes(rows, bootstraps=30, seed=1), fit_votes(rows, bootstraps=30, seed=1)
    assert one.plateau == two.plateau
    assert one.predict(100) == two.predict(100)
    point = fit_votes(rows, bootstraps=0).predict(100)
    assert point.low == point.value == point.high
    assert point.method == "no bootstrap"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (alike(9, (3,), (5,)), r"There are 9 problems with counts"),
        ([*alike(10, (3,), (5,)), ProblemCounts("x", 8, 3)], r"'x' has no votes: a vote needs the number of samples"),
        (alike(10, (), (5, 3)), r"None of the 10 problems has a vote for a right answer.*at most 25\.9%"),
        (alike(10, (8,), ()), r"Every vote on the 10 problems is for a right answer.*rule of three"),
        ([*alike(10, (3,), (5,)), ProblemCounts("x", 8, 3, (3,), (6,))], r"'x' has votes that do not fit"),
    ],
)
def test_votes_that_carry_no_curve_are_refused(rows, sentence):
    with pytest.raises(LawError, match=sentence):
        fit_votes(rows)


def test_bad_requests_for_votes_are_refused():
    with pytest.raises(RequestError, match="bootstraps is -1"):
        fit_votes(alike(10, (3,), (5,)), bootstraps=-1)
    fit = fit_votes(alike(10, (3,), (5,)), bootstraps=0)
    for k in (0, 2.5, 2e6, math.nan):
        with pytest.raises(RequestError, match="it must be a whole number of votes"):
            fit.predict(k)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scatter", [0.5, 5.0])
def test_plateaus_cover(scatter):
    rng = np.random.default_rng(9)
    large = population(rng, 100_000, scatter, zero=0.1)
    plateau, inside = float((large[:, 0] >= large.max(axis=1)).mean()), 0
    for seed in range(100):
        rows = observed(population(rng, 200, scatter, zero=0.1), 24, rng)
        estimate = fit_votes(rows, bootstraps=300, seed=seed).plateau
        inside += estimate.low <= plateau <= estimate.high
    assert 82 <= inside <= 98


# ---------------------------------------------------------------- best of k
