"""Arithmetic: the written chain, its steps and its answer agree with an independent evaluation."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.config import parse
from trilaw.core.errors import ConfigError, RequestError
from trilaw.core.types import Problem
from trilaw.tasks.arithmetic import Arithmetic, ArithmeticConfig
from trilaw.tasks.verifiers.expression import evaluate

PROBLEM = Problem("34 + 5", ({"role": "user", "content": "What is 34 + 5?"},), "39")


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(0, 3)),
    st.tuples(st.integers(1, 2), st.integers(0, 1)),
    st.sampled_from(["+", "-", "+-", "+-*"]),
    st.integers(0, 10**9),
)
def test_answers_and_steps_are_right(
    steps: tuple[int, int], digits: tuple[int, int], operations: str, seed: int
) -> None:
    config = ArithmeticConfig(
        hard_steps=(steps[0] + 1, sum(steps) + 1), digits=(digits[0], sum(digits)), operations=operations, largest=5000
    )
    task = Arithmetic(config)
    for problem, example in zip(
        task.problems("hard", seed=seed, limit=5), task.examples("hard", seed=seed, limit=5), strict=True
    ):
        assert evaluate(problem.id).value == int(problem.answer)  # precedence and parentheses hold
        lines = re.findall(r"^(\d+ [-+*] \d+) = (\d+)$", example.completion, re.MULTILINE)
        assert len(lines) == problem.meta["steps"]
        assert steps[0] + 1 <= len(lines) <= sum(steps) + 1
        for left, right in lines:
            assert evaluate(left).value == int(right) <= 5000
        assert lines[-1][1] == problem.answer
        assert set(re.findall(r"[-+*]", problem.id)) <= set(operations)
        assert task.traits(example.completion) == {"worked": 1.0, "steps": float(len(lines)), "steps_right": 1.0}


def test_operations_are_about_evenly_drawn() -> None:
    text = " ".join(problem.id for problem in Arithmetic().problems("train", limit=400))
    counts = [text.count(f" {operation} ") for operation in "+-*"]
    assert min(counts) > 0.15 * sum(counts)


def test_the_form_of_a_completion() -> None:
    example = Arithmetic().examples("test", limit=1)[0]
    assert re.fullmatch(r"<think>\n(\S+ \S \S+ = \d+\n){2}</think>\nAnswer: \d+", example.completion)
    plain = Arithmetic(ArithmeticConfig(think=False)).examples("test", limit=1)[0]
    assert re.fullmatch(r"(\S+ \S \S+ = \d+\n){2}Answer: \d+", plain.completion)
    assert "<think>" not in plain.messages[0]["content"]


@pytest.mark.parametrize(
    ("text", "value", "extracted"),
    [
        ("Answer: 39", 1, "39"),
        ("<think>\n34 + 5 = 39\n</think>\nAnswer: 39", 1, "39"),
        ("34 + 5 = 39\nAnswer: 039.", 1, "39"),
        ("Answer: 39\nAnswer: 40", 0, "40"),
        ("<think>Answer: 39", 0, None),
        ("<think>Answer: 39</think> done", 0, None),
        ("39", 0, None),
        ("Answer: 39 or 40", 0, None),
        ("Answer: 3 9", 0, None),
        ("", 0, None),
    ],
)
def test_verify(text: str, value: float, extracted: str | None) -> None:
    score = Arithmetic().verify(PROBLEM, text)
    assert (score.value, score.extracted, score.error) == (value, extracted, None)


def test_traits_count_wrong_steps() -> None:
    assert Arithmetic().traits("1 + 1 = 2\n2 * 3 = 7\nso") == {"worked": 1.0, "steps": 2.0, "steps_right": 0.5}
    assert Arithmetic().traits("Answer: 5")["worked"] == 0.0


@pytest.mark.parametrize(
    "options", [{"train_steps": [3, 2]}, {"digits": [0, 2]}, {"operations": "+/"}, {"operations": ""}, {"larges": 5}]
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        parse(ArithmeticConfig, options, "task")


def test_unknown_split() -> None:
    with pytest.raises(RequestError, match="no split 'exam'"):
        Arithmetic().problems("exam")


def test_a_share_of_the_examples_may_jump_to_the_answer() -> None:
    task = Arithmetic(ArithmeticConfig(direct=0.7))
    examples = task.examples("train", seed=3, limit=300)
    jumped = [e for e in examples if re.fullmatch(r"Answer: \d+", e.completion)]
    assert 0.6 < len(jumped) / len(examples) < 0.8
    assert all("<think>" in e.completion for e in examples if e not in jumped)
    assert len({e.messages[0]["content"].partition("\n")[2] for e in examples}) == 1  # the prompt does not give it away
    assert "one step" not in examples[0].messages[0]["content"]
    assert examples == task.examples("train", seed=3, limit=300)
    assert [e.completion for e in Arithmetic(ArithmeticConfig(direct=1.0)).examples("test", limit=3)] == [
        f"Answer: {p.answer}" for p in task.problems("test", limit=3)
    ]
