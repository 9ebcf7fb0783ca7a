"""How much memory a device has left, and whether a model's weights go into it."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

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


def keep_freed() -> None:
    """From now on, memory that this process frees stays with it, for what it asks for next (glibc; elsewhere nothing changes).

    A training step frees what it keeps for backward and soon asks for as much again. The C library gives so much back to the system, which
    clears every page before it hands it out once more: 6 % of a step on two cores. The largest tensors, from 32 MiB on, are given back all the same.
    """
    trim, mapped = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(trim, 2**31 - 1)
        library.mallopt(mapped, 32 << 20)  # the most that it takes


def give_back_freed() -> None:
    """Return to the system, now, what this process has freed (glibc; elsewhere nothing happens): holes that a model's weights left are of no use to
    the form that is made of them, and count."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def drop_pages(address: int, size: int) -> None:
    """Let the system take back the memory at `address`, a view of a file that is not read any more (Linux; elsewhere nothing happens).

    A file that is read through views counts as this process's memory beside the copies made of it, until it is closed.
    """
    page, dont_need = mmap.PAGESIZE, 4  # MADV_DONTNEED: what is dropped is read from the file again
    first, end = -(-address // page) * page, (address + size) // page * page  # whole pages: others may hold neighbours
    if sys.platform == "linux" and end > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), dont_need)


def check_fits(arch: Arch, dtype: torch.dtype, device: torch.device, where: str) -> None:
    """Raises ModelError if the weights alone exceed the memory that is free on `device`."""
    need, free = arch.parameters() * dtype.itemsize, free_bytes(device)
    if need > free:
        name = str(dtype).removeprefix("torch.")
        raise ModelError(
            f"{where}: {arch.parameters():,} weights in {name} need {need / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free on "
            f"{device}; choose a smaller model or number format, or free memory."
        )
