"""The frame: turns, disturbed rounds, absent peers, what is measured from outside, what is written. The peers here are small scripts."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interleave
import machine
import pytest
from environments import Environment
from interleave import Peer, Record, Round

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="readings come from /proc")

ECHO = """
import json, sys
job = json.load(open(sys.argv[1]))
print("libraries may talk")
print(json.dumps({"version": job["version"]}), flush=True)
for line in sys.stdin:
    open(job["diary"], "a").write(f"{job['version']} {line}")
    print(json.dumps({"rate": job["rates"][int(line)], "seconds": 1.0}), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], str]:
    def write(name: str, code: str) -> str:
        (tmp_path / name).write_text(code)
        return str(tmp_path / name)

    return write


@pytest.fixture
def echo(script: Callable[[str, str], str], tmp_path: Path) -> Callable[..., Peer]:
    """A peer that answers round n with the n-th of its rates and writes down that it was asked."""

    def make(name: str, *rates: float) -> Peer:
        job = {"version": name, "rates": rates, "diary": str(tmp_path / "diary")}
        return Peer(name, script("echo.py", ECHO), job)

    return make


def test_rounds_go_in_turn(echo: Callable[..., Peer], options: argparse.Namespace, tmp_path: Path) -> None:
    records, absent = interleave.compare([echo("trilaw", 3.0, 5.0), echo("other", 1.0, 2.0)], options)
    assert (tmp_path / "diary").read_text().splitlines() == ["trilaw 0", "other 0", "trilaw 1", "other 1"]
    assert not absent
    assert records["trilaw"].facts == {"version": "trilaw"}
    assert records["other"].summary()["rate"] == {"median": 1.5, "low": 1.0, "high": 2.0}


@linux
def test_a_disturbed_round_is_thrown_away_and_repeated_with_the_next_number(
    echo: Callable[..., Peer], options: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two readings a round: in the second round of all, "trilaw 1", others take hours.
    readings = iter([0.0, 0.0, 0.0, 0.0, 0.0, 1e12] + [1e12] * 100)
    monkeypatch.setattr(machine, "busy", lambda: machine.Busy(next(readings), 0.0))
    records, _ = interleave.compare([echo("trilaw", 1.0, 50.0, 3.0), echo("other", 1.0, 1.0)], options)
    assert (tmp_path / "diary").read_text().splitlines() == [
        "trilaw 0",
        "other 0",
        "trilaw 1",
        "trilaw 2",
        "other 1",
    ]
    summary = records["trilaw"].summary()
    assert (summary["quiet"], summary["disturbed"]) == (2, 1)
    assert summary["rate"] == {"median": 2.0, "low": 1.0, "high": 3.0}, "what was disturbed stays out"
    assert [r.row()["counts"] for r in records["trilaw"].rounds] == [True, False, True]


@linux
@pytest.mark.parametrize(("tries", "minutes", "asked"), [(2, 1.0, 2), (5, 0.0, 1)])
def test_repeats_are_limited(
    echo: Callable[..., Peer], options: argparse.Namespace, tries: int, minutes: float, asked: int
) -> None:
    options.rounds, options.tries, options.minutes, options.disturbed = (
        1,
        tries,
        minutes,
        -1.0,
    )  # nothing is quiet enough
    records, _ = interleave.compare([echo("trilaw", *[1.0] * 5)], options)
    assert len(records["trilaw"].rounds) == asked
    assert "rate" not in records["trilaw"].summary()


@linux
def test_no_quiet_round_is_no_result(echo: Callable[..., Peer], options: argparse.Namespace, tmp_path: Path) -> None:
    options.disturbed, options.tries, options.out = -1.0, 1, tmp_path / "out.json"
    with pytest.raises(SystemExit, match=r"No round of trilaw, other was quiet"):
        interleave.run("noise", [echo("trilaw", 1.0, 1.0), echo("other", 1.0, 1.0)], options, {})
    written = json.loads(options.out.read_text())
    assert all("peak_mib" in label for label in written["ratios"]), "memory is not disturbed, rates are"
    assert len(written["peers"]["trilaw"]["rounds"]) == 2, "the rounds are kept, marked"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import sys; print('ValueError: no such kernel', file=sys.stderr); sys.exit(3)",
            r"status 3 \('ValueError: no such kernel'\)",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", r"signal SIGILL"),
        ('print(\'{"absent": "it reads other files."}\')', r"^it reads other files\.$"),
        ("import time; time.sleep(60)", r"no answer in 1 seconds"),
    ],
)
def test_a_peer_that_cannot_start_is_absent_with_its_reason(
    code: str, reason: str, echo: Callable[..., Peer], script: Callable[[str, str], str], options: argparse.Namespace
) -> None:
    peers = [echo("trilaw", 1.0, 1.0), Peer("broken", script("broken.py", code), {})]
    options.patience = 1.0 if "sleep" in code else 60.0
    records, absent = interleave.compare(peers, options)
    assert list(records) == ["trilaw"]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(absent["broken"])


