"""The tree of errors, on one page.

Every error that a user can cause is one sentence that says what is wrong, where, and how to mend it. The command line prints the
sentence and exits with `exit_status` (1: the work failed, 2: the request was wrong); a traceback only with --debug. Anything that
is not a `TrilawError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrilawError(Exception):
    """Root of the tree: the work failed."""

    exit_status = 1


class RequestError(TrilawError):
    """The request was wrong: an unknown name, a contradictory option, a prompt longer than the context."""

    exit_status = 2


class ConfigError(RequestError):
    """A recipe or an option does not hold: unknown key, wrong type, value out of range."""


class ModelError(TrilawError):
    """Weights, config.json or tokenizer are missing, truncated, not supported, or do not fit each other."""


class SourceError(TrilawError):
    """A model or data set could not be had from any of its sources."""


class TaskError(TrilawError):
    """A task's data or a user's task file is broken (the line is named)."""


class LawError(RequestError):
    """The data cannot carry the law asked for: too few points, mixed tasks, no spread. Says how many are needed, and where."""


class RunError(TrilawError):
    """The run folder cannot be used: locked by another process, unwritable, of another recipe, disk full."""


class Stopped(TrilawError):
    """The user asked to stop (Ctrl-C, SIGTERM); state is saved and the same command goes on."""

    exit_status = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the known word nearest to `word`, or " (known: a, b, c)" when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
