"""One request on its way to a sample: its prompt, its stop strings, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass, field

from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import SamplingParams
from trilaw.engine.pages import Node


@dataclass(eq=False)
class Prompt:
    """Tokens to be read before sampling goes on, one object for all requests that share them."""

    tokens: tuple[int, ...]
    waiting: int = 0  # requests in the queue
    nodes: list[Node] = field(default_factory=list)  # pages that it holds while requests wait
    done: int = 0  # tokens whose keys and values are there
    logits_V: Tensor | None = None  # for the first new token, once all is read
    fresh: int = 0  # tokens that the model read for it and that no request has been charged for
    flops: float = 0.0  # what they took
    grouped: bool = False  # several requests share it


@dataclass(eq=False)
class Sequence:
    """A request that was accepted."""

    id: str
    prompt: Prompt
    params: SamplingParams
    seed: int
    submitted: float  # clock, seconds
    order: int = 0  # of submission
    reading: Prompt | None = None  # after a preemption: the prompt and all that was sampled
    nodes: list[Node] = field(default_factory=list)  # the shared pages that its row attends to
    tokens: list[int] = field(default_factory=list)  # sampled before a preemption
    logprobs: list[float] = field(default_factory=list)
    anchor: int = 0  # stop strings are looked for from this token on
    fresh: int | None = None  # prompt tokens that were read for it, at its first admission
    flops: float = 0.0  # of the prompts read for it, and of the steps before a preemption

    @property
    def source(self) -> Prompt:
        """What has to be read before its next token."""
        return self.reading or self.prompt

    @property
    def reserve(self) -> int:
        """The most positions that it may come to fill."""
        return len(self.prompt.tokens) + self.params.max_tokens

    def admit(self) -> None:
        """It takes over the cost of reading its prompt, if nobody has yet."""
        source = self.source
        if self.fresh is None:
            self.fresh = min(source.fresh, len(source.tokens))
        self.flops += source.flops
        source.fresh, source.flops = 0, 0.0

    def decoded(self, arch: Arch, made: int) -> float:
        """FLOPs of its decoding steps since it was admitted, now that it has `made` tokens (the last never went through the model)."""
        first = len(self.source.tokens)
        steps = len(self.prompt.tokens) + made - 1 - first
        return arch.forward_flops(steps, steps * first + steps * (steps + 1) / 2) if steps > 0 else 0.0

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
