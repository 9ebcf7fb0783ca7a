"""Countdown: the solutions shown hold, and the verifier agrees with a brute-force search of all expressions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.types import Problem
from trilaw.tasks.countdown import Countdown, CountdownConfig


def problem(numbers: list[int], target: int) -> Problem:
    return Problem("p", ({"role": "user", "content": ""},), "", {"numbers": numbers, "target": target})


def every(numbers: tuple[int, ...]) -> dict[str, Fraction]:
    """All fully parenthesised expressions over the numbers in this order, with their values."""
    if len(numbers) == 1:
        return {str(numbers[0]): Fraction(numbers[0])}
    found: dict[str, Fraction] = {}
    for cut in range(1, len(numbers)):
        for (a, x), (b, y) in itertools.product(every(numbers[:cut]).items(), every(numbers[cut:]).items()):
            found |= {f"({a}+{b})": x + y, f"({a}-{b})": x - y, f"({a}*{b})": x * y}
            if y:
                found[f"({a}/{b})"] = x / y
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=3), st.integers(1, 40))
def test_agrees_with_brute_force(numbers: list[int], target: int) -> None:
    task, asked = Countdown(), problem(numbers, target)
    for order in set(itertools.permutations(numbers)):
        for text, value in every(order).items():
            assert task.verify(asked, f"<answer>{text}</answer>").value == float(value == target)


def test_steps_of_worked_examples_lead_to_the_target() -> None:
    task = Countdown(CountdownConfig(hard_numbers=(4, 6)))
    for asked, example in zip(task.problems("hard", limit=60), task.examples("hard", limit=60), strict=True):
        pool = [Fraction(n) for n in asked.meta["numbers"]]
        for line in example.completion.split("</think>")[0].splitlines()[1:]:
            left, operator, right, _, result = line.split()
            a, b = Fraction(left), Fraction(right)
            pool.remove(a)
            pool.remove(b)
            pool.append({"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else Fraction(0)}[operator])
            assert pool[-1] == Fraction(result)
        assert pool == [asked.meta["target"]]


@pytest.mark.parametrize(
    ("text", "value", "extracted"),
    [
        ("<answer>(1+2)*3</answer>", 1, "(1+2)*3"),
        ("<answer> ( (1 + 2) ) * 3 = 9 </answer>", 1, "(1+2)*3"),
        ("Answer: 3 × (2 + 1)", 1, "3*(2+1)"),
        ("<think>try <answer>1+2+3</answer></think><answer>(1+2)*3</answer>", 1, "(1+2)*3"),
        ("<answer>(1+2)*3</answer> or <answer>1+2+3</answer>", 0, "1+2+3"),
        ("<answer>(1+2)*3 = 10</answer>", 0, "(1+2)*3"),
        ("<answer>9</answer>", 0, "9"),
        ("<answer>3*3</answer>", 0, "3*3"),
        ("<answer>(1+2)*3*1</answer>", 0, "(1+2)*3*1"),
        ("<answer>(1+2)*3", 0, None),
        ("<answer>12-3</answer>", 0, "12-3"),
        ("<think><answer>(1+2)*3</answer>", 0, None),
        ("<answer></answer>", 0, None),
        ("<answer>9**9**9</answer>", 0, None),
        ("", 0, None),
    ],
)
def test_verify(text: str, value: float, extracted: str | None) -> None:
    score = Countdown().verify(problem([1, 2, 3], 9), text)
    assert (score.value, score.extracted, score.error) == (value, extracted, None)


def test_a_huge_value_is_told_briefly() -> None:
    score = Countdown().verify(problem([999999] * 20, 9), "<answer>" + "*".join(["999999"] * 20) + "</answer>")
    assert score.value == 0
    assert len(score.detail) < 100


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="123+-*/()=<>answer /", max_size=80) | st.text(max_size=60))
def test_any_text_is_scored(text: str) -> None:
    assert Countdown().verify(problem([1, 2, 3], 9), text).value in (0.0, 1.0)
    assert Countdown().verify(problem([1, 2, 3], 9), f"<answer>{text}</answer>").value in (0.0, 1.0)
