"""Cross-entropy in nats: the mean over tokens of -log p(token), for pretrain and sft.

The mean is over the GLOBAL batch, so a micro-batch returns its share: its sum over the batch's count. The shares add up to the same
loss and gradient for any micro-batch size.
"""

from __future__ import annotations

from torch import Tensor


def cross_entropy(logprobs_N: Tensor, total: int) -> Tensor:
    """This micro-batch's share of the batch's loss; `total` counts the predicted tokens of the whole batch."""
    return -logprobs_N.sum() / total
