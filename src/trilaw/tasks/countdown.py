"""Countdown: combine the given numbers, each used exactly once, by + - * / and parentheses so that they make the target.

The puzzle of the television game, made a test of search in language models by "Stream of Search" (Gandhi et al. 2024, arXiv
2404.03683). Here a problem is made by combining its numbers at random, so that a solution is known to exist; the verifier accepts
every solution. Departure from the game: all numbers must be used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from trilaw.core.config import Config
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.tasks.split import DEFAULT_LIMIT, check_split, distinct
from trilaw.tasks.verifiers import marks
from trilaw.tasks.verifiers.expression import Refused, Term, combine, evaluate
from trilaw.tasks.verifiers.number import canonical, strict_integer
from trilaw.tasks.verifiers.proof import SAMPLE, prove


class CountdownConfig(Config):
    """Difficulty of the splits: fewest and most numbers; sizes; form of the completion."""

    train_numbers: tuple[int, int] = (3, 4)
    test_numbers: tuple[int, int] = (3, 3)
    hard_numbers: tuple[int, int] = (4, 4)
    largest: int = Field(default=20, ge=2, le=999)  # of the given numbers
    largest_target: int = Field(default=100, ge=2, le=99_999)
    think: bool = True  # worked completions put the steps between <think> and </think>

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name in ("train_numbers", "test_numbers", "hard_numbers"):
            low, high = getattr(self, name)
            if not 2 <= low <= high <= 8:
                raise ValueError(f"{name} must be two numbers with 2 <= fewest <= most <= 8")
        return self


class _Puzzle(NamedTuple):
    numbers: tuple[int, ...]
    target: int
    solution: str  # canonical text
    steps: tuple[str, ...]  # "3 * 5 = 15"

    @property
    def key(self) -> str:
        return f"{' '.join(map(str, sorted(self.numbers)))} -> {self.target}"


class Countdown:
    """The task; see the head of the file."""

    name = "countdown"
    splits = ("train", "test", "hard")
    description = "reach a target with each given number used exactly once"

    def __init__(self, config: CountdownConfig | None = None) -> None:
        self.config = config or CountdownConfig()

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        return [
            Problem(p.key, self._messages(p), p.solution, {"numbers": list(p.numbers), "target": p.target})
            for p in self._puzzles(split, seed, limit)
        ]

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        return [Example(self._messages(p), self._completion(p)) for p in self._puzzles(split, seed, limit)]

    def verify(self, problem: Problem, text: str) -> Score:
        """1 when the last <answer>...</answer> (else the last "Answer:" line) uses each number once and makes the target.

        The answer may close with "= target". `extracted` is the expression's canonical text.
        """
        rest = marks.after_thinking(text)
        if rest is None:
            return Score(0.0, detail="the thinking was never closed")
        answer = marks.answer_tag(rest)
        if answer is None:
            answer = marks.answer_line(rest)
        if answer is None:
            return Score(0.0, detail="there is no <answer>")
        expression, equals, stated = answer.partition("=")
        try:
            term = evaluate(expression.strip())
        except Refused as reason:
            return Score(0.0, detail=f"the answer is no expression: {reason}")
        target = int(problem.meta["target"])
        if sorted(term.numbers) != sorted(problem.meta["numbers"]):
            return Score(0.0, term.text, "it does not use each number exactly once")
        if term.value != target:
            return Score(0.0, term.text, f"it makes {canonical(term.value)[:40]}, not {target}")
        if equals and strict_integer(stated) != str(target):
            return Score(0.0, term.text, "what follows the '=' is not the target")
        return Score(1.0, term.text)

    def validate(self) -> list[str]:
        return [
            complaint
            for split in self.splits
            for complaint in prove(
                self.problems(split, limit=SAMPLE // len(self.splits)),
                self.verify,
                lambda problem: f"<answer>{problem.answer}</answer>",
                lambda problem: f"<answer>{problem.answer}+1</answer>",
            )
        ]

    def _puzzles(self, split: str, seed: int, limit: int | None) -> list[_Puzzle]:
        check_split(self.name, split, self.splits)
        return distinct(
            lambda rng: self._draw(rng, getattr(self.config, f"{split}_numbers")),
            lambda puzzle: puzzle.key,
            held=split != "train",
            limit=DEFAULT_LIMIT if limit is None else limit,
            parts=(self.name, split, seed),
        )

    def _draw(self, rng: random.Random, counts: tuple[int, int]) -> _Puzzle | None:
        """Combine random numbers pair by pair; None when the result is no target or a step leaves the natural numbers."""
        numbers = tuple(rng.randint(1, self.config.largest) for _ in range(rng.randint(*counts)))
        terms, steps = [Term.number(n) for n in numbers], []
        while len(terms) > 1:
            left, right = (terms.pop(rng.randrange(len(terms))) for _ in range(2))
            operator = rng.choice("+-*/")
            if operator == "/" and right.value == 0:
                return None
            term = combine(left, operator, right)
            if term.value < 0 or term.value.denominator > 1:
                return None
            steps.append(f"{left.value} {operator} {right.value} = {term.value}")
            terms.append(term)
        if not Fraction(1) <= terms[0].value <= self.config.largest_target:
            return None
        return _Puzzle(numbers, int(terms[0].value), terms[0].text, tuple(steps))

    def _messages(self, puzzle: _Puzzle) -> tuple[Message, ...]:
        numbers = ", ".join(map(str, puzzle.numbers))
        where = " between <think> and </think>" if self.config.think else ""
        content = (
            f"Make {puzzle.target} from the numbers {numbers}. Use each number exactly once, with + - * / and parentheses.\n"
            f"Work one step a line{where}, then write the expression as <answer>...</answer>."
        )
        return (Message(role="user", content=content),)

    def _completion(self, puzzle: _Puzzle) -> str:
        steps = "\n".join(puzzle.steps)
        return (f"<think>\n{steps}\n</think>" if self.config.think else steps) + f"\n<answer>{puzzle.solution}</answer>"
