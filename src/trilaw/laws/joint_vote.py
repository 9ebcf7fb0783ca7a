"""How wrong answers scatter, and what a plurality vote of k samples is then worth.

The wrong answers to a question are draws from a distribution that is itself a draw from a Dirichlet process with concentration theta, the
same for all questions: small theta, and wrong samples agree with each other; large theta, and each is wrong in its own way. The counts
of the distinct wrong answers then follow Ewens's formula (Ewens 1972), from which theta is fitted by maximum likelihood: of w wrong
answers sum_{i<w} theta / (theta + i) are distinct on average. A wrong sample gives no answer at all with probability `silent`, and then
does not vote. One right answer a question; ties are broken evenly.

Against w wrong votes, j right ones win with probability

    V(j, w) = w! / (theta)_w  sum_t 1/(1+t) (theta/j)^t / t!  [x^(w - j t)] exp( theta sum_{i<j} x^i / i )

(t: wrong answers that tie; the exponential formula for permutations by cycle lengths, of which Ewens's formula is a weighting). How
often j of k samples are right is beta-binomial. Assumed: how wrong answers scatter does not depend on how hard a question is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trilaw.laws.fitting import Floats
from trilaw.laws.joint_likelihood import Ints
from trilaw.laws.points import ProblemCounts

DIVERSITY_BOUNDS = (1e-4, 1e3)  # theta: practically one wrong answer, practically all distinct
MOST_VOTES = 192  # the largest k: beyond it the coefficients leave double precision at the greatest theta
SAME_RIGHT = (
    0.95  # share of right votes that the leading right answer must have: the vote law knows one right answer a question
)


def wrong_votes(counts: Sequence[ProblemCounts]) -> tuple[Ints, Ints, Ints]:
    """For each row: wrong votes, distinct wrong answers, wrong samples without an answer."""
    votes = np.array([sum(row.wrong_votes) for row in counts], dtype=np.int64)
    kinds = np.array([sum(1 for n in row.wrong_votes if n) for row in counts], dtype=np.int64)
    wrong = np.array([row.samples - row.correct for row in counts], dtype=np.int64)
    return votes, kinds, wrong - votes


def fit_diversity(votes_R: Ints, kinds_R: Ints, weights_SR: Floats) -> Floats:
    """theta of each row of weights, by bisection of the likelihood's slope in log theta (it falls, so the root is the maximum)."""
    most = int(votes_R.max(initial=0))
    seen = weights_SR @ kinds_R.astype(np.float64)
    # A question with w wrong votes adds theta / (theta + i) for each i < w: what counts is how many questions have more than i.
    more_SI = weights_SR @ (votes_R[:, None] > np.arange(most)[None, :]).astype(np.float64)
    low, high = (np.full(len(weights_SR), np.log(bound)) for bound in DIVERSITY_BOUNDS)
    for _ in range(50):
        middle = 0.5 * (low + high)
        theta = np.exp(middle)[:, None]
        expected = (more_SI * theta / (theta + np.arange(most))).sum(axis=1)
        low, high = np.where(expected < seen, middle, low), np.where(expected < seen, high, middle)
    result: Floats = np.exp(0.5 * (low + high))
    return result


def win_table(theta_S: Floats, most: int) -> Floats:
    """V[s, j, w] for j, w = 0 ... most; j = 0 never wins."""
    S, J = len(theta_S), most + 1
    theta = theta_S[:, None]
    w_ = np.arange(1, J, dtype=np.float64)
    log_rho = np.zeros((S, J))  # (theta)_w / w!
    log_rho[:, 1:] = np.cumsum(np.log((theta + w_ - 1.0) / w_), axis=1)
    # e[s, j, w] = [x^w] exp(theta sum_{i<j} x^i / i), from w e_w = theta (e_{w-1} + ... + e_{w-j+1}); kept with its running sums.
    e = np.zeros((S, J, J))
    e[:, :, 0] = 1.0
    sums = np.zeros((S, J, J + 1))
    sums[:, :, 1] = 1.0
    j_ = np.arange(J)
    for w in range(1, J):
        first = np.maximum(w - j_ + 1, 0)
        window = (
            sums[:, :, w] - np.take_along_axis(sums, np.broadcast_to(first[None, :, None], (S, J, 1)), axis=2)[:, :, 0]
        )
        e[:, :, w] = np.where(j_ >= 2, theta / w * np.maximum(window, 0.0), 0.0)
        sums[:, :, w + 1] = sums[:, :, w] + e[:, :, w]
    table = e.copy()
    for j in range(1, J):
        factor = np.ones(S)
        for ties in range(1, most // j + 1):
            factor = factor * theta_S / (j * ties)
            table[:, j, j * ties :] += (factor / (1.0 + ties))[:, None] * e[:, j, : J - j * ties]
    table *= np.exp(-log_rho)[:, None, :]
    table[:, 0] = 0.0
    return np.clip(table, 0.0, 1.0)


def win_chances(table_SJW: Floats, silent_S: Floats, k: int) -> Floats:
    """[s, j]: the chance that j right ones of k samples carry the vote, the silent ones among the wrong being left out."""
    wins = np.zeros((len(table_SJW), k + 1))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, k + 1)))])
    quiet = np.clip(silent_S, 1e-12, 1.0 - 1e-12)[:, None]
    u = np.arange(k + 1)
    log_cast, log_quiet = u * np.log1p(-quiet), u * np.log(quiet)  # of u samples that vote, and of u that do not
    for j in range(1, k + 1):
        wrong = k - j
        choose = log_factorial[wrong] - log_factorial[: wrong + 1] - log_factorial[wrong::-1]
        cast = np.exp(choose + log_cast[:, : wrong + 1] + log_quiet[:, wrong::-1])
        wins[:, j] = (cast * table_SJW[:, j, : wrong + 1]).sum(axis=1)
    return wins


def vote(a: Floats, b: Floats, wins_SJ: Floats) -> Floats:
    """Chance that a vote of k samples is right where the share of right ones is Beta(a, b); a and b are (S, ...), wins_SJ is (S, k+1)."""
    k = wins_SJ.shape[1] - 1
    nu = a + b
    wins = wins_SJ.reshape(len(wins_SJ), *[1] * (a.ndim - 1), k + 1)
    # P(no right one), then each probability from the one before; in logs where it is small, so that nothing underflows.
    log_p = np.zeros(a.shape)
    for i in range(k):
        log_p += np.log((b + i) / (nu + i))
    total = np.zeros(a.shape)
    for j in range(1, k + 1):
        log_p += np.log((k - j + 1) / j * (a + j - 1) / (b + (k - j)))
        total += np.exp(log_p) * wins[..., j]
    return np.minimum(total, 1.0)
