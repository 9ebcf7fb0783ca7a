"""Environments of the peers: made once, made anew when half made or when pins change, a failure is a sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import environments
import pytest
from environments import Environment, Unavailable

ROOT = Path(__file__).parent.parent.parent
ONE = Environment("one", ("left==1", "right==2"), without=("right",), variables={"FLAGS": "-fast"})


class Shell:
    """Stands in for subprocess.run: remembers the commands, and fails at the one that holds `bad`."""

    def __init__(self, bad: str | None = None) -> None:
        self.bad, self.commands, self.flags = bad, [], []  # type: ignore[var-annotated]

    def __call__(self, command: list[str], *, env: dict[str, str], **rest: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.flags.append(env.get("FLAGS"))
        if "venv" in command:
            Path(command[-1]).mkdir()
        failed = self.bad in command
        return subprocess.CompletedProcess(
            command, failed, "", "noise\nERROR: nothing fits left==1.\nhint\n" if failed else ""
        )


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(environments, "FOLDER", tmp_path / ".bench")
    shell = Shell()
    monkeypatch.setattr(subprocess, "run", shell)
    return shell


def test_an_environment_is_made_once(shell: Shell, tmp_path: Path) -> None:
    assert environments.python(ONE) == tmp_path / ".bench/one/bin/python"
    venv, install, uninstall = shell.commands
    assert venv[1:3] == ["-m", "venv"]
    assert install[-3:] == ["install", "left==1", "right==2"]
    assert uninstall[-3:] == ["uninstall", "--yes", "right"]
    assert shell.flags == [None, "-fast", None], "the variables are for the build"
    assert not any("index" in word or "://" in word for command in shell.commands for word in command)
    environments.python(ONE)
    assert len(shell.commands) == 3


def test_other_pins_or_half_an_environment_are_made_anew(shell: Shell, tmp_path: Path) -> None:
    environments.python(ONE)
    environments.python(Environment("one", ("left==2",)))
    assert len(shell.commands) == 5
    (tmp_path / ".bench/one/finished").unlink()
    (tmp_path / ".bench/one/rest").touch()
    environments.python(Environment("one", ("left==2",)))
    assert not (tmp_path / ".bench/one/rest").exists()


def test_a_failure_is_one_sentence_and_leaves_nothing_that_counts(shell: Shell, tmp_path: Path) -> None:
    shell.bad = "install"
    with pytest.raises(
        Unavailable, match=r"^its environment \.bench/one could not be made: .* says 'ERROR: nothing fits left==1'\.$"
    ):
        environments.python(ONE)
    assert not (tmp_path / ".bench/one/finished").exists()
    shell.bad = None
    environments.python(ONE)


def test_the_pins_are_those_of_the_project() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for environment in environments.ALL:
        for package in environment.packages:
            name, _, version = package.partition("==")
            assert version, f"{package} has no version"
            assert pins.get(name, version) == version, package
