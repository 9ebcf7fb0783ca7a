"""The language is what its head says: probabilities add up to one, the entropy is the chain's, the pieces fall as a power law."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from trilaw.core.config import parse
from trilaw.core.errors import ConfigError, RequestError
from trilaw.core.protocols import CorpusTask
from trilaw.core.types import Problem
from trilaw.tasks.markov import Markov, MarkovConfig, _names

SMALL = MarkovConfig(words=16, stop=0.3)


@pytest.fixture(scope="module")
def small() -> Markov:
    return Markov(SMALL)


def test_probabilities_of_all_documents_add_up_to_one(small: Markov) -> None:
    lengths = (1, 2, 3, 4)
    total = math.fsum(
        math.exp(small.log_probability("^ " + " ".join(words)))
        for length in lengths
        for words in itertools.product(small.words, repeat=length)
    )
    longer = (1 - SMALL.stop) ** len(lengths)  # the chance of more words than that
    assert total == pytest.approx(1 - longer, abs=1e-12)


def test_documents_come_as_often_as_their_probability_says(small: Markov) -> None:
    count = 60_000
    seen = Counter(small.documents(seed=3, count=count))
    checked = 0
    for words in itertools.chain(itertools.product(small.words), itertools.product(small.words, repeat=2)):
        document = "^ " + " ".join(words)
        expected = count * math.exp(small.log_probability(document))
        if expected > 20:
            checked += 1
            assert seen[document] == pytest.approx(expected, abs=5 * expected**0.5)
    assert checked > 50


def entropy(task: Markov) -> float:
    """Mean nats of a document, exactly: the expected visits to each word times the entropy of what follows it, and the ends."""
    size, stop = len(task.words), task.config.stop
    follow_V = -(task.chances_VV * np.log(task.chances_VV)).sum(axis=1)
    steps_V = (1 - stop) * np.linalg.solve(np.eye(size) - (1 - stop) * task.chances_VV.T, np.full(size, 1 / size))
    ends = -(math.log(stop) + (1 - stop) / stop * math.log(1 - stop))
    return math.log(size) + float(steps_V @ follow_V) + ends


@pytest.mark.parametrize("config", [SMALL, MarkovConfig()])
def test_the_mean_is_the_entropy_of_the_chain(config: MarkovConfig) -> None:
    task = Markov(config)
    nats = np.array([-task.log_probability(document) for document in task.documents(seed=5, count=8000)])
    assert nats.mean() == pytest.approx(entropy(task), abs=4 * nats.std() / len(nats) ** 0.5)


def test_what_is_never_written_has_no_chance(small: Markov) -> None:
    first, second = small.words[:2]
    assert small.log_probability(f"^ {first} {second}") > -math.inf
    for document in (
        "",
        "^",
        "^ ",
        first,
        f"{first} {second}",
        f"^{first}",
        f"^ {first}  {second}",
        f"^ {first} ",
        "^ xyzzy",
    ):
        assert small.log_probability(document) == -math.inf, document


def test_the_pieces_fall_as_a_power_law() -> None:
    config = MarkovConfig(words=64, exponent=1.25, shift=2.0, spread=0.8)
    log_VV = np.log(Markov(config).chances_VV)
    centre = np.eye(64) - 1 / 64  # the softmax forgets a constant in each row: out with it
    worth_K = np.linalg.svd(log_VV @ centre, compute_uv=False)
    power_K = (np.arange(1, 65) + 2.0) ** -1.25
    power_K *= 64 * 0.8 / np.linalg.norm(power_K)
    # taking one direction out moves each singular value between its neighbours (Cauchy's interlacing)
    assert all(power_K[k + 1] - 1e-9 <= worth_K[k] <= power_K[k] + 1e-9 for k in range(63))
    assert worth_K[63] == pytest.approx(0, abs=1e-9)


def test_languages_differ_and_stay() -> None:
    one, again, other = (Markov(MarkovConfig(words=16, language=n)) for n in (0, 0, 1))
    assert list(one.documents(count=20)) == list(again.documents(count=20))
    assert abs(one.chances_VV - other.chances_VV).max() > 0.05
    assert list(one.documents(seed=1, count=20)) != list(one.documents(seed=2, count=20))
    # written down from this program, so that a change of the language cannot pass unseen
    assert list(Markov().documents(seed=0, count=3)) == ["^ nibi", "^ kuba pabe", "^ sobe"]


@pytest.mark.parametrize("words", [16, 80, 81, 256, 1000])
def test_words_are_distinct_and_of_one_length(words: int) -> None:
    names = _names(words)
    assert len(set(names)) == words
    assert len({len(name) for name in names}) == 1


def test_it_writes_text_and_splits_it(small: Markov) -> None:
    assert isinstance(small, CorpusTask)
    first, second, third = small.words[:3]
    assert small.split_document(f"^ {first} {second} {third}") == (f"^ {first}", f" {second} {third}")
    assert small.split_document(f"^ {first}") == (f"^ {first}", "")
    assert set(small.alphabet()) == {f" {word}" for word in small.words}


def test_splits_share_no_word_and_hold_all() -> None:
    task = Markov()
    parts = {split: {p.id: p for p in task.problems(split)} for split in task.splits}
    assert {split: len(part) for split, part in parts.items()} == {"train": 224, "common": 16, "rare": 16}
    assert set().union(*parts.values()) == set(task.words)
    assert max(p.meta["rank"] for p in parts["common"].values()) < min(p.meta["rank"] for p in parts["rare"].values())
    for split in task.splits:
        long = list(task.problems(split, seed=1, limit=12))
        assert list(task.problems(split, seed=1, limit=5)) == long[:5]
        assert list(task.problems(split, seed=2, limit=12)) != long
    with pytest.raises(RequestError, match="no split 'comon' \\(did you mean 'common'"):
        task.problems("comon")


def test_frequent_words_are_frequent(small: Markov) -> None:
    text = " ".join(document[2:] for document in Markov(SMALL.model_copy(update={"stop": 0.01})).documents(count=2000))
    seen = Counter(text.split())
    ranked = [p.id for p in sorted((p for s in small.splits for p in small.problems(s)), key=lambda p: p.meta["rank"])]
    assert seen[ranked[0]] > seen[ranked[8]] > seen[ranked[15]]


def test_the_answer_is_the_word_that_follows_most_often(small: Markov) -> None:
    follows: dict[str, Counter[str]] = {word: Counter() for word in small.words}
    for document in small.documents(seed=9, count=40_000):
        words = document[2:].split(" ")
        for x, y in itertools.pairwise(words):
            follows[x][y] += 1
    for split in small.splits:
        for problem, example in zip(small.problems(split), small.examples(split), strict=True):
            most = follows[problem.id].most_common(1)[0][1]
            assert follows[problem.id][problem.answer] > most - 4 * most**0.5
            assert example.messages == problem.messages
            assert small.verify(problem, example.completion).value == 1


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        (" ba", 1, "ba"),
        ("ba da", 1, "ba"),
        (" da ba", 0, "da"),
        ("", 0, None),
        (" " * 100 + "ba", 0, None),
        ("ba" * 999, 0, "ba" * 32),
    ],
)
def test_verify_looks_at_the_first_word(small: Markov, text: str, value: float, said: str | None) -> None:
    score = small.verify(Problem("di", ({"role": "user", "content": "di"},), "ba"), text)
    assert (score.value, score.extracted) == (value, said)


def test_validate_proves_the_verifier(small: Markov, monkeypatch: pytest.MonkeyPatch) -> None:
    assert small.validate() == []
    assert Markov().validate() == []
    accepting = Markov(SMALL)
    monkeypatch.setattr(accepting, "verify", lambda problem, text: small.verify(problem, f" {problem.answer}"))
    assert "is accepted" in accepting.validate()[0]


@pytest.mark.parametrize(
    ("key", "value"), [("words", 15), ("stop", 0), ("stop", 1), ("exponent", 0.5), ("spread", 0), ("wrods", 20)]
)
def test_options_that_do_not_hold(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        parse(MarkovConfig, {key: value}, "task 'markov'")
