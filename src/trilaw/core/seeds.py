"""Counter-based randomness: a seed is a hash of what it is for, so there is no random stream to save, lose or share.

`derive(run_seed, step, problem_id, sample_index, "rollout")` gives the same number on any machine, in any order, at any batch
size, after any number of restarts. `uniform` turns a seed and a counter into numbers in [0, 1) by SplitMix64 (Steele, Lea and
Flood 2014, "Fast splittable pseudorandom number generators"), vectorised over a batch.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def derive(*parts: int | str) -> int:
    """A 63-bit seed from the parts, by BLAKE2b over their unambiguous encoding."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng(*parts: int | str) -> random.Random:
    """A private generator seeded by `derive(*parts)`."""
    return random.Random(derive(*parts))


def uniform(seeds_B: np.ndarray, counter_B: np.ndarray) -> np.ndarray:
    """float64 in [0, 1), one for each pair of a uint64 seed and a counter (SplitMix64's output for state seed + (counter + 1) gamma)."""
    with np.errstate(over="ignore"):
        z = seeds_B.astype(np.uint64) + (counter_B.astype(np.uint64) + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    result: np.ndarray = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return result
