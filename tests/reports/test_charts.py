from __future__ import annotations

import itertools
import math
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError, RunError
from trilaw.reports import style
from trilaw.reports.charts import charts, picture, plans, smoothed
from trilaw.reports.read import read_run

from .conftest import BASE, FakeRun


def test_each_chart_comes_with_its_numbers(tiny_run: Path, fake: FakeRun) -> None:
    keys = [plan.key for plan in plans(read_run(tiny_run))]
    assert keys == ["accuracy", "accuracy", "reward", "length", "traits", "traits", "entropy", "zero_variance", "loss"]


def test_lines_are_named_and_text_is_text(tiny_run: Path) -> None:
    by_title = {chart.title: chart.svg for chart in charts(read_run(tiny_run))}
    loss = by_title["Loss against compute"]
    texts = [element.text or "" for element in ET.fromstring(loss).iter("text")]
    assert "training compute (FLOPs)" in texts
    assert "validation loss (nats a token)" in texts
    assert {text.split(" · ")[0] for text in texts if " · " in text} == {"small", "medium", "base"}
    assert "base maj@k" in by_title["Accuracy on calc / test"]
    assert "worked" in by_title["How zero answers"]


def test_end_labels_keep_apart_and_stay_at_their_lines() -> None:
    with style.styled() as figure_class:
        axes = figure_class().add_subplot()
        axes.set_ylim(0, 1)
        style.end_labels(axes, [(0.5, "alone", "k"), (0.99, "a", "k"), (1.0, "b", "k"), (1.0, "c", "k")], gap=0.1)
        heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["alone"] == pytest.approx(0.5)
    ordered = [heights[name] for name in "abc"]
    assert all(later - earlier >= 0.1 - 1e-9 for earlier, later in itertools.pairwise(ordered))
    assert max(ordered) <= 1.0 + 1e-9


def test_smoothing_keeps_lines_and_length() -> None:
    line = [2.0 * i + 1 for i in range(30)]
    assert smoothed(line, 7) == pytest.approx(line)  # a window that never leans leaves a straight line alone
    noisy = [(-1.0) ** i for i in range(31)]
    assert max(map(abs, smoothed(noisy, 9)[4:-4])) < 0.2
    assert smoothed([3.0], 5) == [3.0]


def test_infinite_and_missing_values_are_left_out(fake: FakeRun) -> None:
    fake.grpo("zero", "base", 0.9)
    fake.events[3]["reward"] = math.inf
    fake.events[4]["reward"] = None
    fake.events[5]["reward"] = "high"
    run = read_run(fake.close())
    assert len(run.series("zero", "step", "reward")[0]) == 47
    assert charts(run)


def test_a_long_run_stays_a_small_file(fake: FakeRun) -> None:
    fake.grpo("zero", "base", 0.9, steps=20_000)
    assert all(len(chart.svg) < 120_000 for chart in charts(read_run(fake.close())))


@pytest.mark.parametrize(("name", "start"), [("a.svg", b"<?xml"), ("deep/b.png", b"\x89PNG")])
def test_a_picture_for_the_readme(tiny_run: Path, tmp_path: Path, name: str, start: bytes) -> None:
    picture(read_run(tiny_run), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_picture_of_nothing_or_of_another_kind_is_refused(fake: FakeRun, tmp_path: Path) -> None:
    fake.stage("base", "pretrain")
    run = read_run(fake.close())
    with pytest.raises(RequestError, match=r"\.svg or \.png"):
        picture(run, tmp_path / "a.pdf")
    with pytest.raises(RequestError, match="nothing to draw"):
        picture(run, tmp_path / "a.svg")


def test_powers_of_ten_at_the_edge_of_numbers() -> None:
    assert style.power_label(5e-324) == "5×10⁻³²⁴"
    assert style.power_label(2e99) == "2×10⁹⁹"
    assert style.power_label(0.0) == ""


def test_a_picture_is_written_whole_or_not_at_all(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("p.png", "p.svg"):
        path = tmp_path / name
        picture(read_run(tiny_run), path)
        old = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(RunError, match="the disk is full"):
                picture(read_run(tiny_run), path)
        assert path.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "p."))) == ["p.png", "p.svg"]


def test_a_title_from_outside_leaves_the_picture_sound(fake: FakeRun, tmp_path: Path) -> None:
    fake.exam({"base": {"te\x00st\x1b\n": BASE}})
    picture(read_run(fake.close()), tmp_path / "p.svg")
    ET.parse(tmp_path / "p.svg")
