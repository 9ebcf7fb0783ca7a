"""Muon: momentum whose update is orthogonalised, for the matrices inside the blocks (Jordan et al. 2024, "Muon: an optimizer for
hidden layers"; the scale that matches AdamW's root mean square is Liu et al. 2025, arXiv 2502.16982, section 2.2).

    M <- mu M + (1 - mu) G          U = NewtonSchulz(G + mu (M - G))          W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) U

Two departures from torch.optim.Muon, both for CPUs. Newton-Schulz runs in the dtype of the weights where bf16 products are not
native (there, bf16 is tens of times slower than fp32), and matrices of equal shape are orthogonalised in one batched product: at a
million weights the cost is kernel launches. Measured in docs/log.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# The quintic's coefficients (Jordan et al.): steep at zero, within [0.7, 1.2] after 5 rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices_GNM: Tensor, rounds: int = 5) -> Tensor:
    """Push the singular values of each matrix [..., N, M] towards 1 by the quintic Newton-Schulz iteration."""
    x: Tensor = matrices_GNM
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    return x.mT if flip else x


class Muon(torch.optim.Optimizer):
    """The optimizer above, with Nesterov momentum. Every parameter must be a matrix."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 6e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        dtype: torch.dtype | None = None,  # of the iteration; None: that of the weights
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices, not a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(parameter.shape)].append(parameter)
            for (rows, columns), parameters in alike.items():
                buffers = [self._buffer(parameter) for parameter in parameters]
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                torch._foreach_lerp_(buffers, gradients, 1 - momentum)
                directions = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))
                dtype = self._dtype or directions.dtype
                updates = orthogonalise(directions.to(dtype)).to(directions.dtype)
                torch._foreach_mul_(parameters, 1 - lr * decay)
                torch._foreach_add_(parameters, list(updates.unbind()), alpha=-lr * 0.2 * max(rows, columns) ** 0.5)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer
