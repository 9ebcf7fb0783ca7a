"""The bound of a rollout: every decoding step's matrix products, in the rows that run at a time."""

from __future__ import annotations

from collections.abc import Callable

from products import Products
from protocol import Answer, Job, rows, serve


def load(job: Job) -> Callable[[int], Answer]:
    products = Products(job)
    count = rows(job)
    products.step(count, least=0.1)

    def work(number: int) -> Answer:
        seconds = products.step(count)
        return {"rate": count / seconds, "seconds_a_step": seconds}

    return work


if __name__ == "__main__":
    serve(load, "torch")
