"""The bound of a single stream: reading every weight once a token, at the rate at which this machine sums a long vector."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from protocol import Answer, Job, serve

from trilaw.model.hf import read_arch

BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0}  # scales of groups not counted
ELEMENTS = 1 << 28  # 1 GiB, which no cache holds
SECONDS = 3.0  # of a round, at least


def load(job: Job) -> Callable[[int], Answer]:
    torch.set_num_threads(job["threads"])
    read = (
        read_arch(Path(job["model"])).parameters() * BYTES[job["weights"]]
    )  # an untied embedding too, though a token needs one row
    vector = torch.ones(ELEMENTS, device=job["device"])
    float(vector.sum())

    def work(number: int) -> Answer:
        count, clock = 0, time.perf_counter()
        while (seconds := time.perf_counter() - clock) < SECONDS or count < 1:
            float(vector.sum())
            count += 1
        bandwidth = count * vector.nbytes / seconds
        return {"rate": bandwidth / read, "gigabytes_a_second": bandwidth / 1e9}

    return work


if __name__ == "__main__":
    serve(load, "torch")
