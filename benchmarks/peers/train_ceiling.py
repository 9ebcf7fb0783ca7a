"""The bound of a training step: the matrix products of forward and backward, at the head for every token that predicts another."""

from __future__ import annotations

from collections.abc import Callable

from products import Products
from protocol import Answer, Job, serve


def load(job: Job) -> Callable[[int], Answer]:
    products = Products(job)

    def work(number: int) -> Answer:
        rows = job["rows"][number + 1]
        tokens = sum(map(len, rows))
        of_layers, of_head = products.training(tokens)
        seconds = tokens * of_layers + (tokens - len(rows)) * of_head
        return {"rate": tokens / seconds, "seconds": seconds}

    return work


if __name__ == "__main__":
    serve(load, "torch")
