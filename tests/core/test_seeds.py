from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core import seeds

parts = st.lists(st.one_of(st.integers(), st.text(max_size=8).filter(lambda t: "\x1f" not in t)), max_size=4)


@given(parts, parts)
@settings(max_examples=100, deadline=None)
def test_different_parts_give_different_seeds(a, b):
    assert (seeds.derive(*a) == seeds.derive(*b)) == (a == b)


def test_seeds_are_the_same_everywhere_and_fit_63_bits():
    assert seeds.derive(0, "a", 1) == 2**63 - 1 & seeds.derive(0, "a", 1)
    assert seeds.derive(1) != seeds.derive("1")
    assert seeds.derive("ab", "c") != seeds.derive("a", "bc")
    assert seeds.rng(3, "x").random() == seeds.rng(3, "x").random()


def test_uniform_is_splitmix64():
    def reference(seed: int, counter: int) -> float:
        mask = 2**64 - 1
        z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) / 2**53

    # The first output for state 0 is published: 0xE220A8397B1DCDAF.
    assert seeds.uniform(np.array([0], np.uint64), np.array([0]))[0] == (0xE220A8397B1DCDAF >> 11) / 2**53
    many = np.array([seeds.derive(i) for i in range(50)], dtype=np.uint64)
    counters = np.arange(50) * 7
    assert seeds.uniform(many, counters).tolist() == [reference(int(s), int(c)) for s, c in zip(many, counters)]


def test_uniform_is_uniform_over_seeds_and_over_counters():
    grid = np.arange(4000)
    over_counters = seeds.uniform(np.full(4000, seeds.derive("a"), np.uint64), grid)
    over_seeds = seeds.uniform(np.array([seeds.derive(i) for i in range(4000)], np.uint64), np.zeros(4000, np.int64))
    for u in (over_counters, over_seeds):
        assert u.min() >= 0.0
        assert u.max() < 1.0
        gap = np.abs(np.sort(u) - (grid + 0.5) / 4000).max()
        assert gap < 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov at a level of 0.1%
