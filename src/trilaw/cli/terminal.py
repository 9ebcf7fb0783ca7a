"""What the commands print. Text from outside (a model's words, a task's problems, a file's metadata) shows and never acts.

Characters that a terminal obeys (escape sequences, bidirectional overrides, NUL) become U+FFFD in all printed text; --json gives
the exact text, escaped as JSON.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

import typer

from trilaw.reports import words


def say(text: object = "", *, err: bool = False) -> None:
    """One line or several on stdout (or stderr), fit to be shown."""
    typer.echo(words.clean(str(text)), err=err)


def styled(stream: TextIO) -> bool:
    """Whether terminal codes of our own (dim text) are welcome on a stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def never_fail_to_encode() -> None:
    """A locale without Unicode shows a character that it lacks as an escape, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if (change := getattr(stream, "reconfigure", None)) is not None:
            change(errors="backslashreplace")
