"""Trilaw on a GRPO step: rollouts, one update and new weights for the engine, as `trilaw.training.grpo` does at each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from protocol import Answer, Job, serve

from trilaw.core.types import Message, Problem, SamplingParams, Score
from trilaw.engine import Engine
from trilaw.model.loading import load as load_model
from trilaw.training.advantages import spread
from trilaw.training.grpo import rewards
from trilaw.training.grpo_config import GrpoConfig, GrpoOptimizer, Quantization
from trilaw.training.grpo_update import learn
from trilaw.training.optim import Optimizer
from trilaw.training.rollout import roll


class Digits:
    """A task that any model can do a little of: the reward is the share of digits in the text."""

    name = "digits"
    splits: tuple[str, ...] = ("train",)
    description = "digits pay"

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        return ()

    def verify(self, problem: Problem, text: str) -> Score:
        return Score(sum(c.isdigit() for c in text) / max(1, len(text)))

    def validate(self) -> list[str]:
        return []


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    loaded = load_model(job["model"], dtype=torch.float32, device=job["device"])
    model, dtype = loaded.model.train(), getattr(torch, job["dtype"])
    settings = GrpoOptimizer(learning_rate=job["learning_rate"], warmup_steps=0)
    optimizer = Optimizer(model, settings, steps=1000)
    kind = None if job["weights"] in ("float32", "bfloat16") else job["weights"]
    quantization = None if kind is None else Quantization(kind=kind)
    copy = None if kind or job["weights"] == "float32" else torch.bfloat16  # float32: the very weights that are trained
    engine = Engine(model, loaded.tokenizer, dtype=copy, quantization=kind)
    task, version = Digits(), 0

    def step(questions: Sequence[str], samples: int, new: int) -> Answer:
        nonlocal version
        config = GrpoConfig(
            base="model",
            task="digits",
            problems=len(questions),
            samples=samples,
            optimizer=settings,
            quantization=quantization,
        )
        problems = [
            Problem(str(place), (Message(role="user", content=text),), "") for place, text in enumerate(questions)
        ]
        params = SamplingParams(max_tokens=new, ignore_eos=True)
        began = time.perf_counter()
        groups = roll(engine, task, problems, samples=samples, params=params, key=(version,))
        rewards_PG = rewards(groups, config, (version,))
        sampled = time.perf_counter()
        version += 1
        update = learn(model, optimizer, version, groups, rewards_PG, config, dtype)
        engine.load_weights(model, version)
        trained = time.perf_counter()
        tokens = sum(len(sample.tokens) for group in groups for sample in group.samples)
        return {
            "rate": tokens / (trained - began),
            "sampling_rate": tokens / (sampled - began),
            "training_rate": tokens / (trained - sampled),
            "seconds": trained - began,
            "sampling_seconds": sampled - began,
            "training_seconds": trained - sampled,
            "trained_groups": float(spread(rewards_PG).sum()),  # a group of equal rewards is not trained on
            "logprob_gap_mean": update.gap_mean,
        }

    step(job["questions"][0][:2], 2, min(4, job["new"]))
    return lambda number: step(job["questions"][number + 1], job["samples"], job["new"])


if __name__ == "__main__":
    serve(load, "trilaw", "torch")
