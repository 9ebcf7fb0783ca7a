from __future__ import annotations

import io

import pytest
from rich.console import Console

from trilaw.pipeline import progress
from trilaw.pipeline.progress import Clock, Live, Plain, Tracked, shown, watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_few_seconds(clock: list[float]) -> None:
    stream = io.StringIO()
    plain = Plain(["base", "zero"], stream, every=5.0)
    plain.start("zero", 50, 10)
    for step in range(11, 21):
        clock[0] += 1.0
        plain.update(step, reward=0.5, loss=0.1, tokens_per_second=1234.0)
    plain.finish("done")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "[2/2] zero  10/50  goes on",
        "[2/2] zero  15/50  reward 0.500  tok/s 1,234  35.0 s left",
        "[2/2] zero  20/50  reward 0.500  tok/s 1,234  30.0 s left",
        "[2/2] zero  20/50  done",
    ]


def test_the_time_left_counts_this_attempt_only(clock: list[float]) -> None:
    clock[0] = 100.0
    watchful = Clock(["a"])
    watchful.start("a", 100, 90)
    assert watchful.left() is None
    clock[0] = 104.0
    watchful.done = 92
    assert watchful.left() == 16.0


def test_reward_hides_the_policy_loss() -> None:
    assert shown({"loss": 1.25, "other": 3.0}) == "loss 1.250"
    assert shown({"loss": 1.25, "reward": 0.5}) == "reward 0.500"


def test_a_closed_pipe_is_no_reason_to_fail() -> None:
    stream = io.StringIO()
    plain = Plain(["a"], stream)
    stream.close()
    plain.start("a", 1)
    plain.finish("done")


def test_live_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with watch(["base", "zero"], stream) as live:
        assert isinstance(live, Live)
        live.start("base", 3)
        live.update(1, loss=2.0)
        live.finish("done in [5] s")
        live.start("zero", 3)
    text = stream.getvalue()
    assert "[1/2] base  done in [5] s" in text
    assert "\x1b[3" not in text, "NO_COLOR is honoured"


def test_pipes_get_plain_lines() -> None:
    with watch(["base"], io.StringIO()) as plain:
        assert isinstance(plain, Plain)


def test_tracked_remembers_and_passes_on() -> None:
    stream = io.StringIO()
    tracked = Tracked(Plain(["a"], stream, every=0.0))
    tracked.start("a", 5, 2)
    tracked.update(3, loss=1.0)
    tracked.finish("end")
    assert (tracked.done, tracked.total) == (3, 5)
    assert stream.getvalue().count("\n") == 3


def test_live_never_raises_on_text_like_markup() -> None:
    with Live(["a"], Console(file=io.StringIO())) as live:
        live.start("[/bold] odd [", 2)
        live.update(1)
        live.finish("[/nothing]")


def test_what_comes_from_outside_shows_and_never_acts(clock: list[float]) -> None:
    stream = io.StringIO()
    plain = Plain(["exam"], stream)
    plain.start("exam: a\x1b[2J\nmodel" + "x" * 10_000, 3)
    plain.finish("verdict\x1b]0;title\x07\nof a model\u202e")
    said = stream.getvalue()
    assert len(said.splitlines()) == 2
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert len(said) < 1_000
    terminal = Terminal()
    with Live(["exam"], Console(file=terminal, force_terminal=True, width=80)) as live:
        live.start("exam", 1)
        live.finish("a\x1b]0;title\x07b")
    assert "]0;title" in terminal.getvalue()
    assert "\x1b]0;title" not in terminal.getvalue()
