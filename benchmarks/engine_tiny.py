"""How fast the engine samples from a tiny model, where Python and small kernels cost more than arithmetic.

A random Llama with 816 thousand weights (128 wide, 4 layers, 4 heads, vocabulary 40); all requests at once, 8 prompt tokens in groups
of 16 samples, temperature 1, a fixed number of new tokens, prompts included in the time. Best and median of the repeats are
printed, after one warm-up.

    python benchmarks/engine_tiny.py [--batch 512] [--new 48] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence

import torch

from trilaw.core.arch import Arch
from trilaw.core.protocols import Tokenizer
from trilaw.core.seeds import derive, rng
from trilaw.core.types import Message, Request, SamplingParams
from trilaw.engine import Engine
from trilaw.model.registry import build


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512, help="requests, all running at once")
    parser.add_argument("--group", type=int, default=16, help="requests with an equal prompt")
    parser.add_argument("--prompt", type=int, default=8, help="prompt tokens")
    parser.add_argument("--new", type=int, default=48, help="new tokens a request")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    arch = Arch(40, 128, 344, 4, 4, 4, 32, max_positions=512, rope_theta=1000.0, tied=False)
    model = build(arch, seed=0)
    engine = Engine(model, Numbers(arch.vocab_size), max_batch=options.batch)
    params = SamplingParams(max_tokens=options.new, ignore_eos=True)
    draw = rng(0, "prompts")
    prompts = [tuple(draw.randrange(arch.vocab_size) for _ in range(options.prompt)) for _ in range(options.batch)]
    seconds: list[float] = []
    steps = 0
    for repeat in range(options.repeats + 1):
        engine.submit(
            [
                Request(f"{repeat}-{i}", prompts[i // options.group], params, derive(0, repeat, i))
                for i in range(options.batch)
            ]
        )
        begin, steps, tokens = time.perf_counter(), 0, 0
        while engine.pending:
            tokens += sum(len(sample.tokens) for sample in engine.step())
            steps += 1
        if repeat:
            seconds.append(time.perf_counter() - begin)
    result = {
        "weights": arch.parameters(),
        "batch": options.batch,
        "prompt": options.prompt,
        "new": options.new,
        "threads": options.threads,
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "tokens_per_second_best": tokens / min(seconds),
        "tokens_per_second_median": tokens / statistics.median(seconds),
        "ms_per_step": 1000 * statistics.median(seconds) / steps,
    }
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:26} {value:,.1f}" if isinstance(value, float) else f"{key:26} {value}")


if __name__ == "__main__":
    main()
