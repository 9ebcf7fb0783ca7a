"""Numbers: exact against fractions, canonical, and bounded on anything."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.tasks.verifiers import marks
from trilaw.tasks.verifiers.number import canonical, final_number, numbers, single, strict_integer
from trilaw.tasks.verifiers.text import final_choice, final_text

NASTY = [
    "9" * 10**6,
    "Answer: " + "9" * 10**6,
    "1," * 500_000,
    "(" * 10**5 + "1" + ")" * 10**5,
    "\\boxed{" * 50_000,
    "<answer>" * 50_000 + "</answer>" * 50_000,
    "Answer:" * 100_000,
    "Answer:" + " " * 10**6 + "5",
    "####" * 100_000,
    "9**9**9**9",
    "٣٤٥ ½ ² Ⅷ 一百",
    "-" * 10**6,
    "\\frac{" * 50_000,
    "$" * 10**6,
    "1/0",
    "Answer: 1/0",
    "1 / " * 100_000,
    "." * 10**6,
    "<think>" * 10**5,
    "\x00\ud800",
]
CASES = [
    ("Answer: 42", "42"),
    ("answer: 42.", "42"),
    ("**Answer:** 42", "42"),
    ("**Answer**: $1,234.50 a week", "2469/2"),
    ("Answer:\n\n42 apples", "42"),
    ("It is 7.\n#### -12", "-12"),
    ("so \\boxed{3/4} and 9 more", "3/4"),
    ("\\boxed{\\frac{3}{4}}", "3/4"),
    ("\\boxed{10{,}000}", "10000"),
    ("Answer: \\boxed{5}", "5"),
    ("<answer>17</answer>", "17"),
    ("Answer: 6 * 7 = 42", "42"),
    ("Answer: 3\nNo. Answer: 4", "4"),
    ("Answer: none\nwell, 8 then 9", "9"),
    ("we need 3 boxes and 12 bags", "12"),
    ("a loss of -$5", "-5"),
    ("a loss of $-5", "-5"),
    ("10-3", "3"),
    ("it rose by 25%", "25"),
    ("from 1,2,3", "3"),
    ("0.50", "1/2"),
    ("room x2", None),
    ("nothing", None),
    ("Answer: 007", "7"),
    ("−8", "-8"),
]


@pytest.mark.parametrize(("text", "value"), CASES)
def test_final_number(text: str, value: str | None) -> None:
    found = final_number(text)
    assert (None if found is None else canonical(found)) == value


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**20), 10**20), st.integers(1, 10**6))
def test_agrees_with_fractions(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    text = canonical(value)
    assert single(text) == value
    assert final_number(f"First 3, then 4.\nAnswer: {text}.") == value
    assert canonical(Fraction(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_grouped_decimals(whole: int, places: int) -> None:
    value = Fraction(whole, 10**places)
    assert single(f"${abs(whole) / 1:,.0f}") == abs(whole) or abs(whole) > 2**53
    assert numbers(f"{float(value):.6f}")[-1] == Fraction(f"{float(value):.6f}")


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("0123456789.,-+/$% \n=#{}\\()<>Answer:boxedfract"), max_size=80)
    | st.text(max_size=80)
)
def test_any_text_is_read_without_error(text: str) -> None:
    for read in (final_number, single, strict_integer, final_text, final_choice, marks.answer_line, marks.answer_tag):
        read(text)


@pytest.mark.parametrize("text", NASTY, ids=lambda text: text[:12].encode("ascii", "replace").decode())
def test_nasty_text_is_quick(text: str) -> None:
    start = time.process_time()
    for read in (
        final_number,
        strict_integer,
        final_text,
        final_choice,
        marks.answer_line,
        marks.answer_tag,
        marks.after_thinking,
    ):
        read(text)
    assert time.process_time() - start < 0.5


def test_too_long_a_number_is_refused_not_read() -> None:
    assert final_number("9" * 1000) is None
    assert final_number("Answer: 5 or " + "9" * 100) == 5
    assert strict_integer("9" * 31) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", "7"), ("-07.", "-7"), ("+3", "3"), ("-0", "0"), ("7 8", None), ("7.5", None), ("٣", None), ("", None)],
)
def test_strict_integer(text: str, value: str | None) -> None:
    assert strict_integer(text) == value


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a", "a"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
    ],
)
def test_after_thinking(text: str, rest: str | None) -> None:
    assert marks.after_thinking(text) == rest


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("Answer: (c) because", "C"),
        ("I think\nD.", "D"),
        ("Answer: option B", "B"),
        ("**Answer: A**", "A"),
        ("\\boxed{E}", "E"),
        ("Answer: Because", None),
        ("", None),
    ],
)
def test_choice(text: str, letter: str | None) -> None:
    assert final_choice(text) == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [("x\nAnswer: new  York.", "new York"), ("Paris\n\n", "Paris"), ("Answer: **a b**", "a b"), ("  ", None)],
)
def test_final_text(text: str, answer: str | None) -> None:
    assert final_text(text) == answer
