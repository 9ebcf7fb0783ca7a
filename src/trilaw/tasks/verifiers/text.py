"""Answers that are text: compared as they are, or as the letter of a choice.

The answer is what stands behind the last mark (`marks.marked`), else the last line that has anything on it.
"""

from __future__ import annotations

import re

from trilaw.tasks.verifiers import marks

_CHOICE = re.compile(r"[\s(\[\"'*_$]{0,8}([A-Za-z])(?=$|[\s)\].,:;\"'*_$])")
_NAMED = re.compile(r"(?:option|choice)\s{1,3}\(?([A-Za-z])\b", re.IGNORECASE)


def normal(text: str) -> str:
    """Spaces collapsed; one closing full stop and surrounding quotes or emphasis taken off."""
    text = " ".join(text.split()).strip("*_`\"'").strip()
    return text.removesuffix(".").rstrip("*_`\"'").rstrip()


def final_text(text: str) -> str | None:
    """The answer, normalised; None when there is none."""
    answer = marks.marked(text)
    if answer is None:
        lines = text[-marks.TAIL :].split("\n")
        answer = next((line for line in reversed(lines) if line.strip()), "")[: marks.LONGEST]
    return normal(answer) or None


def final_choice(text: str) -> str | None:
    """The letter chosen, as a capital: "B", "(b)", "B) because", "option B"."""
    answer = final_text(text)
    if answer is None:
        return None
    match = _CHOICE.match(answer) or _NAMED.search(answer)
    return match[1].upper() if match else None
