"""Which problems are held out, decided by the problem itself.

A problem's canonical text is hashed (BLAKE2b) into eight buckets; one of them is held out. So no seed, no range of sizes and no
order of drawing can bring a test problem into training, and no list of test problems has to be kept.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from trilaw.core import seeds
from trilaw.core.errors import RequestError, TaskError, nearest

T = TypeVar("T")

BUCKETS = 8
DEFAULT_LIMIT = 256  # problems of a procedural task when nobody says how many
_TRIES = 5_000  # drawings in a row without a new problem: the space is taken as exhausted


def held_out(key: str) -> bool:
    """Whether the problem with this canonical text belongs to the held-out eighth. The answer never changes."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=b"trilaw/split").digest()
    return int.from_bytes(digest, "big") % BUCKETS == 0


def check_split(task: str, split: str, splits: Sequence[str]) -> None:
    """Raises RequestError for a split that the task has not."""
    if split not in splits:
        raise RequestError(f"The task {task} has no split '{split}'{nearest(split, splits)}.")


def distinct(
    draw: Callable[[random.Random], T | None],
    key: Callable[[T], str],
    *,
    held: bool,
    limit: int,
    parts: tuple[int | str, ...],
) -> list[T]:
    """The first `limit` different drawings on the wanted side of the split; a larger limit only appends.

    draw: makes an item from a private generator, or None when the attempt came to nothing. parts: what the generators are seeded
    by. Raises TaskError when no more different items turn up.
    """
    found: dict[str, T] = {}
    attempt = last = 0
    while len(found) < limit:
        item = draw(seeds.rng(*parts, attempt))
        attempt += 1
        if item is not None and held_out(name := key(item)) == held and name not in found:
            found[name] = item
            last = attempt
        elif attempt - last > _TRIES:
            raise TaskError(
                f"{limit} problems were asked for, but these options of the task seem to allow only {len(found)} different ones: "
                "ask for fewer or widen the options."
            )
    return list(found.values())
