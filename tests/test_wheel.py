"""The built wheel, in an environment of its own without the source tree, runs the default recipe: recipes and tables travel inside."""

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOY = (
    *(
        f"stages.{name}.tokens=2048"
        for name in ("smallest", "small-short", "small-half", "medium-short", "medium-half")
    ),
    "stages.small.tokens=2048",
    "stages.medium.tokens=2048",
    "stages.base.tokens=2048",
    "stages.zero.steps=1",
    "stages.zero.problems=2",
    "stages.zero.samples=2",
    "stages.exam.limit=2",
    "stages.points.limit=2",
    "stages.laws.bootstraps=20",
    "stages.exam.samples=2",
)


def call(*command: str | Path, cwd: Path) -> str:
    # no PYTHONPATH: the source tree must not be found
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: setuptools leaves a build folder behind
    source.mkdir()
    call("cp", "-r", ROOT / "src", ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE", source, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source, cwd=folder)
    call(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("trilaw-*.whl")
    call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    lines = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # a .pth file adds these folders to the path without reading THEIR .pth files, so an editable install there stays unseen
    (packages / "dependencies.pth").write_text("".join(f"{line}\n" for line in sorted(lines)))
    return folder / "env" / "bin"


def test_the_wheel_runs_the_default_recipe(installed: Path, tmp_path: Path) -> None:
    where = call(installed / "python", "-c", "import trilaw; print(trilaw.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    sets = [part for assignment in TOY for part in ("--set", assignment)]
    out = call(installed / "trilaw", "run", *sets, cwd=tmp_path)
    assert "pass@1" in out
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()
    assert "smollm2-135m" in call(installed / "trilaw", "models", "list", cwd=tmp_path)
