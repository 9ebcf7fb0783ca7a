"""Measure the machine at hand as a `Chip`: how fast matrix products go, how fast memory is read, and how much there is.

A speed here is a ceiling: the best that square products of growing size reached, on as many threads as the library takes. Memory bandwidth is that
of reading an array that no ordinary cache holds, one slice a core. Other work on the machine lowers the figures, so run it
alone. fp32 is measured with numpy; bf16 and int8 with torch, where that is installed. `save` writes the file that `hardware.load_file` reads.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from trilaw.core.errors import RequestError
from trilaw.core.rundir import write_text
from trilaw.planner.hardware import QUANTITIES, Chip, Sourced
from trilaw.planner.units import COUNT, FLOPS, MEMORY, OPS, Dimension, write

SIZES = (256, 512, 1024, 2048)  # rows and columns of the square products
BUFFER_BYTES = 256 * 2**20


def calibrate(
    seconds: float = 10.0,
    *,
    name: str = "this-machine",
    sizes: tuple[int, ...] = SIZES,
    buffer_bytes: int = BUFFER_BYTES,
) -> Chip:
    """This machine as a chip, measured for about `seconds` in all.

    `sizes` are those of the matrix products; `buffer_bytes` is the array that is read (two of them exist for the copy): it must be
    larger than the caches. Raises RequestError for a time that is not positive, and where the system does not say how much memory it has.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise RequestError(f"Calibration needs a time of more than 0 seconds, not {seconds:g}.")
    torch = _torch()
    missing = [] if torch else ["bf16 and int8 were not measured: torch is not installed"]
    share = seconds / (5 if torch else 3)
    today = datetime.date.today().isoformat()
    memory = memory_bytes()

    def measured(value: float, unit: str, how: str, note: str = "") -> Sourced:
        return Sourced(value, unit, f"measured on this machine: {how}", today, note=note)

    products = f"numpy {np.__version__}, square products of up to {max(sizes)} rows"
    flops = {"fp32": measured(_numpy_products(sizes, share), FLOPS.si, products)}
    if torch:
        products = f"torch {torch.__version__} on {torch.get_num_threads()} threads, square products of up to {max(sizes)} rows"
        bf16 = _bf16_products(torch, sizes, share)
        if (
            bf16 < flops["fp32"].value
        ):  # many times slower where the processor has no bf16 arithmetic: nobody would use it
            missing.append(
                f"bf16 is left out: at {write(float(f'{bf16:.3g}'), FLOPS)} it is slower than fp32, so it is emulated"
            )
        else:
            flops["bf16"] = measured(bf16, FLOPS.si, products)
        int8 = _int8_products(torch, sizes, share)
        if int8 is None:
            missing.append("int8 was not measured: this torch has no product of int8 matrices for the CPU")
        else:
            flops["int8"] = measured(int8, OPS.si, products)
    read, copy = _memory_speeds(buffer_bytes, share)
    how = f"the largest element of {buffer_bytes / 2**20:.0f} MiB, {cores()} threads"
    return Chip(
        name=name,
        kind="cpu",
        flops=MappingProxyType(flops),
        memory_bytes=Sourced(float(memory), MEMORY.si, "the operating system of this machine", today),
        memory_bandwidth=measured(
            read, "B/s", how, f"a copy moves {copy / 1e9:.1f} GB/s, counting both the read and the write"
        ),
        node_size=Sourced(1.0, COUNT.si, "this machine", today),
        scale_up_size=Sourced(1.0, COUNT.si, "this machine", today),
        note="; ".join([f"{_cpu()}, {cores()} cores", *missing]) + ".",
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of this machine, or of the container around it where that is less. Raises RequestError where the system does not say."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        raise RequestError(
            "This system does not say how much memory it has: write a hardware file by hand, with memory."
        ) from None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown processor"


