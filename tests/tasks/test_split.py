"""Which problems are held out: fixed for ever, an eighth, and the same for any seed."""

from __future__ import annotations

import random

import pytest

from trilaw.core.errors import RequestError, TaskError
from trilaw.tasks.split import check_split, distinct, held_out


def test_held_out_is_an_eighth_and_never_changes() -> None:
    keys = [f"problem {i}" for i in range(8000)]
    share = sum(map(held_out, keys)) / len(keys)
    assert abs(share - 1 / 8) < 0.015
    # Frozen: a change of the hash would move test problems of published runs into training.
    assert [i for i in range(40) if held_out(f"problem {i}")] == FROZEN


FROZEN = [6, 8, 28]


def test_held_out_takes_any_text() -> None:
    assert held_out("\ud800") in (True, False)


def test_distinct_appends_and_has_no_doubles() -> None:
    def draw(rng: random.Random) -> int | None:
        number = rng.randrange(2000)
        return None if number % 3 == 0 else number

    long = distinct(draw, str, held=False, limit=300, parts=("t", 1))
    assert len(set(long)) == 300
    assert all(number % 3 and not held_out(str(number)) for number in long)
    assert distinct(draw, str, held=False, limit=40, parts=("t", 1)) == long[:40]
    assert distinct(draw, str, held=False, limit=40, parts=("t", 2)) != long[:40]


def test_distinct_says_when_the_space_is_exhausted() -> None:
    with pytest.raises(TaskError, match="only"):
        distinct(lambda rng: rng.randrange(5), str, held=False, limit=6, parts=())


def test_check_split_names_the_nearest() -> None:
    with pytest.raises(RequestError, match="did you mean 'train'"):
        check_split("t", "trian", ("train", "test"))
