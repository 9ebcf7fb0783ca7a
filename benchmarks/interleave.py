"""The frame of the benchmarks: peers side by side, each a process of its own, asked in turn; what was disturbed is thrown away.

A peer is a file of benchmarks/peers/, run in its own environment (`environments.py`) with the path of its job, a JSON file. It loads and
warms up, prints one JSON object about itself, and then answers each line on standard input, the number of a round, with one JSON object
of numbers; those whose name ends in "rate" (tokens a second) are compared. While one peer works, the others are stopped (SIGSTOP), since
some poll while they wait.

A round counts if processes other than the peer's family took less than `--disturbed` of the cores meanwhile; else it is repeated at
once with the next number, so that no peer sees the same work twice. A peer that cannot take part is `absent`, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import environments
import machine
from environments import Environment, Unavailable

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parent / "peers"
OURS = "trilaw"


@dataclass(frozen=True)
class Peer:
    """Who takes part: a file of benchmarks/peers/ (or a path), what it is told, and where it runs (None: in this environment)."""

    name: str
    script: str
    job: Mapping[str, Any]
    environment: Environment | None = None


@dataclass(frozen=True)
class Round:
    """One answer, and what was measured from outside meanwhile; None where the system does not tell."""

    values: Mapping[str, float]
    cpu_seconds: float
    others: float | None  # share of all cores that other processes took
    stolen: float | None  # share that other guests of the host took; told, not judged
    quiet: bool

    def row(self) -> dict[str, Any]:
        outside = {"cpu_seconds": self.cpu_seconds, "others": self.others, "stolen": self.stolen, "counts": self.quiet}
        return {**self.values, **outside}


@dataclass
class Record:
    """All of one peer."""

    facts: Mapping[str, Any]
    rounds: list[Round] = field(default_factory=list)
    peak_mib: float | None = None

    def summary(self) -> dict[str, Any]:
        quiet = [r.values for r in self.rounds if r.quiet]
        spread = {
            key: {"median": statistics.median(values), "low": min(values), "high": max(values)}
            for key in (quiet[0] if quiet else ())
            for values in [[value[key] for value in quiet]]
        }
        counts = {"quiet": len(quiet), "disturbed": len(self.rounds) - len(quiet)}
        return {**spread, **counts, "peak_mib": self.peak_mib, "facts": self.facts}


def add_options(parser: argparse.ArgumentParser, *, rounds: int = 3) -> None:
    add = parser.add_argument
    add(
        "--rounds",
        "--repeats",
        type=int,
        default=rounds,
        help="rounds of each peer that should count (default: %(default)s)",
    )
    add("--tries", type=int, default=3, help="times that a disturbed round is run at most (default: %(default)s)")
    add("--minutes", type=float, default=120, help="after so many nothing is repeated any more (default: %(default)s)")
    add(
        "--disturbed",
        type=float,
        default=0.04,
        help="share of the cores that others may take in a round (default: %(default)s)",
    )
    add("--patience", type=float, default=900, help="seconds to wait for one answer of a peer (default: %(default)s)")
    add("--threads", type=int, default=machine.cores(), help="of each peer (default: the cores, %(default)s)")
    add("--out", type=Path, help="the JSON file to write (default: benchmarks/results/<date>-<name>.json)")


def choose(parser: argparse.ArgumentParser, asked: str, peers: Sequence[str]) -> list[str]:
    """The peers that `--peers a,b` names, in the order of `peers`; ends the command for an unknown one."""
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if unknown := [name for name in names if name not in peers]:
        parser.error(f"there is no peer '{unknown[0]}' here (known: {', '.join(peers)})")
    return [name for name in peers if name in names]


def run(name: str, peers: Sequence[Peer], options: argparse.Namespace, work: Mapping[str, Any]) -> None:
    """Compare, print, write the file. Ends with status 1 if Trilaw is absent or a peer has no round that counts."""
    records, absent = compare(peers, options)
    result = report(name, records, absent, options, work)
    out = options.out or RESULTS / f"{result['date']}-{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(result)))
    print(f"{out} is written.")
    if OURS in absent:
        sys.exit(f"Trilaw itself did not take part: {absent[OURS]}")
    if noisy := [one for one, record in records.items() if not any(r.quiet for r in record.rounds)]:
        sys.exit(
            f"No round of {', '.join(noisy)} was quiet: end other work on this machine and run again, or raise --disturbed."
        )


def compare(peers: Sequence[Peer], options: argparse.Namespace) -> tuple[dict[str, Record], dict[str, str]]:
    """The peers' records in order, and the reasons of those that are absent."""
    began = time.monotonic()
    records: dict[str, Record] = {}
    absent: dict[str, str] = {}

    def leave(name: str, reason: Unavailable) -> None:
        absent[name] = str(reason)
        print(f"{name} is absent: {reason}", file=sys.stderr, flush=True)

    with _terminable(), tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        running: dict[str, Process] = {}
        for peer in peers:
            try:
                process = stack.enter_context(Process(peer, Path(scratch), options))
                records[peer.name] = Record(process.start())
                running[peer.name] = process
            except Unavailable as reason:
                leave(peer.name, reason)
        asked = dict.fromkeys(running, 0)
        for turn in range(options.rounds):
            for name, process in list(running.items()):
                for attempt in range(1, options.tries + 1):
                    try:
                        found = process.round(asked[name])
                    except Unavailable as reason:
                        leave(name, reason)
                        del running[name]
                        break
                    asked[name] += 1
                    records[name].rounds.append(found)
                    records[name].peak_mib = machine.peak_mib(process.pid)
                    _tell(turn, name, found, attempt)
                    if found.quiet or time.monotonic() - began > 60 * options.minutes:
                        break
    return {name: record for name, record in records.items() if record.rounds}, absent


