"""The library is compiled once and kept; whatever stands against it becomes a reason, never an error or a crash.

Each load runs in a process of its own, forked from one that has PyTorch but has loaded nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from trilaw.model.native import build, library

if platform.system() != "Linux" or "OpenMP" not in torch.__config__.parallel_info():
    pytest.skip("the C functions are built on Linux, for a PyTorch with OpenMP", allow_module_level=True)

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="there is no gcc on this machine")


@dataclass(frozen=True)
class Loaded:
    """What came of one process: its exit status, its reason (None: it has a library), its OpenMP libraries."""

    status: int | None
    why: str | None = None
    openmp: frozenset[str] = frozenset()
    openmp_before: frozenset[str] = frozenset()


def openmp() -> frozenset[str]:
    files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    return frozenset(file for file in files if "omp" in Path(file).name)


def child(environment: dict[str, str], result: Connection) -> None:
    os.environ.pop("TRILAW_NATIVE", None)
    os.environ.update(environment)
    before, found = openmp(), build.library()
    assert (found is None) == (build.why_not() is not None)
    assert (library.functions() is None) == (found is None)
    result.send((build.why_not(), openmp(), before))


def load(*environments: dict[str, str]) -> list[Loaded]:
    """A process for each environment, all at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trilaw.model.native.library", "pytest"])
    runs = []
    for environment in environments:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(environment, there))
        process.start()
        there.close()
        runs.append((process, here))
    found = []
    for process, here in runs:
        process.join(60)
        said = here.poll() and process.exitcode == 0
        found.append(Loaded(process.exitcode, *here.recv()) if said else Loaded(process.exitcode))
    return found


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@dataclass(frozen=True)
class Home:
    """A cache that two processes have just filled at once, and the compiler they used, which writes down its calls."""

    folder: Path
    compiler: str
    calls: Path
    first: Sequence[Loaded]

    @property
    def environment(self) -> dict[str, str]:
        return {"TRILAW_HOME": str(self.folder), "CC": self.compiler}

    @property
    def built(self) -> Path:
        (file,) = (self.folder / "native").glob("*.so")
        return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    if GCC is None:
        pytest.skip("there is no gcc on this machine")
    folder = tmp_path_factory.mktemp("native")
    calls = folder / "calls"
    compiler = script(folder / "compiler", f'echo "$1" >> {calls}\nexec {GCC} "$@"')
    environment = {"TRILAW_HOME": str(folder / "home"), "CC": compiler}
    return Home(folder / "home", compiler, calls, load(environment, environment))


@pytest.fixture
def copier(home: Home, tmp_path: Path) -> Callable[..., str]:
    """`copier(version=None)`: a compiler that gives out the library that `home` has."""

    def make(version: str | None = None) -> str:
        about = f"exec {GCC} --version" if version is None else f"printf '{version}'; exit"
        output = 'while [ "$1" != -o ]; do shift; done'
        return script(tmp_path / "copier", f'[ "$1" = --version ] && {{ {about}; }}\n{output}\ncp {home.built} "$2"')

    return make


def reason(environment: dict[str, str]) -> str:
    (found,) = load(environment)
    assert found.status == 0, found
    assert found.why is not None
    return found.why


def test_two_processes_at_once_both_get_the_library(home: Home) -> None:
    assert [(one.status, one.why) for one in home.first] == [(0, None)] * 2


def test_the_cache_is_the_users_own_and_holds_one_library_and_no_scraps(home: Home) -> None:
    assert not [path for path in home.built.parent.iterdir() if path.is_dir()]
    assert home.built.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_load_compiles_nothing(home: Home) -> None:
    made, lines = home.built.stat(), len(home.calls.read_text().splitlines())
    (found,) = load(home.environment)
    assert (found.status, found.why) == (0, None)
    assert set(home.calls.read_text().splitlines()[lines:]) <= {"--version"}
    assert home.built.stat() == made


def test_it_brings_no_openmp_of_its_own(home: Home) -> None:
    for found in home.first:
        assert found.openmp == found.openmp_before != frozenset()


