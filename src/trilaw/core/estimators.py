"""Exact estimates, from n samples of one problem, of what k samples would have achieved.

Each is a U-statistic: the mean over all subsets of k of the n samples, so it is unbiased and uses every sample.

- pass@k (Chen et al. 2021, "Evaluating large language models trained on code"): 1 - C(n-c, k) / C(n, k).
- best-of-k by a score: the sample at ascending rank i is the best of C(i-1, k-1) subsets; tied samples share their block evenly.
- maj@k, plurality vote with ties broken uniformly: with g votes for a right answer and c_i for the others,

      C(n,k)^-1  sum_j C(g,j)  sum_t 1/(1+t)  [x^(k-j) y^t]  prod_i ( sum_{u<j} C(c_i,u) x^u + y C(c_i,j) x^j )

  where j counts the votes of the winner and t the answers that tie with it. Samples without an answer abstain: they do not vote
  but stay among the n that are drawn from; a draw in which nobody votes counts as wrong.

pass@k and best-of-k are ratios of whole numbers, rounded once. maj@k runs the same sum as a chain of hypergeometric draws, in
which every term is a probability: nothing overflows, nothing cancels, and it is good to about 1e-11 at n = 1000.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DIGITS = 12  # maj@k is rounded to this many decimals, so that a certain win is 1.0 and not 1.0 - 2e-14

NEGLIGIBLE = 1e-18  # vote counts of the winner less likely than this are left out: all of them together do not reach that decimal


def _check(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the {n} samples, it is {k}.")


def powers(samples: int) -> tuple[int, ...]:
    """The k's worth reporting for `samples` samples: the powers of two up to it, and the number itself."""
    return tuple(sorted({2**i for i in range(samples.bit_length())} | {samples}))


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is right, from c right ones among n. Raises ValueError unless 1 <= k <= n, 0 <= c <= n."""
    _check(n, k)
    if not 0 <= c <= n:
        raise ValueError(f"There cannot be {c} right samples among {n}.")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def best_of_k(scores: Sequence[float], values: Sequence[float], k: int) -> float:
    """Expected value of the sample that scores highest among k of them (ties broken uniformly).

    `scores` rank the samples, `values` say what each is worth, in the same order. Raises ValueError on unequal lengths or a bad k.
    """
    n = len(scores)
    _check(n, k)
    if len(values) != n:
        raise ValueError(f"There are {n} scores but {len(values)} values.")
    subsets = math.comb(n, k)
    ranked = sorted(zip(scores, values), key=lambda pair: pair[0])
    total, below = 0.0, 0
    while below < n:
        end = below
        while end < n and ranked[end][0] == ranked[below][0]:
            end += 1
        # Subsets whose best lies in this block: those inside the first `end` samples, less those inside the first `below`.
        share = (math.comb(end, k) - math.comb(below, k)) / subsets
        total += share * math.fsum(value for _, value in ranked[below:end]) / (end - below)
        below = end
    return total


def maj_at_k(n: int, right: Sequence[int], wrong: Sequence[int], k: int) -> float:
    """Probability that a plurality vote of k of the n samples elects a right answer.

    `right` and `wrong` hold the number of samples of each distinct right and wrong answer (often there is only one right answer, but
    not always); the n - sum samples that are left abstain. Raises ValueError on a bad k or more votes than samples.
    """
    _check(n, k)
    votes = [*right, *wrong]
    if sum(votes) > n or min(votes, default=0) < 0:
        raise ValueError(f"The votes {votes} do not fit {n} samples.")
    total = 0.0
    for winner, times in Counter(count for count in right if count).items():
        others = Counter(count for count in votes if count)
        others[winner] -= 1
        total += times * _win(n, k, winner, tuple(sorted(others.elements(), reverse=True)))
    return min(1.0, round(total, DIGITS))


@lru_cache(maxsize=4096)
def _win(n: int, k: int, own: int, others: tuple[int, ...]) -> float:
    """Probability that the answer with `own` votes wins against `others` (in descending order)."""
    log_factorial = np.array([math.lgamma(i + 1.0) for i in range(n + 1)])
    own_J = _hypergeometric(log_factorial, n, own, k)[k]
    draws: list[Floats] = []  # for each rival: [votes still to draw, votes drawn for it]
    left = n - own
    for count in others:
        draws.append(_hypergeometric(log_factorial, left, count, k))
        left -= count
    total = 0.0
    for j in range(1, min(own, k) + 1):
        if own_J[j] < NEGLIGIBLE:
            continue
        # A rival with fewer than j samples can neither beat nor tie j votes: it needs no state.
        rivals = [P_RU for count, P_RU in zip(others, draws) if count >= j]
        most = min(len(rivals), k // j - 1)  # answers that can tie
        state_TR = np.zeros((1, k - j + 1))  # [answers that tie, votes still to draw]
        state_TR[0, k - j] = own_J[j]
        left = n - own
        for i, P_RU in enumerate(rivals):
            # Votes still to draw: at least what the rivals so far can have left over, at most the samples that are left.
            low, high = max(0, k - j - i * j), min(k - j, left) + 1
            after_TR = np.zeros((min(i + 1, most) + 1, k - j + 1))
            for u in range(min(j, high)):
                at = max(low, u)
                after_TR[: len(state_TR), at - u : high - u] += state_TR[:, at:high] * P_RU[at:high, u]
            if 2 * j <= k and high > j:
                at, ties = max(low, j), min(len(state_TR), most)
                after_TR[1 : ties + 1, at - j : high - j] += state_TR[:ties, at:high] * P_RU[at:high, j]
            state_TR, left = after_TR, left - others[i]
        total += float((state_TR.sum(axis=1) / np.arange(1, len(state_TR) + 1)).sum())
    return total


def _hypergeometric(log_factorial: Floats, population: int, marked: int, k: int) -> Floats:
    """[r, u] for r, u up to k: the probability of u marked ones in r draws from a population (0 where it is impossible)."""
    r = np.arange(k + 1)[:, None]
    u = np.arange(min(marked, k) + 1)[None, :]
    possible = (u <= r) & (r <= population) & (r - u <= population - marked)

    def log_choose(a: NDArray[np.int64] | int, b: NDArray[np.int64]) -> Floats:
        a_, b_ = np.broadcast_arrays(np.asarray(a), b)
        b_ = np.clip(b_, 0, a_)  # impossible entries are masked below
        result: Floats = log_factorial[a_] - log_factorial[b_] - log_factorial[a_ - b_]
        return result

    logs = log_choose(marked, u) + log_choose(population - marked, r - u) - log_choose(population, r)
    return np.where(possible, np.exp(np.where(possible, logs, 0.0)), 0.0)
