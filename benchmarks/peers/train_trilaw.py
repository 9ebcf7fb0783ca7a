"""Trilaw on a training step: what `trilaw.training.pretrain` does at each step, on weights that were loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from protocol import Answer, Job, serve

from trilaw.model.loading import load as load_model
from trilaw.training.logprobs import token_logprobs
from trilaw.training.loop import autocast
from trilaw.training.losses.cross_entropy import cross_entropy
from trilaw.training.optim import Optimizer, OptimizerConfig
from trilaw.training.packing import Document, collate


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    model = load_model(job["model"], dtype=torch.float32, device=job["device"]).model.train()
    optimizer = Optimizer(model, OptimizerConfig(learning_rate=1e-5), steps=1000)
    dtype = getattr(torch, job["dtype"])

    def step(rows: list[list[int]]) -> Answer:
        clock = time.perf_counter()
        batch = collate([[Document(tuple(row), 0)] for row in rows], len(rows[0]), model.device)
        with autocast(dtype, model.device):
            hidden_BTD = model(batch.tokens_BT, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
        logprobs_N = token_logprobs(hidden_BTD[batch.select_BT], model.head_weight, batch.targets_N)
        loss = cross_entropy(logprobs_N, len(batch.targets_N))
        value, forward = loss.item(), time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = time.perf_counter()
        optimizer.step(1)
        end = time.perf_counter()
        return {
            "rate": batch.tokens / (end - clock),
            "seconds": end - clock,
            "forward_seconds": forward - clock,
            "backward_seconds": backward - forward,
            "optimizer_seconds": end - backward,
            "loss": value,
        }

    step(job["rows"][0][:2])
    return lambda number: step(job["rows"][number + 1])


if __name__ == "__main__":
    serve(load, "trilaw", "torch")
