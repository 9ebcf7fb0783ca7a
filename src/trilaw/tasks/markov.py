"""Sentences of a made-up language in which each word depends on the one before: text whose loss falls as a power law.

A document starts with any word and goes on by P(y | x) until, with chance `stop` after each word, it ends. The log-odds are

    P(y | x) = exp(M_xy) / sum_z exp(M_xz)      M = sum_k s_k u_k v_k^T      s_k ~ (k + shift)^-exponent

with random orthonormal u and v; `spread` is the standard deviation of M's entries. What there is to know comes in pieces k = 1, 2, ... whose
worth, about s_k^2, is a power of k, and the excess loss of who knows the first n of them falls as n^-(2 exponent - 1): the quantisation
model of scaling (Michaud et al. 2023, arXiv 2303.13506), without the procedures that have to be found before anything is gained. Two bounds on n
are known beforehand. A model of hidden size d gives logits of rank d, so n <= d however long it trains (the softmax bottleneck, Yang et al. 2018,
arXiv 1711.03953). And D words let about D^(1 / 2 exponent) pieces stand out of the noise of counting: at the default exponent of 1 the loss falls
as 1 / sqrt(D). Maloney et al. 2022 (arXiv 2210.16859) solve a linear model of the same kind.

The author is a known program, so its entropy is known exactly. A problem shows a word and asks for the one that follows it most often. All words
stand in the text; one in eight, through all ranks of frequency, is kept from the split `train` (for later stages) and asked in `common`
(the more frequent half) or `rare`.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from trilaw.core.config import Config
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.tasks.split import BUCKETS, check_split
from trilaw.tasks.verifiers.proof import SAMPLE, prove

_SYLLABLES = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
_LOOKED_AT = 64  # characters of a response

Floats = npt.NDArray[np.float64]


class MarkovConfig(Config):
    """The language. Two that differ in `language` are drawn by the same rule and share no knowledge."""

    words: int = Field(default=256, ge=16, le=1024)
    exponent: float = Field(default=1.0, gt=0.5, le=4)  # below 0.5 the tail of the pieces is worth more than its head
    shift: float = Field(default=1.0, ge=0, le=100)
    spread: float = Field(default=1.5, gt=0, le=5)
    stop: float = Field(default=0.1, gt=0, lt=1)
    language: int = Field(default=0, ge=0)


class Markov:
    """The task; see the head of the file. V words, in the order of their numbers."""

    name = "markov"
    splits = ("train", "common", "rare")
    description = "a made-up language in which each word depends on the one before: which word follows most often?"

    def __init__(self, config: MarkovConfig | None = None) -> None:
        self.config = config or MarkovConfig()
        self.words = _names(self.config.words)
        self.chances_VV = _chances(self.config)
        self._number = {word: number for number, word in enumerate(self.words)}
        self._log_VV: list[list[float]] = np.log(self.chances_VV).tolist()
        self._sums_VV: list[list[float]] = np.cumsum(self.chances_VV, axis=1).tolist()
        for row in self._sums_VV:
            row[-1] = 1.0  # whatever rounding made of it

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        check_split(self.name, split, self.splits)
        asked = [(rank, word) for rank, word in enumerate(self._by_frequency()) if self._split(rank) == split]
        rng(self.name, split, seed).shuffle(asked)
        return [self._problem(rank, word) for rank, word in asked[:limit]]

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        problems = self.problems(split, seed=seed, limit=limit)
        return [Example(problem.messages, f" {problem.answer}") for problem in problems]

    def verify(self, problem: Problem, text: str) -> Score:
        """1 if the first word of the response is the right one; what the model goes on to say is its own affair."""
        said = text[:_LOOKED_AT].split(maxsplit=1)[:1]
        if not said:
            return Score(0.0, None, "the response has no word")
        right = said[0] == problem.answer
        return Score(float(right), said[0], "" if right else f"the answer is {problem.answer}")

    def validate(self) -> list[str]:
        def wrong(problem: Problem) -> str:
            return f" {next(word for word in self.words if word != problem.answer)} {problem.answer}"

        return [
            complaint
            for split in self.splits
            for complaint in prove(
                self.problems(split, limit=SAMPLE), self.verify, lambda problem: f" {problem.answer}", wrong
            )
        ]

    def documents(self, *, seed: int = 0, count: int) -> Iterator[str]:
        draw = rng(self.name, "documents", seed)
        for _ in range(count):
            word = draw.randrange(len(self.words))
            written = [word]
            while draw.random() >= self.config.stop:
                word = bisect.bisect(self._sums_VV[word], draw.random())
                written.append(word)
            yield "^" + "".join(f" {self.words[word]}" for word in written)

    def log_probability(self, document: str) -> float:
        """Natural logarithm of the chance that the author of `documents` writes this one; -inf for one that it never writes."""
        begin, *written = document.split(" ")
        if begin != "^" or not written or any(word not in self._number for word in written):
            return -math.inf
        numbers = [self._number[word] for word in written]
        steps = sum(self._log_VV[x][y] for x, y in itertools.pairwise(numbers))
        ends = (len(numbers) - 1) * math.log1p(-self.config.stop) + math.log(self.config.stop)
        return steps + ends - math.log(len(self.words))

    def split_document(self, document: str) -> tuple[str, str]:
        """(prompt, response) of a document: its first word, and the rest."""
        cut = document.find(" ", 2)
        return (document, "") if cut < 0 else (document[:cut], document[cut:])

    def alphabet(self) -> Sequence[str]:
        return [f" {word}" for word in self.words]

    def chat_template(self) -> str:
        return "{{ bos_token }} {{ messages[-1].content }}"

    def _by_frequency(self) -> list[str]:
        """All words, the most frequent one in an endless text first."""
        share_V = np.linalg.matrix_power(self.chances_VV, 1 << 10)[0]  # every row has become the stationary one
        return [self.words[number] for number in np.argsort(-share_V, kind="stable")]

    def _split(self, rank: int) -> str:
        if rank % BUCKETS != BUCKETS // 2:
            return "train"
        return "common" if 2 * rank < len(self.words) else "rare"

    def _problem(self, rank: int, word: str) -> Problem:
        answer = self.words[int(self.chances_VV[self._number[word]].argmax())]
        return Problem(word, (Message(role="user", content=word),), answer, {"rank": rank})


def _names(count: int) -> list[str]:
    """`count` different words of equally many syllables."""
    length = next(n for n in range(1, 9) if len(_SYLLABLES) ** n >= count)
    digits = [
        [number // len(_SYLLABLES) ** place % len(_SYLLABLES) for place in range(length)] for number in range(count)
    ]
    return ["".join(_SYLLABLES[digit] for digit in places) for places in digits]


def _chances(config: MarkovConfig) -> Floats:
    """P(y | x) in row x and column y."""
    size = config.words
    left_VK, right_VK = (_orthonormal(config.language, side, size) for side in ("left", "right"))
    worth_K = (np.arange(1, size + 1) + config.shift) ** -config.exponent
    worth_K *= size * config.spread / np.linalg.norm(worth_K)  # so that the mean square of an entry is spread^2
    odds_VV = (left_VK * worth_K) @ right_VK.T
    chances_VV: Floats = np.exp(odds_VV - odds_VV.max(axis=1, keepdims=True))
    chances_VV /= chances_VV.sum(axis=1, keepdims=True)
    return chances_VV


def _orthonormal(language: int, side: str, size: int) -> Floats:
    """A random orthonormal matrix; the signs are those that make it unique, whichever library does the QR."""
    draw = rng("markov", "language", language, side, size)
    normal_VV = np.array([[draw.gauss(0, 1) for _ in range(size)] for _ in range(size)])
    q_VV, r_VV = np.linalg.qr(normal_VV)
    unique_VV: Floats = q_VV * np.sign(np.diag(r_VV))
    return unique_VV
