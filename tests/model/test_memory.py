"""Memory that is given back holds nothing that anybody still needs."""

from __future__ import annotations

from pathlib import Path

import torch

from trilaw.model import memory


def test_dropped_pages_of_a_file_are_read_again(tmp_path: Path) -> None:
    numbers = torch.arange(1 << 16, dtype=torch.float32)
    numbers.numpy().tofile(tmp_path / "numbers")
    view = torch.from_file(str(tmp_path / "numbers"), size=len(numbers), dtype=torch.float32)
    memory.drop_pages(view[5:].data_ptr(), view[5:-5].nbytes)
    assert torch.equal(view, numbers)


def test_a_tensor_within_a_page_is_left_alone() -> None:
    numbers = torch.arange(64.0)
    memory.drop_pages(numbers[8:].data_ptr(), numbers[8:16].nbytes)
    assert torch.equal(numbers, torch.arange(64.0))


def test_giving_back_and_keeping_change_no_number() -> None:
    held, freed = torch.arange(1 << 18), torch.ones(1 << 20)
    del freed
    memory.give_back_freed()
    memory.keep_freed()
    assert torch.equal(held, torch.arange(1 << 18))
