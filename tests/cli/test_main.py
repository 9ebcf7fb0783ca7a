"""Errors become sentences and exit statuses in one place."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import typer

import trilaw.cli.main as main_module
from trilaw.cli.main import main
from trilaw.core.errors import ConfigError, RunError, Stopped


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The command line of one command `work` that raises `error`."""

    def build() -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
        app.callback()(lambda: None)

        @app.command("work")
        def work() -> None:
            raise error

        return app

    monkeypatch.setattr(main_module, "build", build)


def ends(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("The key is wrong."), 2, "error: The key is wrong.\n"),
        (RunError("The work failed."), 1, "error: The work failed.\n"),
        (Stopped("Stopped at stage 'zero'."), 130, "Stopped at stage 'zero'.\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (RunError("Bad\x1b[31m\nreason."), 1, "error: Bad\ufffd[31m reason.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "error: runs/x cannot be used, the disk is full (",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: The output cannot be used, the disk is full ("),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            1,
            "error: x cannot be used (Permission denied): make",
        ),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 1, "error: x cannot be used (File name too long): "),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_errors_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    failing(monkeypatch, error)
    assert ends("work") == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.lstrip("\n").startswith(said) if said else not err.strip()
    assert len(err.split()) == 0 or len(err.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    failing(monkeypatch, ConfigError("The key is wrong."))
    assert ends("work", "--debug") == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.endswith("error: The key is wrong.\n")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["work"])
    failing(monkeypatch, OSError(errno.EBADF, "Bad file descriptor"))
    with pytest.raises(OSError, match="Bad file"):
        main(["work"])


def trilaw(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trilaw", *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_help_version_and_unknown_words() -> None:
    shown = trilaw("--help")
    assert shown.returncode == 0
    for verb in ("run", "eval", "solve", "models", "tasks", "report"):
        assert f"\n  {verb} " in shown.stdout
    assert trilaw("--version").stdout.startswith("trilaw 0.")
    unknown = trilaw("rnu")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: No such command 'rnu'. Did you mean 'run'? See `trilaw --help`.\n"
    wrong = trilaw("run", "--sede", "1")
    assert wrong.returncode == 2
    assert "--seed" in wrong.stderr
    assert wrong.stderr.endswith("See `trilaw run --help`.\n")
    assert wrong.stderr.count("\n") == 1
    nothing = trilaw()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.startswith("Usage: trilaw ")


def test_a_wrong_request_writes_nothing(tmp_path: object) -> None:
    done = trilaw("run", "tinny", "--out", f"{tmp_path}/out")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "error: There is no recipe 'tinny' (did you mean 'tiny'?); a path to a .toml file also does.\n"
    )
