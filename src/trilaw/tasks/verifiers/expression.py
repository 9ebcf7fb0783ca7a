"""Arithmetic expressions, evaluated exactly: numbers, + - * / and parentheses, nothing else.

Recursive descent over a bounded token list, on `Fraction`s:
    sum = product (("+" | "-") product)*      product = atom (("*" | "/") atom)*      atom = number | "(" sum ")"
Length, nesting and digits have caps, so time and memory do too. The result carries the numbers used and a canonical text (no
spaces, no parentheses that change nothing), so that equal ways of writing count as one vote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 200
MAX_DEPTH = 20
MAX_DIGITS = 6

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-"})
_SUM, _PRODUCT, _ATOM = 0, 1, 2  # how tightly the outermost operation of a text binds


class Refused(ValueError):
    """The text is no expression within the bounds; the message says why."""


@dataclass(frozen=True, slots=True)
class Term:
    """A value, the canonical text that gives it, and the numbers it uses from left to right."""

    value: Fraction
    text: str
    numbers: tuple[int, ...]
    level: int = _ATOM

    @staticmethod
    def number(value: int) -> Term:
        return Term(Fraction(value), str(value), (value,))


def combine(left: Term, operator: str, right: Term) -> Term:
    """The term `left operator right`. Raises Refused for a division by zero."""
    if operator == "/" and right.value == 0:
        raise Refused("it divides by zero")
    match operator:
        case "+":
            value = left.value + right.value
        case "-":
            value = left.value - right.value
        case "*":
            value = left.value * right.value
        case _:
            value = left.value / right.value
    level = _SUM if operator in "+-" else _PRODUCT
    before = f"({left.text})" if left.level < level else left.text
    # a+(b-c) is a+b-c, but a-(b+c) and a/(b*c) need their parentheses.
    bare = right.level > level or (right.level == level and operator in "+*")
    after = right.text if bare else f"({right.text})"
    return Term(value, f"{before}{operator}{after}", left.numbers + right.numbers, level)


def evaluate(text: str) -> Term:
    """Parse and evaluate. Raises Refused with the reason when the text is no expression within the bounds."""
    if len(text) > MAX_LENGTH:
        raise Refused(f"it is longer than {MAX_LENGTH} characters")
    tokens = _tokens(text.translate(_SIGNS))
    if not tokens:
        raise Refused("it is empty")
    term, at = _sum(tokens, 0, 0)
    if at < len(tokens):
        raise Refused(f"'{tokens[at]}' stands where an operator should")
    return term


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            raise Refused(f"{text[at]!r} may not stand in it")
        if len(match[0]) > MAX_DIGITS:
            raise Refused(f"a number has more than {MAX_DIGITS} digits")
        tokens.append(match[0])
        at = match.end()
    return tokens


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Term, int]:
    term, at = _product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "+-":
        right, after = _product(tokens, at + 1, depth)
        term, at = combine(term, tokens[at], right), after
    return term, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Term, int]:
    term, at = _atom(tokens, at, depth)
    while at < len(tokens) and tokens[at] in "*/":
        right, after = _atom(tokens, at + 1, depth)
        term, at = combine(term, tokens[at], right), after
    return term, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[Term, int]:
    if at == len(tokens):
        raise Refused("it ends where a number should stand")
    if tokens[at].isdecimal():
        return Term.number(int(tokens[at])), at + 1
    if tokens[at] != "(":
        raise Refused(f"'{tokens[at]}' stands where a number should")
    if depth == MAX_DEPTH:
        raise Refused(f"parentheses are nested more than {MAX_DEPTH} deep")
    term, at = _sum(tokens, at + 1, depth + 1)
    if at == len(tokens) or tokens[at] != ")":
        raise Refused("a parenthesis is not closed")
    return term, at + 1
