"""Ctrl-C and SIGTERM as a request: the first asks the stage to save and stop, the second ends the process at once.

Ending at once is safe: whatever is half written has a temporary name and is swept when the run goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_STATUS = 130


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGINT and SIGTERM only set a flag; the function given tells whether it is set.

    Signals belong to the main thread: in another one the block leaves them alone and the function always says no.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_STATUS)
        asked = True
        # os.write, since the signal may have come in the middle of a write to the buffered stream
        os.write(2, b"\nStopping after this step; the same signal again leaves at once.\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
