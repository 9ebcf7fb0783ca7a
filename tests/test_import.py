"""`import trilaw` is light, and every public name is there."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import time

import pytest

import trilaw

HEAVY = ("torch", "numpy", "pydantic", "transformers", "matplotlib", "rich", "typer", "scipy")


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_package_brings_in_nothing_heavy() -> None:
    out = fresh(f"import sys, trilaw; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert out.strip() == "[]"


def test_the_package_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import trilaw; print(time.perf_counter() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.2


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys\nfrom trilaw.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    began = time.monotonic()
    assert fresh(code).splitlines()[-1] == "[]"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", trilaw.__all__)
def test_public_names_are_there_and_say_what_they_do(name: str) -> None:
    value = getattr(trilaw, name)
    home = importlib.import_module(trilaw._HOMES[name])
    assert value is getattr(home, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_names_lists_and_dir_agree() -> None:
    assert set(trilaw.__all__) == set(trilaw._HOMES)
    assert list(trilaw.__all__) == sorted(trilaw.__all__)
    assert set(trilaw.__all__) <= set(dir(trilaw))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = trilaw.nothing  # type: ignore[attr-defined]
