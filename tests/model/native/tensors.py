"""What the tests of this folder share: random tensors, comparisons bit by bit, a number of threads for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from trilaw.model.native import build, library

needs_library = pytest.mark.skipif(build.library() is None, reason=str(build.why_not()))
needs_bytes = pytest.mark.skipif(
    not library.multiplies_bytes(library.functions()), reason=build.why_not() or "the library has no 8-bit products"
)
needs_halves = pytest.mark.skipif(
    not library.multiplies_halves(library.functions()), reason=build.why_not() or "the library has no bfloat16 products"
)
DTYPES = [torch.float32, torch.bfloat16]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view({2: torch.int16, 4: torch.int32}[x.element_size()])


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(bits(a), bits(b))


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