def test_a_peer_that_ends_between_rounds_keeps_what_it_did(
    echo: Callable[..., Peer], script: Callable[[str, str], str], options: argparse.Namespace
) -> None:
    once = "import sys\nprint('{}', flush=True)\nsys.stdin.readline()\nprint('{\"rate\": 1.0}', flush=True)\n"
    records, absent = interleave.compare([Peer("once", script("once.py", once), {}), echo("trilaw", 1.0, 1.0)], options)
    assert len(records["once"].rounds) == 1
    assert len(records["trilaw"].rounds) == 2
    assert "status 0" in absent["once"]


def test_an_environment_that_cannot_be_made_leaves_the_others(
    echo: Callable[..., Peer], options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(environment: Environment | None) -> Path:
        if environment is not None:
            raise interleave.Unavailable("no index has it.")
        return Path(sys.executable)

    monkeypatch.setattr(interleave.environments, "python", refuse)
    other = echo("other", 1.0, 1.0)
    peers = [echo("trilaw", 1.0, 1.0), Peer("other", other.script, other.job, Environment("other", ("no-such",)))]
    records, absent = interleave.compare(peers, options)
    assert list(records) == ["trilaw"]
    assert absent == {"other": "no index has it."}


def test_without_trilaw_the_file_is_written_and_the_status_is_1(
    echo: Callable[..., Peer], script: Callable[[str, str], str], options: argparse.Namespace, tmp_path: Path
) -> None:
    options.out = tmp_path / "deep" / "out.json"
    with pytest.raises(SystemExit, match="Trilaw itself did not take part"):
        interleave.run(
            "half", [Peer("trilaw", script("no.py", "1/0"), {}), echo("other", 1.0, 1.0)], options, {"new": 4}
        )
    written = json.loads(options.out.read_text())
    assert "ZeroDivisionError" in written["absent"]["trilaw"]
    assert written["work"] == {"new": 4}


SPENDER = """
import json, subprocess, sys
print("{}", flush=True)
for line in sys.stdin:
    code = "import time\\nblock = bytearray(%d)\\nuntil = time.process_time() + 0.5\\nwhile time.process_time() < until: pass\\nprint(flush=True)\\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code % (200 << 20)], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(json.dumps({"rate": 1.0, "child": child.pid}), flush=True)
"""


@linux
def test_children_count_as_the_peer_and_end_with_it(
    script: Callable[[str, str], str], options: argparse.Namespace
) -> None:
    options.rounds = 1
    records, _ = interleave.compare([Peer("trilaw", script("spender.py", SPENDER), {})], options)
    (done,) = records["trilaw"].rounds
    assert done.cpu_seconds >= 0.45, "the child's half second is the peer's own"
    assert (records["trilaw"].peak_mib or 0) > 200, "and so is its memory"
    child = Path(f"/proc/{int(done.values['child'])}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child outlived the comparison")


@linux
def test_what_a_peer_leaves_behind_ends_at_once(
    echo: Callable[..., Peer], script: Callable[[str, str], str], options: argparse.Namespace, tmp_path: Path
) -> None:
    orphan = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\nsys.exit(1)\n"
    seen: list[bool] = []
    ask = interleave.Process.round

    def spy(self: interleave.Process, number: int) -> Round:
        stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        time.sleep(0.2)
        seen.append(stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX")
        return ask(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleave.Process, "round", spy)
        _, absent = interleave.compare(
            [Peer("orphan", script("orphan.py", orphan), {}), echo("trilaw", 1.0, 1.0)], options
        )
    assert "status 1" in absent["orphan"]
    assert seen == [False, False]


RESTLESS = """
import sys, threading
def poll():
    while True: pass
threading.Thread(target=poll, daemon=True).start()
print("{}", flush=True)
for line in sys.stdin: print('{"rate": 1.0}', flush=True)
"""
SLEEPER = """
import sys, time
print("{}", flush=True)
for line in sys.stdin:
    time.sleep(0.5)
    print('{"rate": 1.0}', flush=True)
"""


@linux
def test_a_peer_that_waits_is_stopped(script: Callable[[str, str], str], options: argparse.Namespace) -> None:
    options.rounds = 1
    seen: list[str] = []
    ask = interleave.Process.round

    def spy(self: interleave.Process, number: int) -> Round:
        seen.extend(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids)
        pids.append(self.pid)
        return ask(self, number)

    pids: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleave.Process, "round", spy)
        peers = [
            Peer("restless", script("restless.py", RESTLESS), {}),
            Peer("sleeper", script("sleeper.py", SLEEPER), {}),
        ]
        records, _ = interleave.compare(peers, options)
    assert seen == ["T"], "it polls, and yet stands still while another one works"
    assert set(records) == {"restless", "sleeper"}


@linux
def test_a_killed_benchmark_leaves_no_peer(
    script: Callable[[str, str], str], tmp_path: Path, options: argparse.Namespace
) -> None:
    peer = script(
        "waits.py",
        "import os, sys\nopen(sys.argv[0] + '.pid', 'w').write(str(os.getpid()))\nprint('{}', flush=True)\nsys.stdin.read()\n",
    )
    code = (
        f"import sys, argparse; sys.path.insert(0, {str(Path(interleave.__file__).parent)!r}); import interleave, time\n"
        f"interleave.Process.round = lambda *a: time.sleep(60)\n"
        f"interleave.compare([interleave.Peer('trilaw', {peer!r}, {{}})], argparse.Namespace(**{vars(options)!r}))\n"
    )
    benchmark = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    stat, state = None, ""
    for _ in range(200):
        mark = Path(peer + ".pid")
        if mark.exists() and mark.read_text():
            stat = Path(f"/proc/{mark.read_text()}/stat")
            if stat.read_text().rpartition(")")[2].split()[0] == "T":
                break
        time.sleep(0.05)
    assert stat is not None
    os.kill(benchmark.pid, signal.SIGKILL)
    benchmark.wait()
    for _ in range(100):
        state = stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "gone"
        if state in ("Z", "gone"):
            return
        time.sleep(0.05)
    pytest.fail(f"the peer is still there, in state {state}")


def record(peak: float | None, **values: float) -> Record:
    return Record({}, [Round(values, 0.0, 0.0, 0.0, True)], peak)


def test_ratios_are_of_rates_that_both_have_and_of_memory() -> None:
    summaries = {
        "trilaw": record(100.0, rate=6.0, training_rate=10.0, seconds=1.0).summary(),
        "other": record(400.0, rate=2.0, seconds=9.0).summary(),
        "ceiling-float32": record(50.0, rate=8.0, training_rate=20.0).summary(),
    }
    assert interleave.ratios(summaries) == {
        "trilaw/other": 3.0,
        "trilaw/other peak_mib": 0.25,
        "trilaw/ceiling-float32": 0.75,
        "trilaw/ceiling-float32 training_rate": 0.5,
    }


def test_the_file_names_date_machine_and_work(
    echo: Callable[..., Peer],
    options: argparse.Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(interleave, "RESULTS", tmp_path)
    interleave.run("speed", [echo("trilaw", 4.0, 4.0), echo("other", 2.0, 2.0)], options, {"model": "m"})
    (file,) = tmp_path.glob("*-speed.json")
    written: dict[str, Any] = json.loads(file.read_text())
    assert file.name == f"{written['date']}-speed.json"
    assert written["ratios"]["trilaw/other"] == 2.0
    assert written["work"] == {"model": "m"}
    assert written["machine"]["threads"] == 1
    assert written["machine"]["processor"]
    assert "trilaw/other = 2.00" in capsys.readouterr().out


def test_peers_are_chosen_in_their_own_order(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    assert interleave.choose(parser, "b, a", ("a", "b", "c")) == ["a", "b"]
    with pytest.raises(SystemExit):
        interleave.choose(parser, "a,d", ("a", "b", "c"))
    assert "there is no peer 'd'" in capsys.readouterr().err
