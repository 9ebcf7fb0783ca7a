"""A made world whose joint law is known: measurements drawn from it, for the tests of joint.py and allocate.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln
from scipy.stats import beta as beta_distribution
from scipy.stats import norm

from trilaw.laws.points import Measurement, ProblemCounts


@dataclass(frozen=True)
class TrueLoss:
    """L = E + A / N^alpha + B / D^beta, known exactly (every draw is the truth) or with a spread."""

    row: tuple[float, float, float, float, float] = (0.6, 12.0, 30.0, 0.30, 0.32)
    draws: int = 50
    scatter: float = 0.0

    @property
    def theta(self):
        return self.row

    @property
    def draws_SP(self):
        noise = np.random.default_rng(5).standard_normal((self.draws, 5)) * self.scatter
        return np.array(self.row) * np.exp(noise)

    def loss(self, parameters, tokens):
        e, a, b, alpha, beta = self.row
        return e + a / parameters**alpha + b / tokens**beta


@dataclass(frozen=True)
class World:
    intercept: float = -0.4  # logit mu at the loss `reference`
    slope: float = -3.0
    reference: float = 1.25
    asymptote: float = 2.2
    asymptote_slope: float = 0.0
    midpoint: float = 3e13
    midpoint_slope: float = 0.0
    steepness: float = 1.3
    nu: float = 1.2
    z: float = 0.06
    diversity: float = 2.0
    silent: float = 0.1
    law: TrueLoss = TrueLoss()

    def logit(self, parameters, tokens, rl_flops):
        x = self.law.loss(parameters, tokens) - self.reference
        gain = 0.0
        if rl_flops > 0:
            middle = self.midpoint * np.exp(self.midpoint_slope * x)
            gain = (self.asymptote + self.asymptote_slope * x) / (1 + (middle / rl_flops) ** self.steepness)
        return self.intercept + self.slope * x + gain

    def accuracy(self, parameters, tokens, rl_flops, samples):
        """pass@k by the ratio of Beta functions."""
        mu = 1 / (1 + np.exp(-self.logit(parameters, tokens, rl_flops)))
        b = (1 - mu) * self.nu
        miss = np.exp(gammaln(b + samples) - gammaln(b) + gammaln(self.nu) - gammaln(self.nu + samples))
        return (1 - self.z) * (1 - miss)

    def measure(
        self,
        rng,
        *,
        bases=((1e5, 1e6), (1e5, 4e6), (2.5e5, 1e6), (2.5e5, 4e6), (6e5, 2e6), (6e5, 8e6)),
        rl=((6e5, 8e6, (1e12, 4e12, 1.6e13, 6.4e13, 2.5e14)),),
        questions=128,
        samples=16,
        shared=0.7,
        between=0.0,
        votes=False,
        losses=True,
        run="made",
    ):
        """Measurements of all bases and RL checkpoints. `shared` correlates a question's difficulty over models; `between` is the standard
        deviation in logits of trained models around the law: of a base with all RL from it, and of the gain of a run of RL."""
        common = rng.standard_normal(questions)
        lost = rng.random(questions) < self.z
        shifts = {(n, d): rng.normal(0.0, between) for n, d in bases}
        jobs = [(n, d, 0.0, shift) for (n, d), shift in shifts.items()]
        for n, d, computes in rl:
            own = rng.normal(0.0, between)
            gate = [1 / (1 + (self.midpoint / c) ** self.steepness) for c in computes]
            jobs += [(n, d, c, shifts.get((n, d), 0.0) + own * g) for c, g in zip(computes, gate)]
        out = []
        for n, d, c, shift in jobs:
            mu = 1 / (1 + np.exp(-(self.logit(n, d, c) + shift)))
            u = norm.cdf(np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal(questions))
            p = np.where(lost, 0.0, beta_distribution.ppf(u, mu * self.nu, (1 - mu) * self.nu))
            rows = []
            for i in range(questions):
                correct = int(rng.binomial(samples, p[i]))
                right, wrong = (), ()
                if votes:
                    right = (correct,) if correct else ()
                    wrong = tables(rng, int(rng.binomial(samples - correct, 1 - self.silent)), self.diversity)
                rows.append(ProblemCounts(f"q{i}", samples, correct, right, wrong))
            loss = self.law.loss(n, d) if losses else None
            out.append(
                Measurement(run, f"{n:g}-{d:g}-{c:g}", "made", n, d, 6 * n * d, c, loss, 20.0, 60.0, tuple(rows))
            )
        return out


def tables(rng, guests, diversity):
    """Sizes of the tables of a Chinese restaurant, which Ewens's formula describes."""
    sizes: list[int] = []
    for seated in range(guests):
        if rng.random() < diversity / (diversity + seated):
            sizes.append(1)
        else:
            sizes[rng.choice(len(sizes), p=np.array(sizes) / seated)] += 1
    return tuple(sizes)
