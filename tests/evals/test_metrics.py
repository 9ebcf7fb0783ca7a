from __future__ import annotations

import pytest

from trilaw.core.types import Usage
from trilaw.evals.metrics import estimate, measure, votes
from trilaw.evals.store import Outcome


def outcome(value: float, extracted: str | None, tokens: int = 10, stop: str = "stop") -> Outcome:
    return Outcome(value, extracted, None, stop, Usage(completion_tokens=tokens), 0.0, 0)  # type: ignore[arg-type]


def test_measure_by_hand():
    easy = [outcome(1, "5"), outcome(1, "5"), outcome(0, "6"), outcome(0, None, 30, "length")]
    hard = [outcome(0, "1"), outcome(0, "1"), outcome(1, "2"), outcome(0, None)]
    values = measure([easy, hard])
    assert values["pass@1"] == (0.5, 0.25)
    assert values["pass@2"] == (5 / 6, 0.5)
    assert values["maj@4"] == (1.0, 0.0)
    # Pairs of `hard`: right only in {2, none}; a tie in {1, 2} twice: (1 + 2/2) / 6.
    assert values["maj@2"][1] == pytest.approx(1 / 3)
    assert values["mean_tokens"] == (15.0, 10.0)
    assert values["truncated"] == (0.25, 0.0)
    assert values["answered"] == (0.75, 0.75)
    assert "mean_score" not in values


def test_several_right_answers_vote_apart():
    group = [outcome(1, "2+3"), outcome(1, "3+2"), outcome(0, "2*3"), outcome(0, "2*3")]
    assert votes(group) == ([1, 1], [2])
    assert measure([group])["maj@4"] == (0.0,)


def test_partial_credit():
    values = measure([[outcome(0.5, "a"), outcome(1, "b")]])
    assert values["mean_score"] == (0.75,)
    assert values["pass@1"] == (0.5,)


def test_estimate_keeps_every_interval_in_its_bounds():
    values = measure([[outcome(1, "5", tokens=40)]] * 4)
    table = {e.metric: e.estimate for e in estimate(values, stage="s", task="t", split="u", max_tokens=100)}
    assert table["pass@1"].value == table["pass@1"].high == 1.0
    assert 0.0 < table["pass@1"].low < 1.0
    assert 0.0 <= table["mean_tokens"].low < 40.0 < table["mean_tokens"].high <= 100.0
