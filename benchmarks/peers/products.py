"""The matrix products of a model and nothing else: what bounds any implementation in the same number format on the same library.

The model's own weights are used, those of every layer, so that they come from memory as in a real pass. Attention, norms, sampling, the
optimizer and prompts that are only read are left out.

Letters: N rows (tokens), weights are [out, in].
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from protocol import Job
from torch import Tensor

from trilaw.model.layers import Linear
from trilaw.model.loading import load
from trilaw.model.thin import linear

CHUNK = 2048  # rows at a time in training; more are not faster
HEAD_CHUNK = 1024  # and at the head, whose outputs are wide
SHARE = 4  # every so many layers are timed in training, and the others taken to be like them


class Products:
    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job["threads"])
        self.dtype, self.device = getattr(torch, job["dtype"]), job["device"]
        model = load(job["model"], dtype=self.dtype, device=self.device).model
        self.layers = [
            [module.weight.detach() for module in layer.modules() if isinstance(module, Linear)]
            for layer in model.model.layers
        ]
        self.head = model.head_weight.detach()

    def step(self, rows: int, least: float = 3.0) -> float:
        """Seconds of one decoding step of `rows` rows, the mean over at least `least` seconds."""
        weights = [weight for layer in self.layers for weight in layer] + [self.head]
        inputs = {weight.shape[1]: self._random(rows, weight.shape[1]) for weight in weights}
        return self._mean(lambda: [linear(inputs[weight.shape[1]], weight) for weight in weights], least)

    def training(self, rows: int, least: float = 1.0) -> tuple[float, float]:
        """Seconds a token of forward and backward, (in the layers, at the head), in batches of up to `rows` tokens."""
        some = [weight for layer in self.layers[::SHARE] for weight in layer]
        scale = len(self.layers) / len(self.layers[::SHARE])
        n, m = min(rows, CHUNK), min(rows, HEAD_CHUNK)
        inputs = {weight.shape[1]: self._random(n, weight.shape[1]) for weight in [*some, self.head]}
        blocks = [self._trio(weight, inputs[weight.shape[1]]) for weight in some]
        head = self._trio(self.head, inputs[self.head.shape[1]][:m])
        of_blocks = self._mean(lambda: [trio() for trio in blocks], least)
        return of_blocks * scale / n, self._mean(head, least) / m

    def _trio(self, weight: Tensor, x_NI: Tensor) -> Callable[[], None]:
        """The product of forward and the two of backward."""

        def products() -> None:
            slope_NO = F.linear(x_NI, weight)  # stands in for the gradient, which has its shape
            slope_NO @ weight
            slope_NO.T @ x_NI

        return products

    def _random(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=self.device).to(self.dtype)

    @torch.inference_mode()
    def _mean(self, work: Callable[[], object], least: float) -> float:
        work()
        self._wait()
        count, clock = 0, time.perf_counter()
        while (seconds := time.perf_counter() - clock) < least or count < 2:
            work()
            self._wait()
            count += 1
        return seconds / count

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
