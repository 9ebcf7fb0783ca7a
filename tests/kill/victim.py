"""`python victim.py MODULE:NAME COUNT before|after ARGUMENTS...`: `trilaw ARGUMENTS`, killed at the COUNT-th call of a function.

The kill is a real SIGKILL of a real process: nothing is flushed, no handler runs. Only its moment is chosen.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any


def arm(place: str, count: int, when: str) -> None:
    """Kill this process right before or after the `count`-th call of `place` ("os:fsync", "package.module:Class.method")."""
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), 0

    def fatal(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, fatal)


if __name__ == "__main__":
    from trilaw.cli.main import main

    arm(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    main(sys.argv[4:])
