"""One prediction of pass@k from many families of distributions: fitted side by side, weighed by likelihood, drawn from together.

- Within a family the third parameter is integrated over, on a grid. A zero mass: half the weight beforehand on none, half spread
  evenly up to the share of problems that were never solved. A ceiling: evenly up to 1. Where few samples cannot tell a zero mass
  from a heavy tail its likelihood is flat, and neither its maximum nor a bootstrap of the maximum says how large it can be.
- The other parameters are those of greatest likelihood, with a bootstrap over problems.
- Families weigh as exp(log likelihood - number of parameters that were maximised) (Akaike weights: Buckland, Burnham and Augustin
  1997), the likelihood taken as its mean over the third parameter. Beforehand they are alike.

A draw is then a family, a third parameter, and the other parameters fitted anew to problems drawn with replacement. "These" problems
are predicted by the posterior of each one's p given its counts: empirical Bayes with resampled parameters (Laird and Louis 1987).
Suffixes as in `coverage_models`; J values of the third parameter, R rows: one distribution each, of all families.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from trilaw.laws.coverage_models import FAMILIES, Ascent, Family, Ints, Nodes, climb, likelihood
from trilaw.laws.fitting import Floats

COLUMNS = 5  # of a padded theta
_ZEROS = 40  # values of the zero mass above none
_CEILINGS = np.arange(1, 21) / 20.0
_LEAST = 1e-4  # weight below which a row is left out
_CLASSES = 10  # of counts, for the test of fit
_MOST_LISTED = 5e7  # table entries of that test


@dataclass(frozen=True, slots=True)
class Pairs:
    """The data: distinct pairs of samples and right ones, how many problems show each, and nodes that are fine enough for them."""

    samples_H: Ints
    correct_H: Ints
    problems_H: Floats
    at: Nodes

    @property
    def problems(self) -> int:
        return int(self.problems_H.sum())

    def likelihood(self, ceiling: float = 1.0) -> Floats:
        return likelihood(self.samples_H, self.correct_H, self.at, ceiling)


@dataclass(frozen=True, slots=True)
class Rows:
    """Distributions of several families. `place` is the family's in `FAMILIES`, theta is padded with NaN, the weights sum to 1."""

    place_R: Ints
    theta_RP: Floats
    zero_R: Floats
    ceiling_R: Floats
    weight_R: Floats  # of draws: all alike

    def __len__(self) -> int:
        return len(self.place_R)

    def take(self, chosen: Ints) -> Rows:
        """Some of them, weighed among themselves."""
        weight = self.weight_R[chosen]
        return Rows(
            self.place_R[chosen],
            self.theta_RP[chosen],
            self.zero_R[chosen],
            self.ceiling_R[chosen],
            weight / weight.sum(),
        )

    def groups(self) -> list[tuple[Family, float, Ints]]:
        """Each family and ceiling, with its rows."""
        found = sorted(set(zip(self.place_R.tolist(), self.ceiling_R.tolist())))
        return [(FAMILIES[f], s, np.flatnonzero((self.place_R == f) & (self.ceiling_R == s))) for f, s in found]


def fit_family(pairs: Pairs, family: Family, tails_2P: Floats | None = None) -> tuple[Rows, float]:
    """The family at every value of its third parameter that its likelihood supports, and the logarithm of its weight.

    `tails_2P` are the tails to which a body is added: those of the same family without one, at no and at half the largest zero mass.
    """
    if family.ceiling:
        ceiling_J, zero_J = _CEILINGS, np.zeros(len(_CEILINGS))
        before_J = np.full(len(ceiling_J), 1.0 / len(ceiling_J))
        found = [_best(pairs, family, family.starts(), 0.0, s) for s in ceiling_J]
        theta_JP, value_J = np.array([theta for theta, _ in found]), np.array([value for _, value in found])
    else:
        most = float(pairs.problems_H[pairs.correct_H == 0].sum()) / pairs.problems
        zero_J = np.linspace(0.0, most, _ZEROS + 1) if most else np.zeros(1)
        before_J = np.array([0.5, *[0.5 / _ZEROS] * _ZEROS]) if most else np.ones(1)
        ceiling_J = np.ones(len(zero_J))
        starts_SP = family.starts(tails_2P)
        climbs = [
            _climb_all(pairs, family, np.tile(_best(pairs, family, starts_SP, zero, 1.0)[0], (len(zero_J), 1)), zero_J)
            for zero in (0.0, most / 2)
        ]
        pick_J = (climbs[1][1] > climbs[0][1]).astype(np.int64)
        theta_JP = np.stack([theta for theta, _ in climbs])[pick_J, np.arange(len(zero_J))]
        value_J = np.stack([value for _, value in climbs])[pick_J, np.arange(len(zero_J))]
    relative_J = before_J * np.exp(value_J - value_J.max())
    padded_JP = np.full((len(theta_JP), COLUMNS), np.nan)
    padded_JP[:, : family.parameters] = theta_JP
    place_J = np.full(len(theta_JP), FAMILIES.index(family))
    rows = Rows(place_J, padded_JP, zero_J, ceiling_J, relative_J)
    kept = np.flatnonzero(relative_J > _LEAST * relative_J.sum())
    return rows.take(kept), float(value_J.max() + np.log(relative_J.sum()) - family.parameters)


