"""Where the final answer stands in a model's text: after the thinking, behind a mark.

Marks are `Answer: ...` (to the end of the line), `#### ...` (GSM8K's own), `\\boxed{...}` and `<answer>...</answer>`. All work is
linear in the text and looks at its last `TAIL` characters only, since a final answer stands at the end.
"""

from __future__ import annotations

import re

TAIL = 8_000  # characters looked at
LONGEST = 300  # characters of an answer

_ANSWER = re.compile(r"\banswer[*_\s]{0,4}:", re.IGNORECASE)  # also **Answer**:
_HASHES = "####"
_BOXED = re.compile(r"\\boxed\s?\{")


def after_thinking(text: str) -> str | None:
    """What follows the last </think>: the whole text when nothing was thought, None when thinking was never closed."""
    _, closed, rest = text.rpartition("</think>")
    if "<think>" in rest:
        return None
    return rest if closed else text


def answer_line(text: str) -> str | None:
    """The first line with anything on it after the last "Answer:", stripped; None without the mark."""
    text = text[-TAIL:]
    starts = [match.end() for match in _ANSWER.finditer(text)]
    return _line(text, starts[-1]) if starts else None


def answer_tag(text: str) -> str | None:
    """What stands in the last <answer>...</answer>, stripped; None when there is no complete pair."""
    body, closed, _ = text[-TAIL:].rpartition("</answer>")
    _, opened, inside = body.rpartition("<answer>")
    return inside[:LONGEST].strip() if closed and opened else None


def marked(text: str) -> str | None:
    """What stands behind the last mark of any kind; None without marks."""
    text = text[-TAIL:]
    found: list[tuple[int, str | None]] = []
    for match in _ANSWER.finditer(text):
        found.append((match.end(), None))
    if (at := text.rfind(_HASHES)) >= 0:
        found.append((at + len(_HASHES), None))
    for match in _BOXED.finditer(text):
        found.append((match.end(), "}"))
    if (at := text.rfind("<answer>")) >= 0 and "</answer>" in text[at:]:
        found.append((at + len("<answer>"), "</answer>"))
    if not found:
        return None
    start, end = max(found, key=lambda mark: mark[0])
    if end == "}":
        return _braced(text, start)
    if end:
        return text[start : text.index(end, start)][:LONGEST].strip()
    return _line(text, start)


def _line(text: str, start: int) -> str:
    rest = text[start : start + LONGEST].strip(" \t\r\n*_")
    return rest.splitlines()[0].strip(" \t*_") if rest else ""


def _braced(text: str, start: int) -> str | None:
    depth = 1
    for at in range(start, min(len(text), start + LONGEST)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start:at].strip()
    return None
