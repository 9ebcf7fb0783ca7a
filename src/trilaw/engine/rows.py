"""The running batch as a table: row i holds one sequence, its tokens so far and their log-probabilities.

Counts live in numpy on the host, tokens on the device, so a step costs the same Python whatever the number of rows. Rows that
have ended stay as dead weight until enough of them can be dropped at once.

Shapes: R rows allocated (max_batch), B rows in use, M new tokens allocated.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trilaw.core.seeds import uniform
from trilaw.engine.sequence import Sequence

_WIDTH = 64  # the matrices of tokens grow by doubling from here


class Rows:
    def __init__(self, capacity: int, device: torch.device) -> None:
        self.device = device
        self.capacity = capacity
        self.sequences: list[Sequence] = []
        self.changes = 0  # how often rows came or went
        self.prompt_R = np.zeros(capacity, np.int64)  # tokens of the prompt
        self.base_R = np.zeros(capacity, np.int64)  # of these, in shared pages: the tail begins after them
        self.made_R = np.zeros(capacity, np.int64)  # new tokens so far
        self.limit_R = np.zeros(capacity, np.int64)  # new tokens at most
        self.seed_R = np.zeros(capacity, np.uint64)
        self.live_R = np.zeros(capacity, np.bool_)
        self.strings_R = np.zeros(capacity, np.bool_)  # has stop strings
        self.last_R = torch.zeros(capacity, dtype=torch.int64, device=device)  # the newest token, not yet in the cache
        self.tokens_RM = torch.zeros(capacity, _WIDTH, dtype=torch.int64, device=device)
        self.logprobs_RM = torch.zeros(capacity, _WIDTH, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def live(self) -> int:
        return int(np.count_nonzero(self.live_R[: len(self)]))

    @property
    def longest(self) -> int:
        """The longest tail that a row may come to have."""
        B = len(self)
        return int((self.prompt_R[:B] + self.limit_R[:B] - self.base_R[:B]).max(initial=0))

    def ahead(self, count: int) -> int:
        """The longest tail once every row has `count` more tokens, or as many as it may have."""
        B = len(self)
        last = self.prompt_R[:B] + self.limit_R[:B] - self.base_R[:B]
        return int(np.minimum(self.places() + 1 + count, last).max(initial=0))

    def append(self, sequence: Sequence, base: int) -> None:
        row, made = len(self), len(sequence.tokens)
        self.changes += 1
        self.sequences.append(sequence)
        self.prompt_R[row] = len(sequence.prompt.tokens)
        self.base_R[row] = base
        self.made_R[row] = made
        self.limit_R[row] = sequence.params.max_tokens
        self.seed_R[row] = sequence.seed & 0xFFFF_FFFF_FFFF_FFFF
        self.live_R[row] = True
        self.strings_R[row] = bool(sequence.params.stop)
        if made:
            self._widen(made)
            self.tokens_RM[row, :made] = torch.tensor(sequence.tokens, device=self.device)
            self.logprobs_RM[row, :made] = torch.tensor(sequence.logprobs, device=self.device)

    def positions(self) -> np.ndarray:
        """int64 [B]: where the newest token of each row stands, which is also how many positions are filled before it."""
        return self.prompt_R[: len(self)] + self.made_R[: len(self)] - 1

    def places(self) -> np.ndarray:
        """int64 [B]: the same, counted from the beginning of each row's tail."""
        return self.positions() - self.base_R[: len(self)]

    def uniforms(self, first: int) -> Tensor:
        """float64 [B - first] for the next token of each row: a function of its seed and of how many tokens it has."""
        B = len(self)
        return torch.from_numpy(uniform(self.seed_R[first:B], self.made_R[first:B])).to(self.device)

    def with_strings(self, first: int) -> list[int]:
        """The running rows, from `first` on, that have stop strings."""
        B = len(self)
        rows: list[int] = (np.flatnonzero(self.strings_R[first:B] & self.live_R[first:B]) + first).tolist()
        return rows

    def record(self, first: int, token_B: Tensor, logprob_B: Tensor) -> None:
        """Write the next token of rows `first` and up. What a dead row writes is beyond its end, and overwritten next time."""
        B = len(self)
        made_B = self.made_R[first:B]
        self._widen(int(made_B.max()) + 1)
        self.last_R[first:B] = token_B
        column_B = torch.from_numpy(made_B).to(self.device)[:, None]
        self.tokens_RM[first:B].scatter_(1, column_B, token_B[:, None])
        self.logprobs_RM[first:B].scatter_(1, column_B, logprob_B[:, None])
        made_B += self.live_R[first:B]

    def _widen(self, needed: int) -> None:
        width = self.tokens_RM.shape[1]
        if needed > width:
            grow = (0, max(needed, 2 * width) - width)
            self.tokens_RM = torch.nn.functional.pad(self.tokens_RM, grow)
            self.logprobs_RM = torch.nn.functional.pad(self.logprobs_RM, grow)

    def tokens(self, row: int) -> list[int]:
        made: list[int] = self.tokens_RM[row, : int(self.made_R[row])].tolist()
        return made

    def logprobs(self, row: int) -> list[float]:
        made: list[float] = self.logprobs_RM[row, : int(self.made_R[row])].tolist()
        return made

    def compact(self) -> tuple[list[Sequence], list[int], list[int]]:
        """Drop the dead rows: live rows from the end move into the gaps. Returns what was dropped, which rows moved, and where to."""
        self.changes += 1
        B, live = len(self), self.live
        dropped = [self.sequences[row] for row in np.flatnonzero(~self.live_R[:B])]
        target = np.flatnonzero(~self.live_R[:live])
        source = live + np.flatnonzero(self.live_R[live:B])
        for column in (self.prompt_R, self.base_R, self.made_R, self.limit_R, self.seed_R, self.live_R, self.strings_R):
            column[target] = column[source]
        to, fro = torch.from_numpy(target).to(self.device), torch.from_numpy(source).to(self.device)
        for matrix in (self.last_R, self.tokens_RM, self.logprobs_RM):
            matrix[to] = matrix[fro]
        for new, old in zip(target.tolist(), source.tolist(), strict=True):
            self.sequences[new] = self.sequences[old]
        del self.sequences[live:]
        self.live_R[live:B] = False
        return dropped, source.tolist(), target.tolist()
