"""`trilaw`: the commands, and the one place where errors become sentences and exit statuses.

0: done. 1: the work failed. 2: the request was wrong. 130: stopped by Ctrl-C or SIGTERM, state saved. An error that a user can
cause is one sentence on stderr; a traceback comes with --debug, or when the fault is Trilaw's own.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from trilaw import __version__
from trilaw.core.errors import RunError, Stopped, TrilawError


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


def build() -> typer.Typer:
    """The application. The modules of the commands are light: each imports torch inside its function, if at all."""
    from trilaw.cli import models, tasks
    from trilaw.cli.eval import eval_command
    from trilaw.cli.report import report_command
    from trilaw.cli.run import run_command
    from trilaw.cli.solve import solve_command

    app = typer.Typer(
        name="trilaw",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("run")(run_command)
    app.command("eval")(eval_command)
    app.command("solve")(solve_command)
    app.add_typer(models.app, name="models")
    app.add_typer(tasks.app, name="tasks")
    app.command("report")(report_command)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always ends by SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = words[: words.index("--")] if "--" in words else words  # what follows `--` is text, not options
    debug = "--debug" in options
    if debug:
        words.remove("--debug")
    try:
        typer.main.get_command(build())(words, prog_name="trilaw")
    except TrilawError as error:
        _fail(error, debug)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _fail(
            RunError(f"The disk is full{where}: free space and give the same command; what was saved is intact."), debug
        )


def _fail(error: TrilawError, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(str(error) if isinstance(error, Stopped) else f"error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_status) from None
