"""One batch through the model: the prompts of new rows, or the newest token of every row. Holds the weights and the cache.

Shapes: B rows, T tokens, S positions, V vocabulary, P prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.engine.cache import Cache
from trilaw.engine.rows import Rows
from trilaw.engine.sequence import Prompt
from trilaw.model.llama import CausalLM
from trilaw.model.registry import empty

_PREFILL_TOKENS = 4096  # of one pass over prompts, padding included; a longer prompt goes alone
_CACHE_BYTES = 4 << 30  # default limit of the cache: a constant, so that batches do not depend on free memory


class Runner:
    """The model to sample from, shared with the trainer or (in another dtype) a copy, and the cache that its passes fill."""

    def __init__(self, model: CausalLM, dtype: torch.dtype | None, max_cache_tokens: int | None) -> None:
        self.arch = model.arch
        self.device = model.device
        self.dtype = dtype or model.dtype
        self._own: CausalLM | None = None  # a copy in another dtype, where one is held
        self.model = self._take(model)
        roomy = _CACHE_BYTES // self.arch.kv_bytes_per_token(self.dtype.itemsize)
        self.cache = Cache(self.arch, max_cache_tokens or max(roomy, self.arch.max_positions), self.dtype, self.device)

    def load(self, model: CausalLM) -> None:
        """Use these weights. Raises ModelError if they have another architecture or device."""
        if _shape(model.arch) != _shape(self.arch) or model.device != self.device:
            raise ModelError("The new weights have another architecture or device; make a new Engine for them.")
        self.model = self._take(model)

    def prefill(self, rows: Rows, first: int) -> Tensor:
        """Read the prompts of rows `first` and up, each distinct one once: the next token's logits [B - first, V]."""
        new = rows.sequences[first:]
        holder = {s.prompt: row for row, s in enumerate(rows.sequences[:first]) if s.prompt.logits_V is not None}
        leaders: list[tuple[int, Prompt]] = []
        for row, sequence in enumerate(new, first):
            sequence.shared = sequence.prompt in holder
            if not sequence.shared:
                holder[sequence.prompt] = row
                leaders.append((row, sequence.prompt))
        longest = max(len(s.prompt.tokens) for s in new)
        self.cache.fit(len(rows), longest)
        for batch in _batches(leaders):
            self._read([row for row, _ in batch], [prompt for _, prompt in batch])
        sharing = [row for row, s in enumerate(new, first) if s.shared]
        if sharing:
            source = [holder[rows.sequences[row].prompt] for row in sharing]
            self.cache.copy(self.tensor(source), self.tensor(sharing), longest)
        logits_BV = torch.stack([s.prompt.logits_V for s in new if s.prompt.logits_V is not None])
        for sequence in new:
            if not sequence.prompt.waiting:
                sequence.prompt.logits_V = None
        return logits_BV

    def _read(self, rows: list[int], prompts: list[Prompt]) -> None:
        """One pass over prompts, padded on the right: their keys and values into these rows, their last logits to the prompts.

        Padding stands after every real token, so the causal mask hides it; later tokens overwrite what it left in the cache.
        """
        lengths = [len(p.tokens) for p in prompts]
        T = max(lengths)
        tokens_PT = self.tensor([[*p.tokens, *[0] * (T - len(p.tokens))] for p in prompts])
        mask_11TT = torch.ones(T, T, dtype=torch.bool, device=self.device).tril_()[None, None]
        hidden_PTD = self.model(tokens_PT, mask_BTS=mask_11TT, cache=self.cache.filling(self.tensor(rows)))
        last_P = self.tensor(lengths) - 1
        logits_PV = self.model.logits(hidden_PTD[torch.arange(len(prompts), device=self.device), last_P])
        for prompt, logits_V in zip(prompts, logits_PV, strict=True):
            prompt.logits_V = logits_V

    def decode(self, rows: Rows) -> Tensor:
        """The newest token of every row through the model: the next token's logits [B, V]."""
        B = len(rows)
        positions = rows.positions()
        span = int(positions.max()) + 1
        self.cache.fit(B, span)
        position_B = torch.from_numpy(positions).to(self.device)
        mask_B11S = (torch.arange(span, device=self.device) <= position_B[:, None])[:, None, None]
        hidden_B1D = self.model(
            rows.last_R[:B, None],
            positions_BT=position_B[:, None],
            mask_BTS=mask_B11S,
            cache=self.cache.appending(position_B, span),
        )
        return self.model.logits(hidden_B1D[:, 0])

    def compact(self, rows: Rows) -> None:
        """Drop the dead rows, here and in the cache."""
        source, target = rows.compact()
        if source:
            self.cache.copy(self.tensor(source), self.tensor(target), int(rows.positions().max()))

    def tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _take(self, model: CausalLM) -> CausalLM:
        """The model to sample from: this one, or the engine's own copy, set to its weights."""
        if model.dtype == self.dtype:
            return model
        if self._own is None:
            self._own = empty(self.arch).to(self.device, self.dtype).requires_grad_(False).eval()
        self._own.load_state_dict(model.state_dict())
        return self._own


def _shape(arch: Arch) -> Arch:
    """What of an architecture the weights and their use depend on."""
    return replace(arch, bos_id=None, eos_ids=(), extra={})


def _batches(leaders: list[tuple[int, Prompt]]) -> Iterator[list[tuple[int, Prompt]]]:
    """Rows and their prompts, shortest first, in batches whose padded size stays within the budget."""
    batch: list[tuple[int, Prompt]] = []
    for row, prompt in sorted(leaders, key=lambda leader: len(leader[1].tokens)):
        if batch and (len(batch) + 1) * len(prompt.tokens) > _PREFILL_TOKENS:
            yield batch
            batch = []
        batch.append((row, prompt))
    if batch:
        yield batch
