"""laws.json is shown only if all that is shown of it is sound, and what is shown is text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trilaw.reports import style
from trilaw.reports.html import build
from trilaw.reports.law_charts import drawings
from trilaw.reports.law_file import read_laws, sound
from trilaw.reports.read import read_run

from .conftest import FakeRun, write
from .test_html import parse

EVIL = '</h3><script>alert(1)</script>"\x1b[31m\u202e$x_{1}$'


def dots(x: str) -> list[dict[str, float]]:
    return [{x: 10.0**i, "value": 0.1 * i, "low": 0.09 * i, "high": 0.11 * i} for i in range(1, 5)]


def laws(name: str = "zero") -> dict[str, Any]:
    estimate = {"value": 0.01, "low": 0.0, "high": 0.02}
    return {
        "version": 1,
        "measured": {
            "losses": [{"parameters": n, "tokens": 1e6, "flops": 6e6 * n, "loss": 3 - n / 1e6} for n in (1e5, 2e5)],
            "known_entropy": 1.2,
        },
        "laws": {
            "pretrain": {"curve": dots("flops")},
            "link": None,
            "posttrain": {name: {"curve": dots("compute"), "measured": [{"compute": 0.0, "value": 0.1}, {"compute": 5.0, "value": 0.3}], "source": name}},
            "testtime": {name: {"samples": 8, "measured": [{"k": 1, "value": 0.2}], "coverage": {"curve": dots("k")}, "votes": None}},
            "joint": None,
        },
        "refused": {f"joint {name}": f"no {name}"},
        "allocation": {
            "verdict": f"Best split: {name}.",
            "budget": 1e15,
            "queries": 1e4,
            "spent": {"rl": 1e14},
            "options": [{"name": "rl", "sentence": name, "gain": estimate}],
            "experiments": [{"sentence": name, "command": f"trilaw run '{name}'"}],
        },
        "allocation_refused": None,
    }  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[key], (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(laws())
    node: Any = made
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return made


def draw(data: dict[str, Any]) -> None:
    with style.styled() as figure_class:
        for _, _, _, onto in drawings(data):
            onto(figure_class().add_subplot())


@pytest.mark.parametrize("value", [KeyError, None, "x", [], {}, -1.0, 1e99, float("nan"), float("inf"), 10**400, True])
def test_what_passes_the_check_can_be_drawn(value: Any) -> None:
    refused = 0
    for path in leaves(laws()):
        data = changed(path, value)
        if sound(data):
            draw(data)
        else:
            refused += 1
    assert refused > 20


@pytest.fixture
def folder(fake: FakeRun) -> Path:
    fake.pretrain("base", 128, 1.0)
    fake.stage("laws", "laws", {})
    folder = fake.close()
    write(folder / "stages" / "laws" / "laws.json", laws())
    return folder


def test_a_sound_file_is_shown(folder: Path) -> None:
    assert sound(laws())
    page = parse(folder)
    for part in ("Best split: zero.", "Law 1: what pre-training buys", "Law 2: what", "Law 3: what", "no zero"):
        assert part in page.text


def test_hostile_names_in_it_stay_text(folder: Path) -> None:
    write(folder / "stages" / "laws" / "laws.json", laws(EVIL))
    page = parse(folder)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count("<script>alert(1)</script>") >= 6
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not {"\x1b", "\u202e"} & set(html)


@pytest.mark.parametrize("cut", [0, 1, 30, -30, -1])
def test_a_torn_file_is_said_and_the_rest_is_shown(folder: Path, cut: int) -> None:
    path = folder / "stages" / "laws" / "laws.json"
    path.write_text(path.read_text()[:cut])
    page = parse(folder)
    assert "stages/laws/laws.json is missing or broken: delete stages/laws/done.json" in page.text
    assert "Loss against compute" in page.text


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "null", json.dumps({**laws(), "version": 2})])
def test_another_kind_of_file_is_said(folder: Path, text: str) -> None:
    write(folder / "stages" / "laws" / "laws.json", text)
    found, complaint = read_laws(read_run(folder))
    assert found is None
    assert complaint


def test_a_page_that_cannot_be_made_leaves_the_old_pair(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(folder)
    before = (folder / "report.json").read_bytes(), (folder / "report.html").read_bytes()
    write(folder / "events.jsonl", "")
    monkeypatch.setattr("trilaw.reports.html.page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(folder)
    assert ((folder / "report.json").read_bytes(), (folder / "report.html").read_bytes()) == before
