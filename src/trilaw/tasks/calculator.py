"""A pocket calculator that keeps two digits: the task of the default recipe, small enough to learn from scratch in a minute.

A problem is a start number 00-99 and N key presses (+1..+9, -1..-9, *2, *3), each result kept modulo 100. The prompt
`^36 *2 +8 -3?` asks what the display shows. A response either jumps (` =77`) or works (` *2=72 +8=80 -3=77 =77`), and nothing but
the final answer is rewarded. The first token decides: ` =` or the first key. One jump over N keys is hopeless from N = 3 on, one
key at a time is easy: working pays, if the model finds out.

The text to pre-train on mixes, as the web does, direct answers (most), derivations with slips carried on, and checked derivations
in which a slip is seen (` no`), the state restated and the step redone, and each good step ends in ` ok`. Text is a sequence of
words of a 40-word alphabet, without loss, so the tokenizer is one word a token. Held-out problems (one in eight, by hash) stand
neither in the corpus nor in the train split.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from typing import Self

from pydantic import Field, model_validator

from trilaw.core.config import Config
from trilaw.core.errors import RequestError, nearest
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.tasks.split import held_out

KEYS = tuple(f" +{i}" for i in range(1, 10)) + tuple(f" -{i}" for i in range(1, 10)) + (" *2", " *3")
ASK, GIVES, ANSWER, NO, OK = "?", "=", " =", " no", " ok"
_DOCUMENT = re.compile(r"\^?(\d\d(?: [-+*]\d)+)\?((?: [-+*]\d=\d\d| no\d\d| ok)*) =(\d\d)")
_STEP = re.compile(r"( [-+*]\d)=(\d\d)( no(\d\d) [-+*]\d=(\d\d))?( ok)?")
_FINAL = re.compile(r" =([0-9]{2})\Z")
_LONGEST = 4096  # characters of a response that are looked at; a longer one is wrong


class CalculatorConfig(Config):
    """Difficulty of the splits (fewest and most key presses) and the mix of the text to pre-train on."""

    document_steps: tuple[int, int] = (1, 8)
    train_steps: tuple[int, int] = (4, 8)
    test_steps: tuple[int, int] = (5, 5)
    hard_steps: tuple[int, int] = (8, 8)
    beyond_steps: tuple[int, int] = (10, 10)  # longer than any document: nothing is expected there
    direct: float = Field(default=0.6, ge=0, le=1)  # share of documents that jump to the answer
    derived: float = Field(default=0.2, ge=0, le=1)  # share that work without checking; the rest checks
    slip: float = Field(default=0.12, ge=0, lt=1)  # chance that a written step is wrong, by 1 or by 10
    miss: float = Field(default=0.05, ge=0, le=1)  # chance that a checked document does not see its slip

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name in ("document_steps", "train_steps", "test_steps", "hard_steps", "beyond_steps"):
            low, high = getattr(self, name)
            if not 1 <= low <= high <= 40:
                raise ValueError(f"{name} must be two numbers with 1 <= fewest <= most <= 40")
        if self.direct + self.derived > 1:
            raise ValueError("direct and derived are shares of one whole and may not exceed 1 together")
        return self


def press(state: int, key: str) -> int:
    """The display after one key."""
    number = int(key[2:])
    match key[1]:
        case "+":
            return (state + number) % 100
        case "-":
            return (state - number) % 100
        case _:
            return (state * number) % 100


class Calculator:
    """The task; see the head of the file."""

    name = "calculator"
    splits = ("train", "test", "hard", "beyond")
    description = "a start number and key presses on a calculator that keeps two digits"

    def __init__(self, config: CalculatorConfig | None = None) -> None:
        self.config = config or CalculatorConfig()

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        if split not in self.splits:
            raise RequestError(f"The task calculator has no split '{split}'{nearest(split, self.splits)}.")
        draw = rng("calculator", split, seed)
        steps = getattr(self.config, f"{split}_steps")
        found: dict[str, Problem] = {}
        for _ in range(1000 * (limit or 256)):  # a bound: a split of one key press has only 2,000 problems
            if len(found) == (limit or 256):
                break
            start, keys = _draw(draw, steps)
            content = f"{start:02d}{''.join(keys)}"
            if held_out(content) == (split != "train") and content not in found:
                answer = f"{_run(start, keys):02d}"
                found[content] = Problem(
                    content, (Message(role="user", content=content),), answer, {"steps": len(keys)}
                )
        return list(found.values())

    def verify(self, problem: Problem, text: str) -> Score:
        final = _FINAL.search(text[-4:]) if len(text) <= _LONGEST else None
        if final is None:
            return Score(0.0, None, "the response does not end with ' =' and two digits")
        return Score(float(final[1] == problem.answer), final[1])

    def traits(self, text: str) -> dict[str, float]:
        """Which of the three ways of answering this is, and whether it took something back."""
        checked = OK in text or NO in text
        direct = text.startswith(ANSWER)
        return {
            "direct": float(direct),
            "worked": float(not direct and not checked),
            "checked": float(not direct and checked),
            "corrected": float(NO in text),
        }

    def validate(self) -> list[str]:
        complaints = []
        for split in self.splits:
            for problem in self.problems(split, limit=64):
                start, keys = _parse(problem.messages[0]["content"])
                gold = _worked(start, keys)
                wrong = gold[:-2] + f"{(int(problem.answer) + 1) % 100:02d}"
                if self.verify(problem, gold).value != 1:
                    complaints.append(f"{split} {problem.id}: the gold answer is refused")
                if self.verify(problem, wrong).value != 0:
                    complaints.append(f"{split} {problem.id}: a wrong answer is accepted")
        return complaints

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        problems = self.problems(split, seed=seed, limit=limit)
        return [Example(p.messages, _worked(*_parse(p.messages[0]["content"]))) for p in problems]

    def documents(self, *, seed: int = 0, count: int) -> Iterator[str]:
        draw = rng("calculator", "documents", seed)
        made = 0
        while made < count:
            start, keys = _draw(draw, self.config.document_steps)
            prompt = f"{start:02d}{''.join(keys)}"
            if held_out(prompt):
                continue
            made += 1
            yield f"^{prompt}{ASK}{self._response(draw, start, keys)}"

    def log_probability(self, document: str) -> float:
        """Natural logarithm of the chance that the author of `documents` writes this one; -inf for one that it never writes.

        The author is a known program, so its entropy (the mean of -log_probability a token) is the loss that no model can beat. That
        held-out prompts are left out is not counted: whether a prompt is one is a hash, which nobody can learn.
        """
        parts = _DOCUMENT.fullmatch(document)
        if parts is None:
            return -math.inf
        start, keys = _parse(parts[1])
        low, high = self.config.document_steps
        if not low <= len(keys) <= high or any(key not in KEYS for key in keys):
            return -math.inf
        prompt = -math.log(100.0 * (high - low + 1)) - len(keys) * math.log(len(KEYS))
        if not parts[2]:
            return prompt + _log(self.config.direct * (int(parts[3]) == _run(start, keys)))
        steps = list(_STEP.finditer(parts[2]))
        checks = steps[0][6] is not None
        if [step[1] for step in steps] != keys or "".join(step[0] for step in steps) != parts[2]:
            return -math.inf
        share, state = 1 - self.config.direct - self.config.derived if checks else self.config.derived, start
        total = prompt + _log(share)
        for step in steps:
            right, written = press(state, step[1]), int(step[2])
            if (step[6] is not None) != checks or (step[3] and not checks):
                return -math.inf
            total += _log(self._written(written, right))
            if checks and written != right:
                total += _log(1 - self.config.miss if step[3] else self.config.miss)
            if step[3] and (written == right or (int(step[4]), int(step[5])) != (state, right)):
                return -math.inf
            state = right if step[3] else written
        return total if int(parts[3]) == state else -math.inf

    def _written(self, written: int, right: int) -> float:
        """Chance that a step whose result is `right` is written with this one."""
        if written == right:
            return 1 - self.config.slip
        return self.config.slip / 4 if (written - right) % 100 in (1, 10, 90, 99) else 0.0

    def split_document(self, document: str) -> tuple[str, str]:
        """(prompt, response) of a document."""
        prompt, mark, response = document.partition(ASK)
        return prompt + mark, response

    def alphabet(self) -> Sequence[str]:
        return [*"0123456789", *KEYS, ASK, GIVES, ANSWER, NO, OK]

    def chat_template(self) -> str:
        return "{{ bos_token }}{{ messages[-1].content }}{% if add_generation_prompt %}?{% endif %}"

    def _response(self, draw: random.Random, start: int, keys: Sequence[str]) -> str:
        kind = draw.random()
        if kind < self.config.direct:
            return f"{ANSWER}{_run(start, keys):02d}"
        checks = kind >= self.config.direct + self.config.derived
        written, state = [], start
        for key in keys:
            right = press(state, key)
            result = right if draw.random() >= self.config.slip else (right + draw.choice((-10, -1, 1, 10))) % 100
            written.append(f"{key}{GIVES}{result:02d}")
            if checks and result != right and draw.random() >= self.config.miss:
                written.append(f"{NO}{state:02d}{key}{GIVES}{right:02d}")
                result = right
            if checks:
                written.append(OK)
            state = result
        return "".join(written) + f"{ANSWER}{state:02d}"


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _draw(draw: random.Random, steps: tuple[int, int]) -> tuple[int, list[str]]:
    return draw.randrange(100), [draw.choice(KEYS) for _ in range(draw.randint(*steps))]


def _run(start: int, keys: Sequence[str]) -> int:
    for key in keys:
        start = press(start, key)
    return start


def _parse(content: str) -> tuple[int, list[str]]:
    return int(content[:2]), [content[i : i + 3] for i in range(2, len(content), 3)]


def _worked(start: int, keys: Sequence[str]) -> str:
    written = []
    for key in keys:
        start = press(start, key)
        written.append(f"{key}{GIVES}{start:02d}")
    return "".join(written) + f"{ANSWER}{start:02d}"
