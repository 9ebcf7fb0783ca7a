"""Calibration: the file it writes is read back equal; the arithmetic is checked on a clock that we turn; no torch, no bf16."""

import dataclasses
import importlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError, RunError
from trilaw.planner import calibrate
from trilaw.planner.hardware import Chip, Sourced, chips, load_file


def quick() -> Chip:
    return calibrate.calibrate(0.05, sizes=(32, 64), buffer_bytes=2**20)


def test_this_machine_is_a_chip_and_survives_its_file(tmp_path: Path) -> None:
    measured = quick()
    assert measured.kind == "cpu"
    assert set(measured.flops) >= {"fp32"}
    for speed in measured.flops.values():
        assert 1e6 < speed.value < 1e16
        assert speed.source.startswith("measured on this machine")
    assert 1e7 < measured.memory_bandwidth.value < 1e14
    assert measured.memory_bytes.value > 2**28
    assert f"{calibrate.cores()} cores" in measured.note
    calibrate.save(measured, tmp_path / "here.toml")
    assert load_file(tmp_path / "here.toml") == measured


@pytest.mark.parametrize("c", chips(), ids=lambda c: c.name)
def test_every_chip_survives_its_file(tmp_path: Path, c: Chip) -> None:
    """With conflicting sources, ranges, notes and units of every dimension."""
    calibrate.save(c, tmp_path / "chip.toml")
    assert load_file(tmp_path / "chip.toml") == c


def test_odd_characters_survive(tmp_path: Path) -> None:
    odd = dataclasses.replace(
        chips()[0], note='a "quote", a \\, a tab\t, a line\nbreak, DEL \x7f, \x01, ä, 中', maker="'"
    )
    calibrate.save(odd, tmp_path / "chip.toml")
    assert load_file(tmp_path / "chip.toml") == odd


def test_without_torch_only_fp32_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    measured = quick()
    assert set(measured.flops) == {"fp32"}
    assert "bf16 and int8 were not measured: torch is not installed" in measured.note


def test_a_torch_without_int8_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_int8_products", lambda *args: None)
    measured = quick()
    assert "int8" not in measured.flops
    without = "torch is not installed" in measured.note
    assert ("int8 was not measured: this torch has no product of int8 matrices" in measured.note) != without


@pytest.mark.parametrize(("bf16", "kept"), [(0.5, False), (2.0, True)])
def test_a_format_that_is_only_emulated_is_left_out(monkeypatch: pytest.MonkeyPatch, bf16: float, kept: bool) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(calibrate, "_numpy_products", lambda *args: 1e11)
    monkeypatch.setattr(calibrate, "_bf16_products", lambda *args: bf16 * 1e11)
    monkeypatch.setattr(calibrate, "_int8_products", lambda *args: 4e11)
    measured = quick()
    assert ("bf16" in measured.flops) == kept
    assert ("it is emulated" in measured.note) != kept


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds()

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    result = Clock()
    monkeypatch.setattr(calibrate, "time", result)
    return result


def test_the_best_call_counts_and_the_first_does_not(clock: Clock) -> None:
    times = iter([0.1, 5.0, 3.0, 4.0, 9.0])
    assert calibrate._best(clock.work(lambda: next(times)), 10.0) == pytest.approx(3.0)


def test_a_long_call_is_made_twice_at_least(clock: Clock) -> None:
    times = iter([50.0, 40.0, 30.0])
    assert calibrate._best(clock.work(lambda: next(times)), 1.0) == pytest.approx(30.0)


def test_speed_is_operations_over_time_and_stops_before_it_takes_too_long(clock: Clock) -> None:
    tried: list[int] = []

    def make(n: int) -> Callable[[], object]:
        tried.append(n)
        return clock.work(lambda: 2 * n**3 / (4e9 if n == 512 else 1e9))  # 512 is the machine's favourite

    assert calibrate._products(make, (256, 512, 1024, 2048), 2.0) == pytest.approx(4e9)
    assert tried == [256, 512, 1024]  # 2.1 s for 1024: a product of 2048 would take 17 s


def test_bandwidth_counts_a_copy_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_best", lambda work, seconds: (work(), 0.5)[1])
    read, copy = calibrate._memory_speeds(2**20, 1.0)
    assert (read, copy) == (2**20 / 0.5, 2 * 2**20 / 0.5)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none(seconds: float) -> None:
    with pytest.raises(RequestError, match=f"Calibration needs a time of more than 0 seconds, not {seconds:g}"):
        calibrate.calibrate(seconds)


def test_a_system_that_does_not_say_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(calibrate.os, "sysconf", silent)
    with pytest.raises(RequestError, match="write a hardware file by hand, with memory"):
        calibrate.memory_bytes()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="a file is in the way"):
        calibrate.save(chips()[0], tmp_path / "file" / "chip.toml")


def test_bounds_that_follow_from_the_sources_are_not_written() -> None:
    plain = dataclasses.replace(chips()[0], memory_bytes=Sourced(8e10, "B", "a sheet", "2026"))
    text = calibrate.to_toml(plain)
    assert '[memory]\nvalue = "80 GB"\nsource = "a sheet"\ndate = "2026"\n' in text
