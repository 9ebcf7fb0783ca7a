"""All laws side by side: what one of them lacks is a sentence, and the others do not suffer from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trilaw.core.errors import LawError
from trilaw.laws.findings import NO_BASE, find
from trilaw.laws.points import CurvePoint, LossPoint, Material, Measurement, ProblemCounts
from trilaw.laws.posttrain import fit_posttrain
from trilaw.laws.pretrain import fit_pretrain
from trilaw.laws.testtime import fit_testtime
from trilaw.laws.votes import fit_votes

CURVE = [CurvePoint(c, 0.1 + 0.7 / (1 + (10 / c) ** 1.5)) for c in np.geomspace(1, 200, 12)]


def model(**changes: object) -> Measurement:
    counts = tuple(ProblemCounts(f"q{i}", 4, i % 4, (i % 4,) if i % 4 else (), (4 - i % 4,)) for i in range(12))
    made = Measurement("run", "m", "t/test", 1e5, 1e6, 6e11, 0.0, 2.0, 8.0, 20.0, counts)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_base_of_unknown_training_is_no_point_of_the_joint_law() -> None:
    outside = model(model="outside", tokens=0.0, pretrain_flops=0.0, loss=None)
    found = find(Material(curves={"zero": CURVE}, measurements=[outside]), bootstraps=0)
    assert found.refused == {"joint": NO_BASE}
    assert "zero" in found.posttrain
    mixed = find(Material(measurements=[outside, model()]), bootstraps=0)
    assert mixed.joint is not None
    assert [m.model for m in mixed.joint.points] == ["m"]


@pytest.mark.parametrize("change", [{"loss": -1.0}, {"rl_flops": -1e9}, {"counts": ()}])
def test_a_number_that_cannot_be_costs_one_law(change: dict[str, object]) -> None:
    found = find(Material(curves={"zero": CURVE}, measurements=[model(**change)]), bootstraps=0)
    assert list(found.refused) == ["joint"]
    assert "'m'" in found.refused["joint"]
    assert "zero" in found.posttrain


def test_more_than_a_fit_takes_is_refused_at_once() -> None:
    point = LossPoint(1e6, 1e7, 2.0)
    many = [ProblemCounts(f"q{i}", 4, 2) for i in range(20_001)]
    deep = [ProblemCounts(f"q{i}", 513, 200, (200,), (313,)) for i in range(12)]
    for refused, words in (
        (lambda: fit_posttrain(CURVE * 200), "2,400 points of the curve: at most 2,000 are fitted, so average"),
        (lambda: fit_pretrain([point] * 5_001), "5,001 points: at most 5,000"),
        (lambda: fit_testtime(many), "20,001 problems: at most 20,000"),
        (lambda: fit_testtime([replace(deep[0], samples=20_001)] * 12), "20,001 samples of a problem: at most 20,000"),
        (lambda: fit_votes(deep), "513 samples of a problem, whose votes .* at most 512"),
    ):
        with pytest.raises(LawError, match=words):
            refused()
