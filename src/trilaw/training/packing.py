"""Packing for pre-training: whole documents best-fit into rows of equal length, so that every step has about as many tokens.

Best-fit over a stream: a document goes into the fullest open row that still has room, else opens a new row; with more than a few rows
open, the fullest is handed out. So the order of rows follows the stream, memory is bounded, and rows are about 97% full. A document
longer than a row is cut into pieces. Documents stay blind to each other: training takes them out of their rows again (`batch.py`).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

OPEN_ROWS = 64


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids, and where the response begins (their number when there is none)."""

    tokens: tuple[int, ...]
    response: int


Row = list[Document]


def pack(documents: Iterable[Document], row_tokens: int, open_rows: int = OPEN_ROWS) -> Iterator[Row]:
    """Rows of at most `row_tokens` tokens, as they close; the open ones come last, fullest first."""
    rooms: list[tuple[int, int]] = []  # (room left, number of the row), sorted
    rows: dict[int, Row] = {}
    opened = 0
    for document in documents:
        for piece in _pieces(document, row_tokens):
            size = len(piece.tokens)
            place = bisect.bisect_left(rooms, (size, -1))
            if place < len(rooms):
                room, number = rooms.pop(place)
            else:
                room, number = row_tokens, opened
                rows[number] = []
                opened += 1
            rows[number].append(piece)
            bisect.insort(rooms, (room - size, number))
            if len(rooms) > open_rows or rooms[0][0] == 0:
                yield rows.pop(rooms.pop(0)[1])
    for _, number in rooms:
        yield rows.pop(number)


def _pieces(document: Document, row_tokens: int) -> Iterator[Document]:
    for start in range(0, len(document.tokens), row_tokens):
        piece = document.tokens[start : start + row_tokens]
        yield Document(piece, min(max(document.response - start, 0), len(piece)))
