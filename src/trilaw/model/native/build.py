"""Compile the C files of this folder with the machine's own C compiler, once, and load them.

Why C: between two matrix products of a decoding step PyTorch's operators take a call and a pass over memory for every addition, and its
attention is made for long queries; together they cost as much time as the products. Why at first use: wheels stay pure Python, and the
compiler can use all that this very processor has. Without a compiler, without OpenMP, or with TRILAW_NATIVE=0 in the environment, `library`
gives None and PyTorch's operators do the work.

The result lies in the user's cache, under a name made from the sources, the compiler and the processor, so that neither an update nor a home
folder shared by several machines ever loads what was made for something else.

OpenMP: the code is linked against no OpenMP library, so that its calls find the one that PyTorch has loaded. A second one would bring
threads of its own, and those of the first, which spin for a while after each of PyTorch's operators, would keep the cores from them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path

import torch

from trilaw.model.sources import cache_folder

SOURCES = (
    *("vector.h", "panels.h", "packing.h", "round.h", "softmax.h"),
    *("rows.c", "attention.c", "sample.c", "products.c", "matmul.c", "causal.c", "softmax.c", "head.c"),
)
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_SECONDS = 120  # a compiler that takes longer is given up


class _Unbuilt(Exception):
    """Why there is no library, one sentence."""


@cache
def library() -> ctypes.CDLL | None:
    """The functions, compiled if need be (about two seconds, once); None where they cannot be had."""
    return _library()[0]


def why_not() -> str | None:
    """Why there is no library, one sentence; None if there is one."""
    return _library()[1]


@cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return _load(), None
    except _Unbuilt as reason:
        return None, str(reason)


def _load() -> ctypes.CDLL:
    if os.environ.get("TRILAW_NATIVE", "1") == "0":
        raise _Unbuilt("TRILAW_NATIVE is 0 in the environment.")
    if platform.system() != "Linux":
        raise _Unbuilt("The C functions are built on Linux only.")
    if "OpenMP" not in torch.__config__.parallel_info():
        raise _Unbuilt("This build of PyTorch has no OpenMP.")
    compiler = _compiler()
    sources = {name: resources.files(__package__).joinpath(name).read_bytes() for name in SOURCES}
    try:
        about = [_run([compiler, "--version"]), platform.machine(), _processor(), *FLAGS, torch.__version__]
        digest = hashlib.sha256("\n".join(about).encode() + b"".join(sources.values())).hexdigest()[:16]
        folder = _folder()
        built = next(filter(_whole, folder.glob(f"{digest}-*.so")), None) or _compile(compiler, sources, folder, digest)
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise _Unbuilt(f"The C functions could not be built or loaded: {error}.") from None


def _compiler() -> str:
    named = os.environ.get("CC")
    for name in (named,) if named else ("gcc", "cc"):  # code of Clang asks for an OpenMP that is not there
        if found := shutil.which(name):
            return found
    if named:
        raise _Unbuilt(f"CC is '{named}' in the environment, and there is no such program.")
    raise _Unbuilt("There is no C compiler (cc or gcc) on this machine.")


def _folder() -> Path:
    """Where libraries are kept. What lies there is run, so nobody else may write there."""
    folder = cache_folder() / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise _Unbuilt(f"Others may write to {folder}: make it yours alone (chmod 700), or set TRILAW_HOME.")
    return folder


def _whole(built: Path) -> bool:
    """Whether a library is what was written: its name ends with what it holds. Loading half a file would end this process."""
    return built.stem.rpartition("-")[2] == _content(built)


def _content(built: Path) -> str:
    return hashlib.sha256(built.read_bytes()).hexdigest()[:16]


def _compile(compiler: str, sources: dict[str, bytes], target: Path, digest: str) -> Path:
    with tempfile.TemporaryDirectory(dir=target) as folder:
        for name, text in sources.items():
            Path(folder, name).write_bytes(text)
        objects = {str(Path(folder, n)): str(Path(folder, n).with_suffix(".o")) for n in sources if n.endswith(".c")}
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda o: _run([compiler, *FLAGS, "-c", o[0], "-o", o[1]]), objects.items()))
        result = Path(folder, "result.so")
        _run([compiler, "-shared", *objects.values(), "-o", str(result), "-lm"])  # no -fopenmp: see the file's head
        # Renamed at once: another process may be doing the same.
        return result.rename(target / f"{digest}-{_content(result)}.so")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise _Unbuilt(f"{command[0]} took longer than {_SECONDS} s.") from None
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no word"]
        )
        raise _Unbuilt(f"{command[0]} failed: {lines[0][:200]}.")
    return done.stdout


def _processor() -> str:
    """What -march=native depends on."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            kept = ("flags", "Features", "vendor_id", "cpu family", "model", "CPU part")
            return "".join(sorted({line for line in file if line.split("\t")[0].strip(" :") in kept}))
    except OSError:
        return platform.processor()
