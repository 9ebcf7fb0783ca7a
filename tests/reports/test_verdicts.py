"""The sentences say what the numbers say, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilaw.reports.read import read_run
from trilaw.reports.verdicts import headline, verdicts

from .conftest import FakeRun


def run_with(
    fake: FakeRun, base: tuple[float, float, float], zero: tuple[float, float, float], split: str = "test"
) -> Path:
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.9)
    fake.exam({"base": {split: {"pass@1": base}}, "zero": {split: {"pass@1": zero}}})
    return fake.close()


@pytest.mark.parametrize(
    ("base", "zero", "outcome", "sentence"),
    [
        ((0.23, 0.20, 0.26), (0.95, 0.94, 0.97), "gain", "zero solves 95 % [94, 97] of held-out problems, base 23 % [20, 26]: a gain of 72 points."),
        ((0.23, 0.20, 0.26), (0.25, 0.22, 0.28), "none", "zero solves 25 % [22, 28] of held-out problems, base 23 % [20, 26]. The intervals overlap: no clear gain."),
        ((0.23, 0.20, 0.26), (0.01, 0.00, 0.02), "loss", "zero solves 1 % [0, 2] of held-out problems, base 23 % [20, 26]: a degradation, 22 points lost."),
        ((0.23, 0.20, 0.26), (0.30, 0.26, 0.34), "none", "zero solves 30 % [26, 34] of held-out problems, base 23 % [20, 26]. The intervals overlap: no clear gain."),
    ],
)  # fmt: skip
def test_wording(
    fake: FakeRun, base: tuple[float, float, float], zero: tuple[float, float, float], outcome: str, sentence: str
) -> None:
    run = read_run(run_with(fake, base, zero))
    assert [(v.outcome, v.sentence) for v in verdicts(run)] == [(outcome, sentence)]
    assert headline(run) == sentence


def test_a_split_that_is_not_the_test_split_is_named(fake: FakeRun) -> None:
    run = read_run(run_with(fake, (0.2, 0.1, 0.3), (0.5, 0.4, 0.6), split="hard"))
    assert headline(run).startswith("zero solves 50 % [40, 60] of problems of the split 'hard', base 20 %")


def test_every_model_is_judged_in_the_order_of_the_recipe_and_lost_reach_is_said(tiny_run: Path) -> None:
    found = [(v.stage, v.split, v.metric, v.outcome) for v in verdicts(read_run(tiny_run))]
    assert found == [
        ("zero", "test", "pass@1", "gain"),
        ("random", "test", "pass@1", "loss"),
        ("zero", "hard", "pass@1", "gain"),
        ("zero", "hard", "pass@16", "loss"),
    ]


def test_the_baseline_may_come_from_outside_and_skips_what_was_not_evaluated(fake: FakeRun) -> None:
    fake.stage("warm", "sft", {}, base="owner/model")
    fake.grpo("zero", "warm", 0.9)
    fake.exam({"owner/model": {"test": {"pass@1": (0.2, 0.1, 0.3)}}, "zero": {"test": {"pass@1": (0.5, 0.4, 0.6)}}})
    (verdict,) = verdicts(read_run(fake.close()))
    assert (verdict.stage, verdict.baseline, verdict.outcome) == ("zero", "owner/model", "gain")


def test_a_model_alone_is_compared_with_nothing(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.exam({"base": {"test": {"pass@1": (0.2, 0.1, 0.3)}}})
    assert headline(read_run(fake.close())) == "base solves 20 % [10, 30] of held-out problems."


def test_no_result_is_said_plainly(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.exam({}, done=False)
    assert headline(read_run(fake.close())) == "This run has no result yet: its evaluation has not finished."