class Process:
    """A peer that runs. It is ended, and Unavailable raised, when it gives up or does not answer in time."""

    def __init__(self, peer: Peer, scratch: Path, options: argparse.Namespace) -> None:
        interpreter = environments.python(peer.environment)
        job = scratch / f"{peer.name}.json"
        job.write_text(json.dumps({"threads": options.threads, **peer.job}), encoding="utf-8")
        self.disturbed, self.patience = options.disturbed, options.patience
        self._log = scratch / f"{peer.name}.log"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(interpreter), str(PEERS / peer.script), str(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                process_group=0,  # if this process is killed, the system ends a group that was left stopped
                env=os.environ | threads | offline,
            )
        self.pid = self._process.pid
        self._ended = False

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Kill it and its children, once: later the numbers may be those of other processes."""
        if self._ended:
            return
        self._ended = True
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # children that outlived it
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def signal(self, number: signal.Signals) -> None:
        for pid in machine.family(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def start(self) -> dict[str, Any]:
        """Wait until it is warm, and stop it there; what it says about itself."""
        facts = self._answer()
        self.signal(signal.SIGSTOP)
        return facts

    def round(self, number: int) -> Round:
        """Wake it, ask it, stop it again."""
        assert self._process.stdin is not None
        own = machine.cpu_seconds(self.pid)
        before, frame, clock = machine.busy(), time.process_time(), time.perf_counter()
        self.signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(b"%d\n" % number)
        values = self._answer()
        capacity = (time.perf_counter() - clock) * (os.cpu_count() or 1)
        after, frame = machine.busy(), time.process_time() - frame
        spent = machine.cpu_seconds(self.pid) - own
        self.signal(signal.SIGSTOP)
        if before is None or after is None:
            return Round(values, spent, None, None, True)
        others = max(0.0, after.used - before.used - spent - frame) / capacity
        return Round(values, spent, others, (after.stolen - before.stolen) / capacity, others < self.disturbed)

    def _answer(self) -> dict[str, Any]:
        """The next JSON object that it prints."""
        assert self._process.stdout is not None
        until = time.monotonic() + self.patience
        reason = f"it gave no answer in {self.patience:.0f} seconds (--patience)."
        while time.monotonic() < until:
            ready = select.select([self._process.stdout], [], [], 0.5)[0]
            if not ready and self._process.poll() is None:
                continue
            line = self._process.stdout.readline() if ready else b""  # a child may hold the pipe open
            if not line:
                reason = self._ending()
                break
            if line.startswith(b"{"):
                said: dict[str, Any] = json.loads(line)
                if "absent" not in said:
                    return said
                reason = str(said["absent"])
                break
        self.end()
        raise Unavailable(reason)

    def _ending(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "it closed its output without an answer."
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        lines = [line.strip() for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        print("\n".join(lines[-20:]), file=sys.stderr, flush=True)
        named = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
        return f"it ended with {how}" + (f" ('{(named or lines)[-1][:300]}')." if lines else ".")


def report(
    name: str,
    records: Mapping[str, Record],
    absent: Mapping[str, str],
    options: argparse.Namespace,
    work: Mapping[str, Any],
) -> dict[str, Any]:
    """What the file holds. A ratio above 1 says that Trilaw is faster, for `peak_mib` that it needs more memory."""
    summaries = {one: record.summary() for one, record in records.items()}
    return {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": machine.facts(options.threads),
        "work": dict(work),
        "disturbed": options.disturbed,
        "ratios": ratios(summaries),
        "peers": {
            one: {**summaries[one], "rounds": [r.row() for r in record.rounds]} for one, record in records.items()
        },
        "absent": dict(absent),
    }


def ratios(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Trilaw's median over that of every other peer, for every rate that both have: `trilaw/other`, `trilaw/other training_rate`."""
    found: dict[str, float] = {}
    ours = summaries.get(OURS, {})
    for name, theirs in summaries.items():
        for key in ours if name != OURS else ():
            label = f"{OURS}/{name}" if key == "rate" else f"{OURS}/{name} {key}"
            if key.endswith("rate") and key in theirs:
                found[label] = ours[key]["median"] / theirs[key]["median"]
            elif key == "peak_mib" and ours[key] and theirs[key] and not name.startswith(("ceiling", "bandwidth")):
                found[label] = ours[key] / theirs[key]
    return found


