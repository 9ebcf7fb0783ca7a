"""manifest.json: with what a run was made. Versions, machine, git commit, and every attempt that led to the result.

Numbers that cannot be had on a platform are null: the manifest informs, nothing depends on it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from trilaw.core.errors import RunError
from trilaw.core.rundir import read_json, write_json


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def trilaw_version() -> str:
    from trilaw import __version__

    return __version__


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _threads() -> int | None:
    """Threads that torch computes with; None in a process that has not imported it."""
    import sys

    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else None


def _accelerators() -> int | None:
    """GPUs that torch computes on; None in a process that has not imported it."""
    import sys

    torch = sys.modules.get("torch")
    return int(torch.cuda.device_count()) if torch is not None else None


def _git_commit() -> str | None:
    """The commit of the working folder, with "+" when tracked files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def describe() -> dict[str, Any]:
    """This machine and these versions, now."""
    return {
        "trilaw": trilaw_version(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": _cores(),
        "threads": _threads(),
        "accelerators": _accelerators(),
        "memory_bytes": _memory_bytes(),
        "git": _git_commit(),
    }


def begin(folder: Path, seed: int) -> None:
    """Write manifest.json, or add an attempt to it. The machine of the newest attempt stands at the top."""
    path = folder / "manifest.json"
    attempts = _attempts(path)
    here = describe()
    attempts.append({"started": _now(), "ended": None, "outcome": None, **here})  # a killed attempt keeps the two nulls
    write_json(path, {"version": 1, "seed": seed, **here, "attempts": attempts})


def end(folder: Path, outcome: str) -> None:
    """Close the newest attempt: "complete", "stopped" or "failed". On a full disk it stays open, and what filled it is heard of instead."""
    path = folder / "manifest.json"
    attempts = _attempts(path)
    if attempts:
        attempts[-1] |= {"ended": _now(), "outcome": outcome}
        with suppress(RunError):
            write_json(path, {**read_json(path), "attempts": attempts})


def _attempts(path: Path) -> list[dict[str, Any]]:
    """The attempts so far; none if the file is missing or broken, for no work may fail over its manifest."""
    try:
        found = read_json(path)["attempts"]
    except (RunError, TypeError, KeyError):
        return []
    return found if isinstance(found, list) and all(isinstance(attempt, dict) for attempt in found) else []


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
