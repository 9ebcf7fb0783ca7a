"""Numbers in a model's text, read exactly: integers, decimals, fractions, with commas, currency and percent signs.

Every number becomes a `Fraction`; its canonical text ("42", "-3/4") is equal exactly when the numbers are. A run of digits beyond
`DIGITS` is refused, not read: Python's int() is quadratic in the number of digits. "25%" counts as 25. Only ASCII digits are digits.
"""

from __future__ import annotations

import re
from fractions import Fraction

from trilaw.tasks.verifiers import marks

DIGITS = 30

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\].])[-+−])?(?:[$€£]\s?(?P<inner>-)?)?"
    r"(?<![\w.])(?P<whole>\d[\d,]*(?:\.\d+)?|\.\d+)(?P<below>\s?/\s?\d+)?",
    re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_FRAC = re.compile(r"\\[dt]?frac\{(-?\d{1,30})\}\{(\d{1,30})\}", re.ASCII)
_STRICT = re.compile(r"[-+]?\d{1,30}", re.ASCII)


def canonical(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def strict_integer(text: str) -> str | None:
    """`text` as a canonical integer ("007" is "7") if it is one and nothing else, a closing full stop aside."""
    text = text.strip().removesuffix(".")
    return str(int(text)) if _STRICT.fullmatch(text) else None


def numbers(text: str) -> list[Fraction]:
    """All numbers in the last `marks.TAIL` characters, in order."""
    text = _FRAC.sub(r" \1/\2 ", text[-marks.TAIL :]).replace("{,}", ",")
    values: list[Fraction] = []
    for match in _NUMBER.finditer(text):
        whole = match["whole"].rstrip(",")
        negative = (match["sign"] or "") in ("-", "−") or match["inner"] is not None
        if "," in whole and not _GROUPED.fullmatch(whole):  # a list such as "1,2,3"
            *before, whole = whole.split(",")
            values += [Fraction(int(part)) for part in before if part.isdecimal() and len(part) <= DIGITS]
            negative = False
        value = _value(whole, match["below"])
        if value is not None:
            values.append(-value if negative else value)
    return values


def _value(whole: str, below: str | None) -> Fraction | None:
    digits = whole.replace(",", "")
    bottom = below.replace("/", "").strip() if below else "1"
    if not digits or len(digits) > DIGITS or len(bottom) > DIGITS or int(bottom) == 0:
        return None
    return Fraction(digits if digits[0] != "." else "0" + digits) / int(bottom)


def single(text: str) -> Fraction | None:
    """The number that an answer such as "$1,200 a week" or "6 * 7 = 42" states: the first one after the last "="."""
    found = numbers(text[: marks.LONGEST].rpartition("=")[2])
    return found[0] if found else None


def final_number(text: str) -> Fraction | None:
    """The number behind the last mark (`Answer:`, `####`, `\\boxed{}`, `<answer>`), else the last number in the text."""
    answer = marks.marked(text)
    value = single(answer) if answer else None
    if value is not None:
        return value
    found = numbers(text)
    return found[-1] if found else None
