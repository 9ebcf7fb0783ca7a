"""Gradients of weights, added up where they are kept.

Training goes through a batch in parts, and the gradients of all parts are summed in each weight's `.grad`. Autograd has backward give a
gradient in memory of its own and then adds it; a product that adds to what is there saves the memory, the filling of it and the addition.
Whoever writes there gives autograd None. This is for `loss.backward()`, after which gradients are read from `.grad`; `torch.autograd.grad`
has nothing to find once a weight has a gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kept_gradient(weight: Tensor) -> Tensor | None:
    """Where a weight's float32 gradient is kept, to add to; None if there is none yet, or somebody else computes with what backward gives."""
    if not weight.is_leaf or weight.grad is None or weight._backward_hooks or weight._post_accumulate_grad_hooks:
        return None
    fits = weight.grad.dtype == torch.float32 and weight.grad.is_contiguous()
    return weight.grad if fits else None
