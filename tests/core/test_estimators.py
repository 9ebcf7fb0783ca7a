"""The estimators against brute force over all subsets, in exact fractions."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.estimators import best_of_k, maj_at_k, pass_at_k, powers

answers = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8)


def vote(draw: tuple[str | None, ...], right: set[str]) -> Fraction:
    counts = Counter(a for a in draw if a is not None)
    if not counts:
        return Fraction(0)
    top = [a for a, n in counts.items() if n == max(counts.values())]
    return Fraction(sum(a in right for a in top), len(top))


@given(answers, st.sets(st.sampled_from(["a", "b"])), st.data())
@settings(max_examples=150, deadline=None)
def test_maj_at_k_is_the_mean_over_all_subsets(samples, right, data):
    k = data.draw(st.integers(1, len(samples)))
    subsets = list(itertools.combinations(samples, k))
    expected = sum((vote(s, right) for s in subsets), Fraction(0)) / len(subsets)
    counts = Counter(a for a in samples if a is not None)
    got = maj_at_k(
        len(samples), [n for a, n in counts.items() if a in right], [n for a, n in counts.items() if a not in right], k
    )
    assert got == pytest.approx(float(expected), abs=1e-11)


def test_maj_at_k_by_hand():
    assert maj_at_k(5, [2], [2], 1) == pytest.approx(0.4)  # k = 1: the share of right samples; the abstention is wrong
    assert maj_at_k(5, [2], [2], 5) == 0.5  # k = n: the observed vote, here a tie
    assert maj_at_k(5, [3], [2], 5) == 1.0
    assert maj_at_k(3, [], [], 2) == 0.0  # nobody votes
    assert maj_at_k(4, [1], [], 2) == pytest.approx(0.5)  # one voter is a plurality, if drawn


def generating_function(n: int, right: list[int], wrong: list[int], k: int) -> Fraction:
    """The formula of the docstring in whole numbers: x powers and y powers as a table of coefficients."""
    total = Fraction(0)
    for position, own in enumerate(right):
        others = [c for i, c in enumerate(right) if i != position] + wrong
        abstain = n - sum(right) - sum(wrong)
        for j in range(1, min(own, k) + 1):
            table = {(u, 0): math.comb(abstain, u) for u in range(min(abstain, k) + 1)}
            for c in others:
                grown: Counter[tuple[int, int]] = Counter()
                for (x, y), weight in table.items():
                    for u in range(min(c, j) + 1):
                        grown[x + u, y + (u == j)] += weight * math.comb(c, u)
                table = {key: w for key, w in grown.items() if key[0] <= k}
            share = sum((Fraction(w, 1 + y) for (x, y), w in table.items() if x == k - j), Fraction(0))
            total += math.comb(own, j) * share
    return total / math.comb(n, k)


@pytest.mark.parametrize(
    ("n", "right", "wrong", "k"),
    [
        (64, [20], [20, 10, 5, 1, 1], 16),
        (64, [8, 3], [8, 8, 2], 32),
        (100, [1], [1] * 60, 10),
        (200, [40], [70, 30], 128),
    ],
)
def test_maj_at_k_equals_the_formula_in_whole_numbers(n, right, wrong, k):
    assert maj_at_k(n, right, wrong, k) == pytest.approx(float(generating_function(n, right, wrong, k)), abs=1e-11)


def test_large_n_is_fast_and_sound():
    start = time.process_time()
    for k in (1, 2, 64, 512, 1000):
        assert pass_at_k(1000, 0, k) == 0.0
        assert 0.0 < pass_at_k(1000, 1, k) == pytest.approx(k / 1000)
        assert 0.0 <= maj_at_k(1000, [300], [250, 200, 100, *[3] * 20], k) <= 1.0
    assert maj_at_k(1000, [300], [250, 200, 100], 1) == pytest.approx(0.3, abs=1e-11)
    assert maj_at_k(1000, [300], [250, 200, 100], 1000) == 1.0
    assert maj_at_k(1000, [1], [1] * 999, 1000) == pytest.approx(1e-3, abs=1e-11)
    # By symmetry two equal answers win equally often, and one of them always wins.
    assert maj_at_k(1000, [500], [500], 512) == pytest.approx(0.5, abs=1e-10)
    assert time.process_time() - start < 30


@given(st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_pass_at_k_is_the_mean_over_all_subsets(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k(n, c, k) == sum(map(max, subsets)) / len(subsets)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=8), st.data())
@settings(max_examples=100, deadline=None)
def test_best_of_k_is_the_mean_over_all_subsets(pairs, data):
    k = data.draw(st.integers(1, len(pairs)))
    subsets = list(itertools.combinations(pairs, k))
    expected = 0.0
    for subset in subsets:
        tied = [value for score, value in subset if score == max(s for s, _ in subset)]
        expected += sum(tied) / len(tied) / len(subsets)
    assert best_of_k([s for s, _ in pairs], [v for _, v in pairs], k) == pytest.approx(expected, abs=1e-12)


def test_bad_arguments_are_refused():
    for call in (
        lambda: pass_at_k(4, 5, 1),
        lambda: pass_at_k(4, 1, 5),
        lambda: pass_at_k(4, 1, 0),
        lambda: maj_at_k(4, [3], [2], 1),
        lambda: maj_at_k(4, [3], [-1], 1),
        lambda: best_of_k([1.0], [1.0, 2.0], 1),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            call()


def test_powers():
    assert powers(1) == (1,)
    assert powers(8) == (1, 2, 4, 8)
    assert powers(12) == (1, 2, 4, 8, 12)