def table(result: Mapping[str, Any]) -> list[str]:
    """The report for people."""
    lines = [f"{'':20} {'tokens/s':>10} {'low':>10} {'high':>10} {'peak MiB':>10}   rounds that count"]
    for name, peer in result["peers"].items():
        rate = peer.get("rate")
        numbers = [f"{rate[key]:10,.1f}" for key in ("median", "low", "high")] if rate else ["         -"] * 3
        memory = "-" if peer["peak_mib"] is None else f"{peer['peak_mib']:,.0f}"
        lines.append(
            f"{name:20} {' '.join(numbers)} {memory:>10}   {peer['quiet']} of {peer['quiet'] + peer['disturbed']}"
        )
    for name, peer in result["peers"].items():
        spreads = {key: value for key, value in peer.items() if isinstance(value, dict) and "median" in value}
        rest = [f"{key} {value['median']:.4g}" for key, value in spreads.items() if key != "rate"]
        lines += [f"{name}: {', '.join(rest)}"] if rest else []
    lines += [f"{label} = {value:.2f}" for label, value in result["ratios"].items()]
    return lines + [f"{name} is absent: {reason}" for name, reason in result["absent"].items()]


def _tell(turn: int, name: str, found: Round, attempt: int) -> None:
    others = "others unknown" if found.others is None else f"others {found.others:.1%}"
    note = "" if found.quiet else ", disturbed" + (f", try {attempt}" if attempt > 1 else "")
    rate = found.values.get("rate", float("nan"))
    print(f"round {turn + 1} {name:20} {rate:10,.1f} tokens/s, {others}{note}", flush=True)


@contextlib.contextmanager
def _terminable() -> Any:
    """SIGTERM ends the benchmark in order, so that no peer stays behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("The benchmark was terminated."))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
