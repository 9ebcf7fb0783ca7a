from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from trilaw.pipeline.stopping import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert signal.getsignal(number) is before


def test_the_second_signal_ends_the_process() -> None:
    code = (
        "import os, signal\nfrom trilaw.pipeline.stopping import stop_on_signals\n"
        "with stop_on_signals():\n  os.kill(os.getpid(), signal.SIGINT)\n  print('alive', flush=True)\n"
        "  os.kill(os.getpid(), signal.SIGTERM)\n  print('dead', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (130, "alive\n")
    assert "leaves at once" in done.stderr


def test_other_threads_leave_signals_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signals() as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
