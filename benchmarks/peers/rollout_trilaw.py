"""Trilaw's engine on a rollout. `weights` of the job may be a format that only the engine knows (int8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from protocol import Answer, Job, rollout, serve

from trilaw.core.protocols import collect
from trilaw.core.seeds import derive
from trilaw.core.types import Request, SamplingParams
from trilaw.engine import Engine
from trilaw.model.loading import load as load_model


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    plain = job["weights"] in ("float32", "bfloat16")
    loaded = load_model(
        job["model"], dtype=getattr(torch, job["weights"] if plain else job["dtype"]), device=job["device"]
    )
    engine = Engine(loaded.model, loaded.tokenizer, quantization=None if plain else job["weights"], consume=True)

    def roll(prompts: Sequence[Sequence[int]], samples: int, new: int) -> int:
        params = SamplingParams(temperature=0.0 if job["greedy"] else 1.0, max_tokens=new, ignore_eos=True)
        requests = [
            Request(f"{place}/{sample}", prompt, params, derive(place, sample))
            for place, prompt in enumerate(map(tuple, prompts))
            for sample in range(samples)
        ]
        return sum(len(sample.tokens) for sample in collect(engine, requests))

    return rollout(job, roll)


if __name__ == "__main__":
    serve(load, "trilaw", "torch")
