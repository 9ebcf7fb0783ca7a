"""What a person sees while a run works: one live line on a terminal, a plain line every few seconds elsewhere. All on stderr.

Both are a `core.protocols.Progress`: cheap, and never the reason that a stage fails. The time left is that of the stage, from its
own mean speed in this attempt. NO_COLOR is honoured (rich does it).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from trilaw.core.protocols import Progress
from trilaw.reports.words import duration, line

# The metrics that are worth a place on one line, in this order: key, label, format.
SHOWN = (
    ("loss", "loss", "{:.3f}"),
    ("valid_loss", "valid", "{:.3f}"),
    ("reward", "reward", "{:.3f}"),
    ("accuracy", "accuracy", "{:.3f}"),
    ("pass@1", "pass@1", "{:.3f}"),
    ("length", "length", "{:.0f}"),
    ("entropy", "entropy", "{:.2f}"),
    ("tokens_per_second", "tok/s", "{:,.0f}"),
)
EVERY = 5.0  # seconds between plain lines


def shown(metrics: Mapping[str, float]) -> str:
    """The metrics that matter, short. When reward is there, the policy loss says nothing and is left out."""
    hidden = {"loss"} if "reward" in metrics else set()
    return "  ".join(
        f"{label} {form.format(metrics[key])}" for key, label, form in SHOWN if key in metrics and key not in hidden
    )


class Clock:
    """Where a stage is and how long it still takes."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = list(stages)
        self.stage, self.total, self.done, self._first = "", 0, 0, 0
        self._began = time.monotonic()

    def start(self, stage: str, total: int, done: int) -> None:
        self.stage, self.total, self.done, self._first = stage, total, done, done
        self._began = time.monotonic()

    def left(self) -> float | None:
        """Seconds to the end of the stage; None before the first step of this attempt."""
        steps = self.done - self._first
        return (time.monotonic() - self._began) / steps * (self.total - self.done) if steps > 0 else None

    def title(self) -> str:
        """`[2/3] zero`, or `[3/3] exam: zero test` for a part of a stage; what is no stage of the recipe has no number."""
        stage = self.stage.partition(": ")[0]
        place = f"[{self.stages.index(stage) + 1}/{len(self.stages)}] " if stage in self.stages else ""
        return line(place + self.stage, 120)

    def eta(self) -> str:
        left = self.left()
        return "" if left is None else f"{duration(left)} left"


class Plain:
    """One aligned line every `every` seconds, and at the start and end of a stage: for logs and pipes."""

    def __init__(self, stages: Sequence[str], stream: TextIO, every: float = EVERY) -> None:
        self._clock, self._stream, self._every = Clock(stages), stream, every
        self._width = max((len(name) for name in stages), default=0) + len(f"[{len(stages)}/{len(stages)}] ")
        self._said = 0.0
        self._metrics: dict[str, float] = {}

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._clock.start(stage, total, done)
        self._metrics = {}
        self._line("goes on" if done else "starts")

    def update(self, done: int, **metrics: float) -> None:
        self._clock.done = done
        self._metrics |= metrics
        if time.monotonic() - self._said >= self._every:
            self._line(f"{shown(self._metrics)}  {self._clock.eta()}".strip())

    def finish(self, summary: str) -> None:
        self._line(line(summary, 1_000))

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        clock = self._clock
        count = f"{clock.done}/{clock.total}".rjust(2 * len(str(clock.total)) + 1)
        _say(self._stream, f"{clock.title():<{self._width}}  {count}  {text}\n")


class Live:
    """A bar for the stage at work, redrawn in place; a finished stage leaves one line behind."""

    def __init__(self, stages: Sequence[str], console: Console) -> None:
        self._clock, self._console = Clock(stages), console
        self._bars = Bars(
            TextColumn("[bold]{task.description}[/bold]"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("[dim]{task.fields[eta]}[/dim]"),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self._metrics: dict[str, float] = {}
        self._task = self._bars.add_task("starting", total=1, text="", eta="", visible=False)

    def __enter__(self) -> Live:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._clock.start(stage, total, done)
        self._metrics = {}
        self._bars.reset(
            self._task,
            total=total,
            completed=done,
            description=_plain(self._clock.title()),
            text="",
            eta="",
            visible=True,
        )

    def update(self, done: int, **metrics: float) -> None:
        self._clock.done = done
        self._metrics |= metrics
        self._bars.update(self._task, completed=done, text=shown(self._metrics), eta=self._clock.eta())

    def finish(self, summary: str) -> None:
        self._bars.update(self._task, visible=False)
        self._console.print(f"{self._clock.title()}  {line(summary, 1_000)}", markup=False, highlight=False)


class Tracked:
    """Passes everything on and remembers where the work is, for the sentence that a stopped run ends with."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self.done, self.total = 0, 0

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self.done, self.total = done, total
        self._inner.start(stage, total, done)

    def update(self, done: int, **metrics: float) -> None:
        self.done = done
        self._inner.update(done, **metrics)

    def finish(self, summary: str) -> None:
        self._inner.finish(summary)


class Under:
    """The progress of a part of a stage, such as one model on one split: `<stage>: <part>`."""

    def __init__(self, stage: str, inner: Progress) -> None:
        self._stage, self._inner = stage, inner

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self._inner.start(f"{self._stage}: {stage}", total, done)

    def update(self, done: int, **metrics: float) -> None:
        self._inner.update(done, **metrics)

    def finish(self, summary: str) -> None:
        self._inner.finish(summary)


@contextmanager
def watch(stages: Sequence[str], stream: TextIO | None = None) -> Iterator[Progress]:
    """The right progress for a stream (stderr): live on a terminal, plain lines otherwise."""
    stream = stream or sys.stderr
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        with Live(stages, Console(file=stream)) as live:
            yield live
    else:
        yield Plain(stages, stream)


def _plain(text: str) -> str:
    """Square brackets kept from being read as markup."""
    return text.replace("[", r"\[")


def _say(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # a closed pipe must not end a long run
        pass
