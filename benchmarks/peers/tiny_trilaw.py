"""Trilaw's engine on a model of the default recipe's size. A round is several batches, so that it lasts long enough to be watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from protocol import Answer, Job, serve

from trilaw.core.arch import Arch
from trilaw.core.protocols import Tokenizer
from trilaw.core.seeds import derive, rng
from trilaw.core.types import Message, Request, SamplingParams
from trilaw.engine import Engine
from trilaw.model.registry import build

SECONDS = 3.0  # of a round, at least


class Numbers(Tokenizer):
    """The least tokenizer that will do: a token's text is its number."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.eos_ids: tuple[int, ...] = (0,)
        self.bos_id: int | None = None
        self.pad_id = 0

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return " ".join(map(str, tokens))

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        return "\n".join(m["content"] for m in messages)

    def encode_chat(self, messages: Sequence[Message], *, generation: bool = True) -> list[int]:
        return self.encode(self.render(messages))


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    arch = Arch(40, 128, 344, 4, 4, 4, 32, max_positions=512, rope_theta=1000.0, tied=False)
    engine = Engine(build(arch, seed=0), Numbers(arch.vocab_size), max_batch=job["batch"])
    params = SamplingParams(max_tokens=job["new"], ignore_eos=True)

    def batch(*key: int) -> tuple[int, int]:
        """(tokens, steps) of all requests, with prompts of their own."""
        draw = rng(*key, "prompts")
        groups = -(-job["batch"] // job["group"])
        prompts = [tuple(draw.randrange(arch.vocab_size) for _ in range(job["prompt"])) for _ in range(groups)]
        engine.submit(
            [Request(str(i), prompts[i // job["group"]], params, derive(*key, i)) for i in range(job["batch"])]
        )
        tokens = steps = 0
        while engine.pending:
            tokens += sum(len(sample.tokens) for sample in engine.step())
            steps += 1
        return tokens, steps

    def work(number: int) -> Answer:
        tokens = steps = count = 0
        clock = time.perf_counter()
        while (seconds := time.perf_counter() - clock) < SECONDS or count < 1:
            made, took = batch(number, count)
            tokens, steps, count = tokens + made, steps + took, count + 1
        return {"rate": tokens / seconds, "seconds": seconds, "milliseconds_a_step": 1000 * seconds / steps}

    batch(-1, 0)
    return work


if __name__ == "__main__":
    serve(load, "trilaw", "torch")
