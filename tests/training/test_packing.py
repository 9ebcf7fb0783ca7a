from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.seeds import rng
from trilaw.training.packing import Document, pack


def documents(lengths: list[int]) -> list[Document]:
    return [Document(tuple((7 * i + j) % 60 for j in range(n)), n // 2) for i, n in enumerate(lengths)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 8))
def test_nothing_is_lost_and_rows_hold(lengths: list[int], open_rows: int) -> None:
    given_ = documents(lengths)
    rows = list(pack(given_, 16, open_rows))
    assert all(0 < sum(len(d.tokens) for d in row) <= 16 for row in rows)
    pieces = sorted(
        p.tokens for d in given_ for p in [Document(d.tokens[s : s + 16], 0) for s in range(0, len(d.tokens), 16)]
    )
    assert sorted(d.tokens for row in rows for d in row) == pieces
    assert sum(len(d.tokens) - d.response for row in rows for d in row) == sum(n - n // 2 for n in lengths)


def test_rows_are_nearly_full() -> None:
    draw = rng("lengths")
    rows = list(pack(documents([draw.randint(8, 60) for _ in range(3000)]), 128))
    full = sum(len(d.tokens) for row in rows for d in row) / (128 * len(rows))
    assert full > 0.95
