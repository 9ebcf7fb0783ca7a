"""One request on its way to a sample: its prompt, its stop strings, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass

from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import SamplingParams


@dataclass(eq=False)
class Prompt:
    """The tokens of a prompt, one object for all requests that share them."""

    tokens: tuple[int, ...]
    waiting: int = 0  # requests in the queue
    logits_V: Tensor | None = None  # for the first new token; kept while requests wait for it


@dataclass(eq=False)
class Sequence:
    """A request that was accepted."""

    id: str
    prompt: Prompt
    params: SamplingParams
    seed: int
    submitted: float  # clock, seconds
    shared: bool = False  # its prompt was computed for another request
    anchor: int = 0  # stop strings are looked for from this token on

    @property
    def reserve(self) -> int:
        """The most positions that it may come to fill."""
        return len(self.prompt.tokens) + self.params.max_tokens

    def flops(self, arch: Arch, completion: int) -> float:
        """Of the forward passes that `completion` tokens took (the last one never went through the model)."""
        if completion == 0:
            return 0.0
        prompt = len(self.prompt.tokens)
        total = prompt + completion - 1
        pairs = total * (total + 1) / 2
        if self.shared:
            return arch.forward_flops(completion - 1, pairs - prompt * (prompt + 1) / 2)
        return arch.forward_flops(total, pairs, completion)

    def stopped_text(self, tokens: List[int], tokenizer: Tokenizer) -> str | None:
        """The text before the first stop string, or None while there is none. Called after each new token.

        Only the tail is decoded each time. The tail is cut shorter once what is left of it still covers any stop string that the next
        token could complete; four characters are to spare for halves of characters and spaces that decoders drop at the front.
        """
        tail = tokenizer.decode(tokens[self.anchor :])
        if any(stop in tail for stop in self.params.stop):
            text = tokenizer.decode(tokens)
            if (cut := first_stop(text, self.params.stop)) is not None:
                return text[:cut]
        longest = max(map(len, self.params.stop))
        window = longest + 8
        if len(tokens) - self.anchor >= 2 * window and len(tokenizer.decode(tokens[-window:])) >= longest + 4:
            self.anchor = len(tokens) - window
        return None


def first_stop(text: str, stops: List[str]) -> int | None:
    """Where the earliest stop string begins."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=None)


def settled(text: str, stops: List[str]) -> str:
    """The part of a growing text that later tokens cannot take back: no half character, no beginning of a stop string at its end."""
    text = text.rstrip("\ufffd")
    if (cut := first_stop(text, stops)) is not None:
        return text[:cut]
    held = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - held]
