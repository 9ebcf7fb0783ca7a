"""How much memory a device has left, and whether a model's weights go into it."""

from __future__ import annotations

import os

import torch

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError


def free_bytes(device: torch.device) -> int:
    """Memory that a new allocation could take without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            table = dict(line.split(":", 1) for line in lines)
        return int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:  # no Linux: half of the physical memory counts as free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError, AttributeError):
        return 4 << 30


def check_fits(arch: Arch, dtype: torch.dtype, device: torch.device, where: str) -> None:
    """Raises ModelError if the weights alone exceed the memory that is free on `device`."""
    need, free = arch.parameters() * dtype.itemsize, free_bytes(device)
    if need > free:
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"{where}: {arch.parameters():,} weights in {name} need {need / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free on "
            f"{device}; choose a smaller model or number format, or free memory."
        )