def _torch() -> Any:
    """torch, or None. By name: the planner must neither need torch nor load it for any other work than this."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _best(work: Callable[[], object], seconds: float) -> float:
    """Least time of one call, over calls that fill `seconds`; at least three, of which the first only warms up."""
    work()
    least, end, done = math.inf, time.perf_counter() + seconds, 0
    while done < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        least, done = min(least, time.perf_counter() - start), done + 1
    return max(least, 1e-9)


def _products(make: Callable[[int], Callable[[], object]], sizes: tuple[int, ...], seconds: float) -> float:
    """Best operations a second over square products; `make(n)` gives the call that does one of n rows, 2 n^3 operations."""
    best = 0.0
    for n in sizes:
        took = _best(make(n), seconds / len(sizes))
        best = max(best, 2.0 * n**3 / took)
        if took * 8 > seconds:  # the next one takes eight times as long
            break
    return best


def _numpy_products(sizes: tuple[int, ...], seconds: float) -> float:
    def make(n: int) -> Callable[[], object]:
        a_NN = np.random.default_rng(n).standard_normal((n, n), dtype=np.float32)
        out_NN = np.empty_like(a_NN)
        return lambda: np.matmul(a_NN, a_NN, out=out_NN)

    return _products(make, sizes, seconds)


def _bf16_products(torch: Any, sizes: tuple[int, ...], seconds: float) -> float:
    def make(n: int) -> Callable[[], object]:
        a_NN = torch.randn(n, n).to(torch.bfloat16)
        return lambda: torch.matmul(a_NN, a_NN)

    with torch.inference_mode():
        return _products(make, sizes, seconds)


def _int8_products(torch: Any, sizes: tuple[int, ...], seconds: float) -> float | None:
    """None where torch cannot: its int8 product is not a public function and is not in every build."""

    def make(n: int) -> Callable[[], object]:
        a_NN = torch.randint(-128, 127, (n, n), dtype=torch.int8)
        return lambda: torch._int_mm(a_NN, a_NN)

    try:
        with torch.inference_mode():
            return _products(make, sizes, seconds)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def _memory_speeds(buffer_bytes: int, seconds: float) -> tuple[float, float]:
    """Bytes a second of reading, and of copying (read and written ones both counted)."""
    source_N = np.ones(max(cores(), buffer_bytes // 4), dtype=np.float32)
    target_N = np.zeros_like(source_N)
    sources = np.array_split(source_N, cores())
    targets = np.array_split(target_N, cores())

    with ThreadPoolExecutor(cores()) as pool:  # numpy lets go of the interpreter while it works on an array
        read_time = _best(lambda: list(pool.map(np.max, sources)), seconds)
        copy_time = _best(lambda: list(pool.map(np.copyto, targets, sources)), seconds)
    return source_N.nbytes / read_time, 2 * source_N.nbytes / copy_time


def save(chip: Chip, path: Path | str) -> None:
    """Write `chip` as the file that `hardware.load_file` reads back, equal in every field. Raises RunError where it cannot be written."""
    write_text(Path(path), to_toml(chip))


def to_toml(chip: Chip) -> str:
    """The text of `chip`'s data file."""
    plain: dict[str, Any] = {"name": chip.name, "aliases": list(chip.aliases), "kind": chip.kind}
    plain |= {"maker": chip.maker, "released": chip.released, "data_centre": chip.data_centre, "note": chip.note}
    lines = [f"{key} = {_toml(value)}" for key, value in plain.items() if value not in ("", [])]
    for field, (key, dimension) in QUANTITIES.items():
        found = getattr(chip, field)
        if found is not None:
            lines += ["", f"[{key}]", *_quantity(found, dimension)]
    for format, speed in chip.flops.items():
        lines += ["", f"[flops.{format}]", *_quantity(speed, OPS if format.startswith("int") else FLOPS)]
    return "\n".join(lines) + "\n"


def _quantity(found: Sourced, dimension: Dimension) -> list[str]:
    return [f"{key} = {value}" for key, value in _pairs(found, dimension).items()]


def _pairs(found: Sourced, dimension: Dimension) -> dict[str, str]:
    texts = {"value": write(found.value, dimension), "source": found.source, "date": found.date}
    plain = Sourced(
        found.value, found.unit, found.source, found.date, found.others
    )  # with the bounds that follow from it
    texts |= {} if found.low == plain.low else {"low": write(found.low, dimension)}
    texts |= {} if found.high == plain.high else {"high": write(found.high, dimension)}
    texts |= {"note": found.note} if found.note else {}
    pairs = {key: _toml(text) for key, text in texts.items()}
    if found.others:
        rows = [", ".join(f"{k} = {v}" for k, v in _pairs(other, dimension).items()) for other in found.others]
        pairs["others"] = "[" + ", ".join(f"{{ {row} }}" for row in rows) + "]"
    return pairs


def _toml(value: Any) -> str:
    """A TOML value: JSON's spelling of texts, truths and lists of texts is TOML's, but for the one control character that JSON leaves bare."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
