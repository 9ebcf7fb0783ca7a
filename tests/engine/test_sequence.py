"""Stop strings against a search in the whole text, for any cut of text into tokens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.types import SamplingParams
from trilaw.engine.sequence import Prompt, Sequence, settled

PIECES = {2: b"a", 3: b"b", 4: b"ab", 5: b"\xc3", 6: b"\xa9", 7: b"\xc3\xa9a", 8: b"ba ", 9: b""}


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 9), max_size=80),
    stops=st.lists(st.sampled_from(["abba", "é", "aé", "bb", "aaaa", " a", "éé", "ba b"]), min_size=1, max_size=3),
)
def test_a_stop_string_is_found_with_the_token_that_completes_it(
    pieces: Any, tokens: list[int], stops: list[str]
) -> None:
    tokenizer = pieces(PIECES, vocab_size=10)
    sequence = Sequence("a", Prompt((2,)), SamplingParams(stop=tuple(stops)), 0, 0.0)
    for n in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:n])
        cut = min((text.find(stop) for stop in stops if stop in text), default=None)
        assert sequence.stopped_text(tokens[:n], tokenizer) == (None if cut is None else text[:cut])
        if cut is not None:
            break


@pytest.mark.parametrize("filler", [(3,), (9, 3), (5, 6), (9,) * 7 + (2, 3)], ids=str)
def test_the_tail_never_loses_the_beginning_of_a_stop_string(pieces: Any, filler: tuple[int, ...]) -> None:
    """A stop string of ten tokens after any length of text, wherever the tail happens to be cut shorter."""
    tokenizer = pieces(PIECES, vocab_size=10)
    for length in range(90):
        tokens = [filler[i % len(filler)] for i in range(length)] + [2] * 10
        sequence = Sequence("a", Prompt((2,)), SamplingParams(stop=("a" * 10,)), 0, 0.0)
        found = [sequence.stopped_text(tokens[:n], tokenizer) for n in range(1, len(tokens) + 1)]
        text = tokenizer.decode(tokens)
        at = next(n for n in range(1, len(tokens) + 1) if "a" * 10 in tokenizer.decode(tokens[:n])) - 1
        assert found[:at] == [None] * at
        assert found[at] == text[: text.find("a" * 10)]


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.lists(st.integers(2, 8), max_size=40), stops=st.lists(st.sampled_from(["abba", "aé", "bb"]), max_size=2)
)
def test_settled_text_only_grows(pieces: Any, tokens: list[int], stops: list[str]) -> None:
    tokenizer = pieces(PIECES, vocab_size=10)
    before = ""
    for n in range(len(tokens) + 1):
        text = settled(tokenizer.decode(tokens[:n]), stops)
        assert text.startswith(before)
        if any(stop in tokenizer.decode(tokens[:n]) for stop in stops):
            break  # the sample has ended
        assert not any(stop in text for stop in stops)
        before = text
