"""Trilaw on a training step: what `trilaw.training.pretrain` does at each step, on weights that were loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from protocol import Answer, Job, serve

from trilaw.model.loading import load as load_model
from trilaw.training.batch import auto_micro_tokens
from trilaw.training.optim import Optimizer, OptimizerConfig
from trilaw.training.packing import Document
from trilaw.training.pretrain import completions
from trilaw.training.supervised import learn


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    model = load_model(job["model"], dtype=torch.float32, device=job["device"]).model.train()
    optimizer = Optimizer(model, OptimizerConfig(learning_rate=1e-5), steps=1000)
    dtype = getattr(torch, job["dtype"])
    micro_tokens = auto_micro_tokens(model.arch, model.device, dtype=dtype)

    def step(rows: list[list[int]]) -> Answer:
        clock = time.perf_counter()
        batch = completions([Document(tuple(row), len(row)) for row in rows])
        update = learn(model, optimizer, 1, batch, micro_tokens, dtype)
        seconds = time.perf_counter() - clock
        return {"rate": sum(map(len, rows)) / seconds, "seconds": seconds, "loss": update.loss}

    step(job["rows"][0][:2])
    return lambda number: step(job["rows"][number + 1])


if __name__ == "__main__":
    serve(load, "trilaw", "torch")
