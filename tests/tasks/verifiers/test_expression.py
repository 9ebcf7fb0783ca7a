"""Expressions: equal to Python's own arithmetic on fractions for random trees; bounded on anything else."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.tasks.verifiers.expression import MAX_DEPTH, MAX_LENGTH, Refused, evaluate

Tree = int | tuple["Tree", str, "Tree"]
trees = st.recursive(st.integers(0, 99), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner), max_leaves=12)


def value(tree: Tree) -> Fraction:
    """The oracle: walks the tree, knows no text."""
    if isinstance(tree, int):
        return Fraction(tree)
    left, operator, right = value(tree[0]), tree[1], value(tree[2])
    return {"+": left.__add__, "-": left.__sub__, "*": left.__mul__, "/": left.__truediv__}[operator](right)


def written(tree: Tree, space: str) -> str:
    return (
        str(tree)
        if isinstance(tree, int)
        else f"({written(tree[0], space)}{space}{tree[1]}{space}{written(tree[2], space)})"
    )


def leaves(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else leaves(tree[0]) + leaves(tree[2])


@settings(max_examples=400, deadline=None)
@given(trees, st.sampled_from(["", " ", "\t "]))
def test_agrees_with_the_tree(tree: Tree, space: str) -> None:
    text = written(tree, space)
    if len(text) > MAX_LENGTH:
        return
    try:
        expected = value(tree)
    except ZeroDivisionError:
        with pytest.raises(Refused, match="zero"):
            evaluate(text)
        return
    term = evaluate(text)
    assert term.value == expected
    assert list(term.numbers) == leaves(tree)
    again = evaluate(term.text)  # the canonical text means the same and is a fixed point
    assert (again.value, again.text, again.numbers) == (term.value, term.text, term.numbers)
    # An independent evaluator (Python's parser on a text of digits, operators and parentheses that this test made) agrees.
    code = "".join(f"Fraction({part})" if part.isdigit() else part for part in _parts(term.text))
    assert eval(code, {"Fraction": Fraction}) == expected


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for sign in text:
        if sign.isdigit() and parts and parts[-1].isdigit():
            parts[-1] += sign
        else:
            parts.append(sign)
    return parts


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((1 + 2))*3", "(1+2)*3"),
        ("1+(2+3)", "1+2+3"),
        ("1-(2-3)", "1-(2-3)"),
        ("(1*2)+3", "1*2+3"),
        ("8÷(4×2)", "8/(4*2)"),
        ("007", "7"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert evaluate(text).text == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1+",
        "+1",
        "-1",
        "(1",
        "1)",
        "()",
        "1 2",
        "1++2",
        "2**3",
        "9**9**9",
        "1//2",
        "1.5",
        "1e9",
        "x",
        "__import__('os')",
        "1/0",
        "1/(2-2)",
        "٣+1",
        "²",
        "1234567",
        "9" * 10**6,
        "(" * 10**6,
        "(" * 50 + "1" + ")" * 50,
        "1+" * 10**6 + "1",
        "�",
        "\x00",
    ],
    ids=lambda text: text[:12].encode("ascii", "replace").decode() or "empty",
)
def test_refused_quickly(text: str) -> None:
    start = time.process_time()
    with pytest.raises(Refused):
        evaluate(text)
    assert time.process_time() - start < 0.2


def test_the_depth_cap_is_where_it_says() -> None:
    assert evaluate("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value == 1
    with pytest.raises(Refused, match="nested"):
        evaluate("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/() ", max_size=60) | st.text(max_size=60))
def test_any_text_is_a_term_or_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        evaluate(text)