def test_another_compiler_has_a_file_of_its_own(home: Home, copier: Callable[..., str], tmp_path: Path) -> None:
    for version in ("1", "2", "1"):
        (found,) = load({"TRILAW_HOME": str(tmp_path), "CC": copier(version)})
        assert (found.status, found.why) == (0, None)
    names = {file.name for file in (tmp_path / "native").glob("*.so")}
    assert len(names) == 2
    assert home.built.name not in names


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "a thousandth of it": lambda whole: whole[: len(whole) // 1000],
    "a fiftieth of it": lambda whole: whole[: len(whole) // 50],
    "half of it": lambda whole: whole[: len(whole) // 2],
    "all but its end": lambda whole: whole[:-1],
    "a bit turned": lambda whole: (
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    ),
    "zeros in the middle": lambda whole: (
        whole[: len(whole) // 4] + bytes(len(whole) // 2) + whole[len(whole) // 4 * 3 :]
    ),
    "a byte more": lambda whole: whole + b"0",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_anew(home: Home, copier: Callable[..., str], tmp_path: Path, damage: str) -> None:
    whole = home.built.read_bytes()
    damaged = tmp_path / "native" / home.built.name
    damaged.parent.mkdir()
    damaged.write_bytes(DAMAGES[damage](whole))
    assert damaged.read_bytes() != whole
    (found,) = load({"TRILAW_HOME": str(tmp_path), "CC": copier()})
    assert (found.status, found.why) == (0, None)
    assert list(damaged.parent.iterdir()) == [damaged]
    assert damaged.read_bytes() == whole


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert "TRILAW_NATIVE" in reason({"TRILAW_HOME": str(tmp_path), "TRILAW_NATIVE": "0"})
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_reason_names_two(tmp_path: Path) -> None:
    assert reason({"TRILAW_HOME": str(tmp_path), "PATH": "", "CC": ""}) == (
        "There is no C compiler (cc or gcc) on this machine."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("named", ["/nowhere/cc", "no-such-compiler", "cc -O2"])
def test_a_compiler_that_is_not_there_is_named(tmp_path: Path, named: str) -> None:
    why = reason({"TRILAW_HOME": str(tmp_path), "CC": named})
    assert why == f"CC is '{named}' in the environment, and there is no such program."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fails", "says", "expected"),
    [
        ("--version", "echo out of tape >&2", "out of tape"),
        ("-O3", "echo note: rows >&2; echo rows.c:7: fatal error: out of ink >&2", "fatal error: out of ink"),
        ("-shared", "echo cannot find -lm >&2", "cannot find -lm"),
        ("-shared", ":", "no word"),
        ("--version", r"printf 'a \377 tape\n' >&2", "a \ufffd tape"),
        ("-O3", r"printf 'rows.c: \377 error\n' >&2", "rows.c: \ufffd error"),
    ],
)
def test_a_compiler_that_fails_is_quoted(tmp_path: Path, fails: str, says: str, expected: str) -> None:
    compiler = script(tmp_path / "compiler", f'[ "$1" = {fails} ] && {{ {says}; exit 1; }}\nexit 0')
    home = tmp_path / "home"
    why = reason({"TRILAW_HOME": str(home), "CC": compiler})
    assert compiler in why
    assert expected in why
    assert not list(home.glob("native/*"))


def test_a_compiler_that_makes_nothing_is_a_reason(tmp_path: Path) -> None:
    assert reason({"TRILAW_HOME": str(tmp_path / "home"), "CC": script(tmp_path / "compiler", "exit 0")})


def test_a_compiler_that_cannot_run_is_a_reason(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("no program")
    compiler.chmod(0o755)
    assert str(compiler) in reason({"TRILAW_HOME": str(tmp_path / "home"), "CC": str(compiler)})


def test_a_version_may_be_any_bytes(home: Home, copier: Callable[..., str], tmp_path: Path) -> None:
    (found,) = load({"TRILAW_HOME": str(tmp_path / "home"), "CC": copier(r"cc \377")})
    assert (found.status, found.why) == (0, None)


@needs_gcc
def test_a_library_for_another_openmp_is_a_reason(tmp_path: Path) -> None:
    text = "void __kmpc_fork_call(void); void trilaw_gated(void) { __kmpc_fork_call(); }"
    linked = f'while [ "$1" != -o ]; do shift; done\necho "{text}" | {GCC} -shared -fPIC -x c - -o "$2"'
    compiler = script(tmp_path / "compiler", f'[ "$1" = -shared ] || exit 0\n{linked}')
    assert "__kmpc_fork_call" in reason({"TRILAW_HOME": str(tmp_path / "home"), "CC": compiler})


@needs_gcc
def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    assert str(home) in reason({"TRILAW_HOME": str(home)})


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "native"
    folder.mkdir()
    folder.chmod(0o777)
    (found,) = load({"TRILAW_HOME": str(tmp_path)})
    assert found.status == 0
    assert "Others may write to" in str(found.why)
    assert not list(folder.iterdir())
