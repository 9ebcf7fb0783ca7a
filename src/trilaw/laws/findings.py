"""All laws that some measured points can carry, fitted side by side; and for each that they cannot, the sentence that says why.

    found = find(Material(losses=..., curves=..., counts=..., measurements=...))
    found.pretrain, found.posttrain["zero"], found.testtime["zero"], found.joint       None or absent where the data does not carry it
    found.refused                                                                     law -> sentence

`to_json` adds to each fit what a chart needs: the points, and the fitted curve with its band, up to `BEYOND` times the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from trilaw.core.errors import RequestError, TrilawError
from trilaw.core.estimators import pass_at_k, powers
from trilaw.core.types import Estimate
from trilaw.laws.fitting import BOOTSTRAPS
from trilaw.laws.joint import JointFit, fit_joint
from trilaw.laws.link import LinkFit, fit_link
from trilaw.laws.optimum import optimum
from trilaw.laws.points import Material
from trilaw.laws.posttrain import PosttrainFit, fit_posttrain
from trilaw.laws.pretrain import PretrainFit, fit_pretrain
from trilaw.laws.testtime import TesttimeFit, fit_testtime
from trilaw.laws.votes import VoteFit, fit_votes

LAWS = ("pretrain", "posttrain", "testtime", "joint")
BEYOND = 10.0  # times the largest compute or number of samples up to which curves are drawn
JOINT_BOOTSTRAPS = 200  # a draw of the joint law costs as much as ten of the others
_DOTS = 40  # of a drawn curve
NO_BASE = (
    "The models that were evaluated come from a base of unknown pre-training (from outside the run): the joint law needs bases that the run "
    "itself has pre-trained."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    """What the material carries. A law that it does not carry is None or absent, and stands in `refused` with the reason."""

    material: Material
    pretrain: PretrainFit | None
    known_entropy: PretrainFit | None  # the same with E fixed to the known entropy
    link: LinkFit | None
    posttrain: Mapping[str, PosttrainFit]
    testtime: Mapping[str, TesttimeFit]
    votes: Mapping[str, VoteFit]
    joint: JointFit | None
    refused: Mapping[str, str]

    @property
    def any(self) -> bool:
        return bool(self.pretrain or self.posttrain or self.testtime or self.votes or self.joint)

    def to_json(self) -> dict[str, Any]:
        """Plain and finite: `laws` by kind, each with its points and drawn curve, and `refused`."""
        return {
            "version": 1,
            "measured": {
                "losses": [
                    {"parameters": p.parameters, "tokens": p.tokens, "flops": p.compute, "loss": p.loss}
                    for p in self.material.losses
                ],
                "known_entropy": self.material.entropy,
            },
            "laws": {
                "pretrain": None if self.pretrain is None else _pretrain(self.pretrain, self),
                "link": None if self.link is None else self.link.to_json(),
                "posttrain": {
                    name: _posttrain(fit, self.material.sources.get(name, "")) for name, fit in self.posttrain.items()
                },
                "testtime": {
                    name: _testtime(name, self)
                    for name in self.material.counts
                    if name in self.testtime or name in self.votes
                },
                "joint": None if self.joint is None else self.joint.to_json(),
            },
            "refused": dict(self.refused),
        }


def find(material: Material, *, laws: Sequence[str] = LAWS, bootstraps: int = BOOTSTRAPS, seed: int = 0) -> Findings:
    """Fit every law of `laws` that the material may carry. What was not measured at all is neither fitted nor refused."""
    refused: dict[str, str] = {}
    losses, counts = material.losses, material.counts

    def attempt(name: str, fit: Callable[..., T], points: Any, **more: Any) -> T | None:
        try:
            return fit(points, **{"bootstraps": bootstraps, "seed": seed, **more})
        except RequestError as error:  # a LawError, or a number that cannot be: the other laws do not suffer from it
            refused[name.strip()] = str(error)
            return None

    def each(law: str, fit: Callable[..., T], sets: Mapping[str, Any]) -> dict[str, T]:
        fits = {name: attempt(f"{law} {name}", fit, points) for name, points in sets.items()}
        return {name: made for name, made in fits.items() if made is not None}

    pretrain = known = link = joint = None
    if "pretrain" in laws and losses:
        pretrain = attempt("pretrain", fit_pretrain, losses)
        if pretrain is not None and material.entropy is not None:
            known = attempt("pretrain with the known entropy", fit_pretrain, losses, irreducible=material.entropy)
        with_accuracy = [point for point in losses if point.accuracy is not None]
        link = attempt("link", fit_link, with_accuracy) if with_accuracy else None
    posttrain = each("posttrain", fit_posttrain, material.curves if "posttrain" in laws else {})
    testtime = each("testtime", fit_testtime, counts if "testtime" in laws else {})
    voted = {name: rows for name, rows in counts.items() if any(row.right_votes or row.wrong_votes for row in rows)}
    votes = each("votes", fit_votes, voted if "testtime" in laws else {})
    if "joint" in laws and material.measurements:
        draws = min(bootstraps, JOINT_BOOTSTRAPS)
        based = [m for m in material.measurements if m.tokens > 0]
        if based:
            joint = attempt("joint", fit_joint, based, loss_law=pretrain, bootstraps=draws)
        else:
            refused["joint"] = NO_BASE
    return Findings(material, pretrain, known, link, posttrain, testtime, votes, joint, refused)


def _dots(low: float, high: float) -> list[float]:
    return [float(x) for x in np.geomspace(low, high, _DOTS)]


def _estimate(x: str, at: float, estimate: Estimate) -> dict[str, float]:
    return {x: at, "value": estimate.value, "low": estimate.low, "high": estimate.high}


def _pretrain(fit: PretrainFit, findings: Findings) -> dict[str, Any]:
    computes = [point.compute for point in fit.points]
    curve = []
    for flops in _dots(min(computes), BEYOND * max(computes)):
        try:
            best = optimum(fit, flops)
        except TrilawError:  # below the smallest run
            continue
        curve.append(
            {**_estimate("flops", flops, best.loss), "parameters": best.parameters.value, "tokens": best.tokens.value}
        )
    further = optimum(fit, BEYOND * max(computes))
    known = findings.known_entropy
    return {
        **fit.to_json(),
        "measured": [
            {
                "parameters": p.parameters,
                "tokens": p.tokens,
                "flops": p.compute,
                "loss": p.loss,
                "fitted": fit.loss(p.parameters, p.tokens),
            }
            for p in fit.points
        ],
        "curve": curve,
        "optimum": further.to_json(),
        "known_entropy": findings.material.entropy,
        "with_known_entropy": None if known is None else known.to_json(),
    }


def _posttrain(fit: PosttrainFit, source: str) -> dict[str, Any]:
    positive = [p.compute for p in fit.points if p.compute > 0]
    return {
        **fit.to_json(),
        "source": source,
        "measured": [{"compute": p.compute, "value": p.value, "questions": p.questions} for p in fit.points],
        "curve": [_estimate("compute", c, fit.predict(c)) for c in _dots(min(positive) / 2, BEYOND * max(positive))],
    }


def _testtime(name: str, findings: Findings) -> dict[str, Any]:
    rows = findings.material.counts[name]
    samples = min(row.samples for row in rows)
    coverage, votes = findings.testtime.get(name), findings.votes.get(name)
    ks = sorted({round(k) for k in _dots(1, BEYOND * samples)})
    measured = [
        {"k": k, "value": math.fsum(pass_at_k(row.samples, row.correct, k) for row in rows) / len(rows)}
        for k in powers(samples)
    ]
    return {
        "problems": len(rows),
        "samples": samples,
        "measured": measured,
        "coverage": None
        if coverage is None
        else {**coverage.to_json(), "curve": [_estimate("k", k, coverage.predict(k)) for k in ks]},
        "votes": None
        if votes is None
        else {**votes.to_json(), "curve": [_estimate("k", k, votes.predict(k)) for k in ks]},
    }
