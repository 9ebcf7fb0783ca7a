"""transformers with torch's fused AdamW on a training step: the model's own loss, weights in float32, no clipping."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from protocol import Answer, Job, serve
from transformers import AutoModelForCausalLM


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).to(job["device"]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    lowered = job["dtype"] != "float32"

    def step(rows: list[list[int]]) -> Answer:
        clock = time.perf_counter()
        tokens_BT = torch.tensor(rows, device=job["device"])
        with torch.autocast(job["device"], torch.bfloat16, enabled=lowered):
            loss = model(input_ids=tokens_BT, labels=tokens_BT, use_cache=False).loss
        value, forward = loss.item(), time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        return {
            "rate": tokens_BT.numel() / (end - clock),
            "seconds": end - clock,
            "forward_seconds": forward - clock,
            "backward_seconds": backward - forward,
            "optimizer_seconds": end - backward,
            "loss": value,
        }

    step(job["rows"][0][:2])
    return lambda number: step(job["rows"][number + 1])


if __name__ == "__main__":
    serve(load, "transformers", "torch")
