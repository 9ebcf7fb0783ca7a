"""The proof that a verifier works, with no model: every gold answer is accepted, a corrupted one refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trilaw.core.types import Problem, Score

SAMPLE = 200  # problems of a split that are tried
_COMPLAINTS = 5  # as many are spelled out


def prove(
    problems: Iterable[Problem],
    verify: Callable[[Problem, str], Score],
    gold: Callable[[Problem], str],
    corrupt: Callable[[Problem], str],
) -> list[str]:
    """Complaints, none if sound. gold, corrupt: a right and a wrong completion for a problem."""
    complaints: list[str] = []
    for problem in problems:
        good, bad = verify(problem, gold(problem)), verify(problem, corrupt(problem))
        if good.error or good.value != 1:
            why = good.error or good.detail or f"it scores {good.value:g}"
            complaints.append(f"{problem.id}: the gold answer '{_short(problem.answer)}' is refused: {why}.")
        elif bad.value >= 1:  # a part of the score for a part of the answer is no acceptance
            complaints.append(f"{problem.id}: a corrupted answer, '{_short(corrupt(problem))}', is accepted.")
    left_out = len(complaints) - _COMPLAINTS
    return complaints[:_COMPLAINTS] + ([f"and {left_out} more problems like these."] if left_out > 0 else [])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."
