"""The arithmetic of the joint law: accuracy of the main fit and of all bootstrap draws at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.special import gammaln

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.fitting import Floats
from trilaw.laws.joint_data import Base, LossLaw
from trilaw.laws.joint_likelihood import LOGIT_BOUND, Ints, Layout
from trilaw.laws.joint_vote import MOST_VOTES, vote, win_chances, win_table
from trilaw.laws.points import Measurement

How = Literal["pass", "vote"]
_NODES = np.linspace(-15.0, 15.0, 301)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement against the law: pass@1 as observed and as fitted (None where the measurement is not used)."""

    point: Measurement
    used: bool
    observed: float
    fitted: float | None


@dataclass(frozen=True, slots=True)
class Inner:
    """The numbers behind a JointFit. Row 0 of every array is the main fit, the others are draws."""

    layout: Layout
    theta_SP: Floats
    loss_law: LossLaw | None
    law_SP: Floats  # rows (E, A, B, alpha, beta) of the loss law; NaN where its own `loss` speaks, as in row 0
    bases: tuple[Base, ...]
    base_losses: tuple[float | None, ...]
    reference: float
    log_rl_reference: float
    missing: str  # what to say of a base that the law cannot reach
    diversity_S: Floats
    silent_S: Floats
    most: dict[str, float]  # the range of the data, for cautions
    table: tuple[Row, ...] = ()
    tables: dict[int, Floats] = field(default_factory=dict)  # memo of win tables, by size
    chances: dict[int, Floats] = field(default_factory=dict)  # memo of chances to win, by k
    curves: dict[int, Floats] = field(default_factory=dict)  # memo of the vote's accuracy at _NODES, by k

    def take(self, rows: Ints) -> Inner:
        """The same law with these rows only."""
        return replace(
            self,
            theta_SP=self.theta_SP[rows],
            law_SP=self.law_SP[rows],
            diversity_S=self.diversity_S[rows],
            silent_S=self.silent_S[rows],
            tables={size: table[rows] for size, table in self.tables.items()},
            chances={k: chance[rows] for k, chance in self.chances.items()},
            curves={k: curve[rows] for k, curve in self.curves.items()},
        )

    def losses(self, parameters: Floats | float, tokens: Floats | float) -> Floats:
        n, d = np.broadcast_arrays(np.atleast_1d(parameters), np.atleast_1d(tokens))
        rows = len(self.theta_SP)
        if self.loss_law is None:
            base = self._known(n, d)
            loss = None if base is None else self.base_losses[base]
            if loss is None:
                raise LawError(self.missing)
            return np.full((rows, n.shape[-1]), loss)
        n, d = (np.broadcast_to(v, (rows, v.shape[-1])) for v in (n, d))
        e, a, b, alpha, beta = (column[:, None] for column in self.law_SP.T)
        out: Floats = e + a * np.exp(-alpha * np.log(n)) + b * np.exp(-beta * np.log(d))
        for row in np.flatnonzero(np.isnan(self.law_SP[:, 0])):
            out[row] = [self.loss_law.loss(float(x), float(y)) for x, y in zip(n[row], d[row])]
        return out

    def logit(self, parameters: Floats | float, tokens: Floats | float, rl_flops: Floats | float) -> Floats:
        n, d, c = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (parameters, tokens, rl_flops))
        )
        base: int = 0
        if not self.layout.slope:
            known = self._known(n, d)
            if known is None:
                raise LawError(self.missing)
            base = known
        tilted = self.layout.asymptote_slope or self.layout.midpoint_slope
        if self.layout.slope or tilted:
            x = self.losses(n, d) - self.reference
        else:
            x = np.zeros((1, n.shape[-1]))
        with np.errstate(divide="ignore"):
            log_rl = np.log(c) - self.log_rl_reference
        return self.layout.logit(self.theta_SP, base, x, log_rl if c.ndim > 1 else log_rl[None, :])

    def accuracy(
        self,
        parameters: Floats | float,
        tokens: Floats | float,
        rl_flops: Floats | float,
        samples: float,
        how: How = "pass",
    ) -> Floats:
        """(1 + S) x G; arrays are (G,) or (1 + S, G)."""
        return self.success(self.logit(parameters, tokens, rl_flops), samples, how)

    def success(self, eta: Floats, samples: float, how: How) -> Floats:
        """Accuracy from logit mu (rows first). A fraction of a sample: that share of the questions gets one more."""
        whole = math.floor(samples)
        if samples > whole:
            share = samples - whole
            return (1.0 - share) * self.success(eta, whole, how) + share * self.success(eta, whole + 1, how)
        nu, z = (v.reshape(-1, *[1] * (eta.ndim - 1)) for v in self.layout.spread_of(self.theta_SP))
        bounded = np.clip(eta, -LOGIT_BOUND, LOGIT_BOUND)
        mu, rest = 1.0 / (1.0 + np.exp(-bounded)), 1.0 / (1.0 + np.exp(bounded))
        if whole == 1:
            result: Floats = (1.0 - z) * mu
        elif how == "pass":
            b = rest * nu
            missed = np.exp(gammaln(b + whole) - gammaln(b) + gammaln(nu) - gammaln(nu + whole))
            result = (1.0 - z) * (1.0 - missed)
        elif whole > MOST_VOTES:
            raise RequestError(f"A vote of {whole} samples was asked for; the vote law reaches to {MOST_VOTES}.")
        else:
            result = (1.0 - z) * vote(mu * nu, rest * nu, self.wins(whole))
        return result

    def quick_accuracy(self, parameters: Floats, tokens: Floats, rl_flops: Floats, samples: int, how: How) -> Floats:
        """`accuracy` for searches: a vote is read off a table in logit mu, by cubics (Catmull and Rom) that are good to 1e-5."""
        eta = self.logit(parameters, tokens, rl_flops)
        if how == "pass" or samples == 1:
            return self.success(eta, samples, how)
        if samples not in self.curves:
            self.curves[samples] = self.success(np.repeat(_NODES[None, :], len(self.theta_SP), axis=0), samples, how)
        curve = np.pad(self.curves[samples], ((0, 0), (1, 2)), mode="edge")
        place = np.clip((eta - _NODES[0]) / (_NODES[1] - _NODES[0]), 0.0, len(_NODES) - 1.0)
        at = np.minimum(place.astype(np.int64), len(_NODES) - 2)
        t = place - at
        rows = np.arange(len(curve))[:, None]
        before, left, right, after = (curve[rows, at + i] for i in range(4))
        slope_l, slope_r = 0.5 * (right - before), 0.5 * (after - left)
        bend = 3.0 * (right - left) - 2.0 * slope_l - slope_r
        result: Floats = left + t * (slope_l + t * (bend + t * (slope_l + slope_r - 2.0 * (right - left))))
        return result

    def wins(self, k: int) -> Floats:
        """Chances that j of k right samples carry the vote, one row a draw."""
        if k not in self.chances:
            size = next((s for s in (16, 32, 64, 128, MOST_VOTES) if s >= k), k)
            if size not in self.tables:
                self.tables[size] = win_table(self.diversity_S, size)
            self.chances[k] = win_chances(self.tables[size], self.silent_S, k)
        return self.chances[k]

    def _known(self, n: Floats, d: Floats) -> int | None:
        """Index of the one measured base that all entries name."""
        pair = (float(n.flat[0]), float(d.flat[0]))
        if not ((n == pair[0]).all() and (d == pair[1]).all()):
            return None
        return next(
            (
                i
                for i, base in enumerate(self.bases)
                if math.isclose(base[0], pair[0]) and math.isclose(base[1], pair[1])
            ),
            None,
        )
