"""`trilaw`: the commands, and the one place where errors become sentences and exit statuses.

0: done. 1: the work failed. 2: the request was wrong. 130: stopped by Ctrl-C or SIGTERM, state saved. An error that a user can
cause is one sentence on stderr; a traceback comes with --debug, or when the fault is Trilaw's own. A file that cannot be read or
written is the user's to mend, whoever opened it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from trilaw import __version__
from trilaw.cli.terminal import never_fail_to_encode
from trilaw.core.errors import Stopped, TrilawError
from trilaw.core.rundir import DISK_FULL, unusable
from trilaw.reports.words import clean

STOPPED = Stopped.exit_status
MOST_TEXT = 2_000  # characters of an error
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer has no public name for it


def _version(value: bool) -> None:
    if value:
        typer.echo(f"trilaw {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Make a reasoning model out of an open model, and know what each unit of compute buys."""


# Command -> module of trilaw.cli, and its function or group there.
COMMANDS = {
    "run": ("run", "run_command"),
    "eval": ("eval", "eval_command"),
    "solve": ("solve", "solve_command"),
    "fit": ("fit", "fit_command"),
    "allocate": ("allocate", "allocate_command"),
    "plan": ("plan", "app"),
    "models": ("models", "app"),
    "tasks": ("tasks", "app"),
    "report": ("report", "report_command"),
}


def build(only: str = "") -> typer.Typer:
    """The application, or what of it one command needs: the fewer are read, the sooner it starts.

    The modules of the commands are light: what takes long to load (torch, numpy, our own configs) they import in their functions.
    """
    app = typer.Typer(
        name="trilaw",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in (only,) if only else COMMANDS:
        module, attribute = COMMANDS[name]
        found = getattr(importlib.import_module(f"trilaw.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always ends by SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words  # what follows `--` is text, not options
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    never_fail_to_encode()
    try:
        with _sigterm_as_ctrl_c():
            app = build(words[0]) if words[:1] and words[0] in COMMANDS else build()
            status = typer.main.get_command(app)(words, prog_name="trilaw", standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk or a closed pipe still becomes a sentence
    except TrilawError as error:
        _fail(error, debug)
    except _UsageError as error:
        _refuse(error)
    except KeyboardInterrupt:
        status = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        _fail(unusable(error, verb="cannot be used"), debug)
    if status == STOPPED:  # what typer makes of KeyboardInterrupt
        print("Stopped.", file=sys.stderr)
    raise SystemExit(status if isinstance(status, int) else 0)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C, so that clean-up runs (a pip at work is ended too, for one)."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _refuse(error: Exception) -> NoReturn:
    """A command line that does not parse: one sentence and where to read on; the help itself where nothing was asked for."""
    text: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if context is not None and text == context.get_help():
        print(text, file=sys.stderr)
        raise SystemExit(2) from None
    more = f" See `{context.command_path} --help`." if context is not None else ""
    text = clean(" ".join(text.split()))
    print(f"error: {text}{'' if text.endswith(('.', '?')) else '.'}{more}", file=sys.stderr)
    raise SystemExit(2) from None


def _fail(error: TrilawError, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    text = clean(" ".join(str(error).split()), MOST_TEXT)  # a reason from outside may have lines of its own, or no end
    print(text if isinstance(error, Stopped) else f"error: {text}", file=sys.stderr)
    raise SystemExit(error.exit_status) from None
