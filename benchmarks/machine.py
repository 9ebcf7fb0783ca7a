"""What the machine tells about itself: its processor, who uses the cores, and what a process and its children took.

Linux's /proc is read; elsewhere these readings are None, and a benchmark says that it could not see whether others disturbed it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc")
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "i8mm", "bf16")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(threads: int) -> dict[str, Any]:
    """The machine in words, for the file of results."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "instructions": [flag for flag in _FLAGS if flag in (_cpuinfo("flags") or _cpuinfo("Features") or "").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(memory, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


class Busy(NamedTuple):
    """Seconds since the machine started, summed over its cores."""

    used: float  # by all processes and interrupts
    stolen: float  # by other guests of a virtual machine's host


def busy() -> Busy | None:
    try:
        numbers = (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(n) / os.sysconf("SC_CLK_TCK") for n in numbers[:8])
    return Busy(user + nice + system + irq + softirq, steal)


def family(pid: int) -> list[int]:
    """A process, its descendants, and what else is in its process group."""
    known = {pid}
    table = {one: (int(fields[1]), int(fields[2])) for one, fields in _stats()}
    grown = True
    while grown:
        found = {one for one, (parent, group) in table.items() if parent in known or group == pid} - known
        known |= found
        grown = bool(found)
    return sorted(known)


def cpu_seconds(pid: int) -> float:
    """Processor time of a process's family, of children that ended too."""
    mine = set(family(pid))
    ticks = sum(sum(map(int, fields[11:15])) for one, fields in _stats() if one in mine)
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float | None:
    """Peak resident memory of each process of the family that lives, added up (pages that two of them share count twice)."""
    peaks = []
    for one in family(pid):
        try:
            status = (PROC / str(one) / "status").read_text(encoding="utf-8")
        except OSError:
            continue
        peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")]
    return sum(peaks) if peaks else None


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Every process and the fields of its stat file that follow its name: state, parent, group, ..."""
    for folder in PROC.glob("[0-9]*"):
        try:
            line = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended just now
        yield int(folder.name), line.rpartition(")")[2].split()


def _cpuinfo(key: str) -> str | None:
    try:
        lines = (PROC / "cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), None)
