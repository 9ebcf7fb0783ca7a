"""What holds for every procedural task: the splits are disjoint, larger limits append, gold is accepted and other answers are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from trilaw.core.protocols import TeachingTask
from trilaw.core.types import Problem, Score
from trilaw.tasks.registry import build
from trilaw.tasks.split import held_out
from trilaw.tasks.verifiers.proof import prove

KINDS = ("arithmetic", "countdown", "calculator")


def make(kind: str) -> TeachingTask:
    return cast(TeachingTask, build(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_problem_is_in_train_whatever_the_seed(kind: str) -> None:
    task = make(kind)
    held = [split for split in task.splits if split != "train"]

    def prompts(split: str) -> set[str]:
        return {p.messages[-1]["content"] for seed in range(12) for p in task.problems(split, seed=seed, limit=60)}

    train = prompts("train")
    assert len(train) > 400
    for split in held:
        assert not train & prompts(split)


@pytest.mark.parametrize("kind", ["arithmetic", "countdown"])
def test_the_hash_decides(kind: str) -> None:
    task = make(kind)
    for split in task.splits:
        assert {held_out(p.id) for p in task.problems(split, limit=50)} == {split != "train"}


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_problems_and_a_larger_limit_only_appends(kind: str) -> None:
    task, again = make(kind), make(kind)
    for split in task.splits:
        long = list(task.problems(split, seed=3, limit=80))
        assert list(again.problems(split, seed=3, limit=30)) == long[:30]
        assert list(task.problems(split, seed=4, limit=30)) != long[:30]
        assert len({p.id for p in long}) == 80
        assert len(task.problems(split)) == 256


@pytest.mark.parametrize("kind", KINDS)
def test_worked_examples_belong_to_the_problems_and_are_right(kind: str) -> None:
    task = make(kind)
    for split in task.splits:
        problems = task.problems(split, seed=5, limit=40)
        examples = task.examples(split, seed=5, limit=40)
        for problem, example in zip(problems, examples, strict=True):
            assert example.messages == problem.messages
            assert task.verify(problem, example.completion).value == 1


@pytest.mark.parametrize("kind", KINDS)
def test_validate_is_silent(kind: str) -> None:
    assert make(kind).validate() == []


@pytest.mark.parametrize("kind", KINDS)
def test_traits_of_anything(kind: str) -> None:
    traits: Callable[[str], dict[str, float]] = getattr(make(kind), "traits", lambda text: {})
    for text in ("", "9" * 10**6, "1 + 1 = 2\n" * 10**5, "\ud800"):
        assert all(isinstance(value, float) for value in traits(text).values())


def test_prove_sees_a_verifier_that_accepts_all_or_nothing() -> None:
    task = make("arithmetic")
    problems = task.problems("train", limit=8)

    def gold(problem: Problem) -> str:
        return f"Answer: {problem.answer}"

    complaints = prove(problems, task.verify, gold, gold)
    assert len(complaints) == 6
    assert "accepted" in complaints[0]
    assert complaints[-1] == "and 3 more problems like these."
    complaints = prove(problems, task.verify, lambda problem: "none", lambda problem: "none")
    assert "refused: there is no line" in complaints[0]


def test_prove_allows_a_part_of_the_score_for_a_corrupted_answer() -> None:
    problems = make("arithmetic").problems("train", limit=2)

    def by_length(problem: Problem, text: str) -> Score:
        return Score(1.0 if text == problem.answer else 0.5)

    assert prove(problems, by_length, lambda problem: problem.answer, lambda problem: "x") == []