def _best(pairs: Pairs, family: Family, starts_SP: Floats, zero: float, ceiling: float) -> tuple[Floats, float]:
    count = len(starts_SP)
    weights_SH = np.tile(pairs.problems_H, (count, 1))
    theta, value = climb(
        family, starts_SP, Ascent(weights_SH, pairs.likelihood(ceiling), np.full(count, zero), pairs.at)
    )
    best = int(value.argmax())
    return theta[best], float(value[best])


def _climb_all(pairs: Pairs, family: Family, starts_JP: Floats, zero_J: Floats) -> tuple[Floats, Floats]:
    weights_JH = np.tile(pairs.problems_H, (len(zero_J), 1))
    return climb(family, starts_JP, Ascent(weights_JH, pairs.likelihood(), zero_J, pairs.at))


def fit_rows(pairs: Pairs, families: Sequence[Family] = FAMILIES) -> tuple[Rows, dict[Family, Rows]]:
    """All families together, weighed, and the rows of each by itself."""
    alone: dict[Family, Rows] = {}
    log_weights: list[float] = []
    for family in families:
        bare = alone.get(Family(family.tail)) if family.body else None
        tails = None if bare is None else bare.theta_RP[[0, len(bare) // 2], :2]
        alone[family], log_weight = fit_family(pairs, family, tails)
        log_weights.append(log_weight)
    shares = np.exp(np.array(log_weights) - max(log_weights))
    shares /= shares.sum()
    parts = list(alone.values())
    together = Rows(
        np.concatenate([rows.place_R for rows in parts]),
        np.concatenate([rows.theta_RP for rows in parts]),
        np.concatenate([rows.zero_R for rows in parts]),
        np.concatenate([rows.ceiling_R for rows in parts]),
        np.concatenate([share * rows.weight_R for share, rows in zip(shares, parts)]),
    )
    return together.take(np.flatnonzero(together.weight_R > _LEAST)), alone


def draw(pairs: Pairs, rows: Rows, count: int, generator: np.random.Generator) -> tuple[Rows, Ints]:
    """`count` draws: rows in proportion to their weights, each fitted to problems resampled; and which row each came from."""
    edges = np.floor(np.cumsum(rows.weight_R) / rows.weight_R.sum() * count + generator.random())
    times_R = np.diff(np.minimum(edges, count), prepend=0.0).astype(np.int64)
    times_R[-1] += count - times_R.sum()
    source_S = np.repeat(np.arange(len(rows)), times_R)
    drawn = rows.take(source_S)
    weights_SH = generator.multinomial(pairs.problems, pairs.problems_H / pairs.problems, size=count).astype(np.float64)
    theta_SP = drawn.theta_RP.copy()
    for family, ceiling, chosen in drawn.groups():
        ascent = Ascent(weights_SH[chosen], pairs.likelihood(ceiling), drawn.zero_R[chosen], pairs.at)
        used = family.parameters
        theta_SP[chosen, :used] = climb(family, theta_SP[chosen, :used], ascent)[0]
    return Rows(drawn.place_R, theta_SP, drawn.zero_R, drawn.ceiling_R, np.full(count, 1.0 / max(count, 1))), source_S


@dataclass(frozen=True, slots=True)
class _Group:
    """The rows of one family and ceiling on the nodes: G itself, and the mean over these problems of each one's posterior."""

    chosen: Ints
    ceiling: float
    prior_RG: Floats
    posterior_RG: Floats


class Mixture:
    """Rows on the nodes, ready to predict pass@k."""

    def __init__(self, pairs: Pairs, rows: Rows) -> None:
        self.pairs, self.rows = pairs, rows
        self._groups: list[_Group] = []
        for family, ceiling, chosen in rows.groups():
            theta_RP = rows.theta_RP[chosen, : family.parameters]
            prior_RG = family.weights(theta_RP, rows.zero_R[chosen], pairs.at)
            likelihood_HG = pairs.likelihood(ceiling)
            m_RH = np.maximum(prior_RG @ likelihood_HG.T, 1e-300)
            posterior_RG = prior_RG * ((pairs.problems_H / m_RH) @ likelihood_HG) / pairs.problems
            self._groups.append(_Group(chosen, ceiling, prior_RG, posterior_RG))

    def pass_at_k(self, k: float, *, these: bool) -> Floats:
        """[R]: for these problems, or for new ones."""
        values_R = np.empty(len(self.rows))
        for group in self._groups:
            solved_G = self.pairs.at.solved(k, group.ceiling)
            values_R[group.chosen] = (group.posterior_RG if these else group.prior_RG) @ solved_G
        return np.minimum(values_R, 1.0)

    def mean(self, k: float, *, these: bool) -> float:
        """pass@k, the rows averaged by their weights."""
        return min(1.0, float(self.rows.weight_R @ self.pass_at_k(k, these=these)))

    def posteriors(self) -> Floats:
        """[H, G]: the posterior of p for each pair (n, c), the rows averaged by how well each predicts that pair. Without ceilings only."""
        total_HG = np.zeros_like(self.pairs.likelihood())
        for group in self._groups:
            weight_R = self.rows.weight_R[group.chosen]
            total_HG += (weight_R @ group.prior_RG) * self.pairs.likelihood(group.ceiling)
        result: Floats = total_HG / total_HG.sum(axis=1, keepdims=True)
        return result

    def deviation(self, k: float) -> Floats:
        """[R]: standard deviation of pass@k of these problems that is left when the distribution is known: each p by its posterior."""
        values_R = np.empty(len(self.rows))
        for group in self._groups:
            solved_G = self.pairs.at.solved(k, group.ceiling)
            likelihood_HG = self.pairs.likelihood(group.ceiling)
            m_RH = np.maximum(group.prior_RG @ likelihood_HG.T, 1e-300)
            mean_RH = group.prior_RG @ (likelihood_HG * solved_G).T / m_RH
            variance_R = group.posterior_RG @ solved_G**2 - mean_RH**2 @ self.pairs.problems_H / self.pairs.problems
            values_R[group.chosen] = np.sqrt(np.maximum(variance_R, 0.0) / self.pairs.problems)
        return values_R

    def surprise(self) -> float | None:
        """The probability of counts as far from the mixture as these, by chi-square over ten classes of the counts that it holds equally
        likely (those in which it expects fewer than five problems joined). None with too few classes, or counts too large to list."""
        at, samples_H = self.pairs.at, self.pairs.samples_H
        every = np.unique(samples_H)
        if float((every + 1).sum()) * (len(at.logit) + 2) > _MOST_LISTED:
            return None
        expected, observed = np.zeros(_CLASSES), np.zeros(_CLASSES)
        for n in every:
            correct = np.arange(n + 1)
            chance = np.zeros(n + 1)
            for group in self._groups:
                mean_G = self.rows.weight_R[group.chosen] @ group.prior_RG
                chance += likelihood(np.full(n + 1, n), correct, at, group.ceiling) @ mean_G
            middle = np.cumsum(chance) - chance / 2
            kind = np.minimum((middle * _CLASSES).astype(np.int64), _CLASSES - 1)
            here_H = samples_H == n
            problems_C = np.bincount(self.pairs.correct_H[here_H], self.pairs.problems_H[here_H], n + 1)
            expected += problems_C.sum() * np.bincount(kind, chance, _CLASSES)
            observed += np.bincount(kind, problems_C, _CLASSES)
        thin = expected < 5.0
        if thin.any():
            expected, observed = (np.append(x[~thin], x[thin].sum()) for x in (expected, observed))
        if len(expected) < 3:
            return None
        square = float(((observed - expected) ** 2 / np.maximum(expected, 0.5)).sum())
        return float(chdtrc(len(expected) - 1, square))
