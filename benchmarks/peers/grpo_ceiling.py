"""The bound of a GRPO step: the matrix products of decoding, then of forward and backward.

Training counts the least work that an exact step needs: the prompt of a group once, the head at completion tokens only.
`plain_training_seconds` is what it takes when every sample brings its own prompt.
"""

from __future__ import annotations

from collections.abc import Callable

from products import Products
from protocol import Answer, Job, serve


def load(job: Job) -> Callable[[int], Answer]:
    products = Products(job)
    samples, new = job["samples"], job["new"]

    def work(number: int) -> Answer:
        prompts = job["prompts"][number + 1]
        rows = len(prompts) * samples
        of_layers, of_head = products.training(rows * new)
        sampling = new * products.step(rows, least=2.0)
        fresh, read = rows * (new - 1), sum(map(len, prompts))  # a sample's last token passes no layer
        training = (fresh + read) * of_layers + rows * new * of_head
        return {
            "rate": rows * new / (sampling + training),
            "sampling_rate": rows * new / sampling,
            "training_rate": rows * new / training,
            "seconds": sampling + training,
            "sampling_seconds": sampling,
            "training_seconds": training,
            "plain_training_seconds": training + (samples - 1) * read * of_layers,
        }

    return work


if __name__ == "__main__":
    serve(load, "torch")
