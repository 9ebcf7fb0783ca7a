"""Packing for pre-training: whole documents best-fit into rows of equal length, each document blind to its neighbours.

Best-fit over a stream: a document goes into the fullest open row that still has room, else opens a new row; with more than a few rows
open, the fullest is handed out. So the order of rows follows the stream, memory is bounded, and rows are about 97% full. A document
longer than a row is cut into pieces. Letters: B rows, T tokens, N predicted tokens.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """`hidden_BTD[select_BT]` are the states that predict `targets_N`; `response_N` tells which of these are of a response."""

    tokens_BT: Tensor
    positions_BT: Tensor  # from 0 in each document
    mask_BTT: Tensor  # bool: same document, and not later
    select_BT: Tensor  # bool
    targets_N: Tensor
    response_N: Tensor  # bool
    tokens: int  # without padding
    pairs: int  # query-key pairs, without padding


def collate(rows: Sequence[Row], row_tokens: int, device: torch.device | str = "cpu") -> PackedBatch:
    """A batch of packed rows, each padded to `row_tokens`."""
    shape = (len(rows), row_tokens)
    tokens_BT, positions_BT = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    documents_BT = torch.full(shape, -1)
    select_BT = torch.zeros(shape, dtype=torch.bool)
    targets: list[int] = []
    response: list[bool] = []
    tokens = pairs = 0
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents):
            size = len(document.tokens)
            place = slice(start, start + size)
            tokens_BT[row, place] = torch.tensor(document.tokens)
            positions_BT[row, place] = torch.arange(size)
            documents_BT[row, place] = number
            select_BT[row, start : start + size - 1] = True
            targets += document.tokens[1:]
            response += [at >= document.response for at in range(1, size)]
            start, tokens, pairs = start + size, tokens + size, pairs + size * (size + 1) // 2
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]  # padding sees padding: no row is empty
    causal_TT = torch.ones(row_tokens, row_tokens, dtype=torch.bool).tril()
    return PackedBatch(
        tokens_BT.to(device),
        positions_BT.to(device),
        (same_BTT & causal_TT).to(device),
        select_BT.to(device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(response, dtype=torch.bool, device=device),
        tokens,
        pairs,
    )
