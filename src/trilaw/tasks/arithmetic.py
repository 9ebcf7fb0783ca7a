"""Arithmetic in words for small instruct models: a short chain of operations, worked one step a line from left to right.

A prompt asks "What is (34 + 5) * 3 - 12?", a worked completion is, in the format of DeepSeek-R1 (arXiv 2501.12948),

    <think>
    34 + 5 = 39
    39 * 3 = 117
    117 - 12 = 105
    </think>
    Answer: 105

Sizes are chosen for models that split numbers into digits: every step is one sum, difference or product by one digit, results
stay between 0 and `largest`, and parentheses make left to right the right order. The splits differ by the number of steps.

With `direct` above 0 the prompt leaves the way open ("End with 'Answer: ' and the number.") and that share of the worked examples
jumps to the answer, as most text does. Whether to work is then for reinforcement learning to find out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from trilaw.core.config import Config
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.tasks.split import DEFAULT_LIMIT, check_split, distinct
from trilaw.tasks.verifiers import marks
from trilaw.tasks.verifiers.number import strict_integer
from trilaw.tasks.verifiers.proof import SAMPLE, prove

_STEP = re.compile(r"^\s{0,4}(\d{1,9}) ([-+*]) (\d{1,9}) = (-?\d{1,18})\s*$", re.ASCII)

_REDRAWS = 10  # of a number that would lead out of bounds, so that sums do not crowd out differences and products


class ArithmeticConfig(Config):
    """Difficulty of the splits: fewest and most steps; sizes of the numbers; form of the completion."""

    train_steps: tuple[int, int] = (2, 3)
    test_steps: tuple[int, int] = (2, 2)
    hard_steps: tuple[int, int] = (3, 3)
    digits: tuple[int, int] = (1, 2)  # of each number; a factor always has one digit
    operations: str = "+-*"
    largest: int = Field(default=999, ge=1, le=10**9)  # no result on the way exceeds it
    think: bool = True  # worked completions put the steps between <think> and </think>
    direct: float = Field(
        default=0.0, ge=0, le=1
    )  # share of examples that jump to the answer; the prompt then leaves the way open

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, most in (("train_steps", 20), ("test_steps", 20), ("hard_steps", 20), ("digits", 9)):
            low, high = getattr(self, name)
            if not 1 <= low <= high <= most:
                raise ValueError(f"{name} must be two numbers with 1 <= fewest <= most <= {most}")
        if not self.operations or set(self.operations) - set("+-*"):
            raise ValueError("operations must be one or more of + - *")
        if self.largest < 10 ** (self.digits[0] - 1):
            raise ValueError("largest must leave room for numbers of the fewest digits")
        return self


class _Chain(NamedTuple):
    expression: str
    steps: tuple[str, ...]  # "34 + 5 = 39"
    answer: int


class Arithmetic:
    """The task; see the head of the file."""

    name = "arithmetic"
    splits = ("train", "test", "hard")
    description = "short sums, differences and products in words, one step a line"

    def __init__(self, config: ArithmeticConfig | None = None) -> None:
        self.config = config or ArithmeticConfig()

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        return [self._problem(chain) for chain in self._chains(split, seed, limit)]

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        chains = self._chains(split, seed, limit)
        jumps = [rng(self.name, "direct", seed, chain.expression).random() < self.config.direct for chain in chains]
        return [Example(self._messages(c), self._completion(c, jump)) for c, jump in zip(chains, jumps)]

    def verify(self, problem: Problem, text: str) -> Score:
        """1 for a last line "Answer: N" (after the thinking) with the right integer and nothing else on it."""
        rest = marks.after_thinking(text)
        if rest is None:
            return Score(0.0, detail="the thinking was never closed")
        line = marks.answer_line(rest)
        found = strict_integer(line) if line else None
        if found is None:
            return Score(0.0, detail="there is no line 'Answer: N'")
        right = found == problem.answer
        return Score(float(right), found, "" if right else f"the answer is {problem.answer}")

    def traits(self, text: str) -> dict[str, float]:
        """worked: whether any step is written; steps: how many; steps_right: the share of them that is right (1 if none)."""
        found = [match.groups() for line in text[: marks.TAIL].splitlines() if (match := _STEP.match(line))]
        right = sum(_apply(int(a), op, int(b)) == int(c) for a, op, b, c in found)
        return {
            "worked": float(bool(found)),
            "steps": float(len(found)),
            "steps_right": right / len(found) if found else 1.0,
        }

    def validate(self) -> list[str]:
        return [
            complaint
            for split in self.splits
            for complaint in prove(
                self.problems(split, limit=SAMPLE // len(self.splits)),
                self.verify,
                lambda problem: f"Answer: {problem.answer}",
                lambda problem: f"Answer: {int(problem.answer) + 1}",
            )
        ]

    def _chains(self, split: str, seed: int, limit: int | None) -> list[_Chain]:
        check_split(self.name, split, self.splits)
        return distinct(
            lambda draw: self._draw(draw, getattr(self.config, f"{split}_steps")),
            lambda chain: chain.expression,
            held=split != "train",
            limit=DEFAULT_LIMIT if limit is None else limit,
            parts=(self.name, split, seed),
        )

    def _draw(self, draw: random.Random, steps: tuple[int, int]) -> _Chain | None:
        """A chain, or None when an operation found no number that keeps the result within bounds."""
        value = self._number(draw)
        if value > self.config.largest:
            return None
        expression, last, written = str(value), "", []
        for _ in range(draw.randint(*steps)):
            operation = draw.choice(self.config.operations)
            for _ in range(_REDRAWS):
                number = draw.randint(2, 9) if operation == "*" else self._number(draw)
                result = _apply(value, operation, number)
                if 0 <= result <= self.config.largest:
                    break
            else:
                return None
            if operation == "*" and last in ("+", "-"):
                expression = f"({expression})"
            expression = f"{expression} {operation} {number}"
            written.append(f"{value} {operation} {number} = {result}")
            value, last = result, operation
        return _Chain(expression, tuple(written), value)

    def _number(self, draw: random.Random) -> int:
        digits = draw.randint(*self.config.digits)
        return draw.randint(10 ** (digits - 1), 10**digits - 1)

    def _messages(self, chain: _Chain) -> tuple[Message, ...]:
        where = " between <think> and </think>" if self.config.think else ""
        how = f"Work one step a line{where}, then write" if not self.config.direct else "End with"
        content = f"What is {chain.expression}?\n{how} 'Answer: ' and the number."
        return (Message(role="user", content=content),)

    def _completion(self, chain: _Chain, jump: bool) -> str:
        if jump:
            return f"Answer: {chain.answer}"
        steps = "\n".join(chain.steps)
        return (f"<think>\n{steps}\n</think>" if self.config.think else steps) + f"\nAnswer: {chain.answer}"

    def _problem(self, chain: _Chain) -> Problem:
        return Problem(chain.expression, self._messages(chain), str(chain.answer), {"steps": len(chain.steps)})


def _apply(a: int, operation: str, b: int) -> int:
    return a + b if operation == "+" else a - b if operation == "-" else a * b
