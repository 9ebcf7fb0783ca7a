"""docs/planner.md and docs/question.md say what the planner says."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import tomllib
from argparse import Namespace
from datetime import date
from types import ModuleType
from typing import Any

import pytest

from trilaw.api.plan import plan_rl, plan_serve, plan_train
from trilaw.planner.answers import cost_per_solved
from trilaw.planner.compare import compare
from trilaw.planner.datacentre import check_claim, plan_datacentre
from trilaw.planner.sheet import assumptions

from .pages import ROOT

PAGE, QUESTION = ROOT / "docs" / "planner.md", ROOT / "docs" / "question.md"


def script(stem: str, folder: str = "scripts") -> ModuleType:
    spec = importlib.util.spec_from_file_location(stem, ROOT / folder / f"{stem}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


docs_planner, docs_question = script("docs_planner"), script("docs_question")


def test_the_planner_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == docs_planner.update(text), "run scripts/docs_planner.py"
    written = set(re.findall(r"<!-- generated: ([\w-]+) -->", text))
    assert written == set(docs_planner.PARTS), "every part stands in the page"


def test_the_question_page_is_current() -> None:
    assert QUESTION.read_text(encoding="utf-8") == docs_question.page(), "run scripts/docs_question.py"


def test_every_assumption_stands_in_the_page_with_its_range() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, assumption in assumptions().items():
        assert f"| `{name}` | {assumption.value:g} | {assumption.low:g} to {assumption.high:g} |" in text


def test_errors_of_measurements_here_have_their_reason() -> None:
    rows = docs_planner.machine_rows()
    assert len(rows) == 6
    assert all(row.why for row in rows if abs(row.error) > docs_planner.OFF)
    assert max(abs(row.error) for row in rows) > 1, "tiny models are planned badly, and the page says so"


def test_what_is_measured_here_goes_into_the_table_and_nothing_else_does() -> None:
    bench = script("plan_here", "benchmarks")
    text = docs_planner.MEASURED.read_text(encoding="utf-8")
    found = {key: 1000.0 + 1.5 * i for i, key in enumerate(bench.KEYS)} | {"grpo-prompt": 9.5, "grpo-response": 31.25}
    options = Namespace(hardware="epyc-zen4-2core", threads=2)
    before, after = tomllib.loads(text), tomllib.loads(bench.written(text, options, found))
    assert after["chip"] == "epyc-zen4-2core"
    assert after["date"] == date.today().isoformat()
    assert "2 threads" in after["machine"]
    for key in bench.KEYS:
        assert after[key]["measured"] == pytest.approx(found[key], rel=5e-3)
        assert {name: after[key][name] for name in ("what", "unit", "why")} == {
            name: before[key][name] for name in ("what", "unit", "why")
        }
    assert (after["grpo-tiny"]["prompt"], after["grpo-tiny"]["response"]) == (9.5, 31.2)


def test_what_is_measured_here_is_what_is_planned() -> None:
    bench = script("plan_here", "benchmarks")
    planned = docs_planner.validation_here.planned(docs_planner.chip("zen3"), grpo_prompt=12, grpo_response=25)
    assert list(planned) == list(bench.KEYS)
    assert all(math.isfinite(value) and value > 0 for value in planned.values())


def _tables() -> dict[str, set[str]]:
    """The documented keys by section of the page; "" is the table of keys that plans share."""
    part = PAGE.read_text(encoding="utf-8").partition("## JSON\n")[2].partition("\n## ")[0]
    titles = re.split(r"^### (\w+)$", part, flags=re.MULTILINE)
    found = {"": titles[0]} | dict(zip(titles[1::2], titles[2::2], strict=True))
    return {
        name: {key for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
        for name, text in found.items()
    }


def test_the_keys_of_the_json_are_those_of_the_page() -> None:
    keys = _tables()
    train = plan_train("llama-3.1-8b", "h100", 8)
    served = plan_serve("llama-3.1-8b", "h100", 8)
    reinforced = plan_rl("llama-3.1-8b", "h100", 8)
    for name, plan in (("train", train), ("serve", served), ("rl", reinforced)):
        extra = {"answers"} if name == "serve" else set()
        assert keys[""] | keys[name] == set(plan.to_json()) | extra, name
    assert keys["compare"] == set(compare(["h100"], target="answers")[0].to_json())
    assert keys["datacentre"] == set(plan_datacentre(gw=1).to_json()) | {"claim"}
    text = PAGE.read_text(encoding="utf-8")
    inner: list[dict[str, Any]] = [
        cost_per_solved(served, {1: 0.5}, [1])[0].to_json(),
        check_claim(power=1e9, gpus=1e5).to_json(),
    ]
    for row in inner:
        assert all(f"`{key}`" in text for key in row if key != "k")


def test_the_markets_figures_are_consistent() -> None:
    text = docs_question.market()
    assert "| $118.58 | -16.86 % | $588.7B |" in text
    assert "| $118.42 | -16.97 % | $592.7B |" in text
    assert "close to $600B" in text


def test_totals_add_up() -> None:
    for world in docs_question.worlds():
        for question in docs_question.QUESTIONS:
            assert world.total(question) == pytest.approx(world.training + question * world.chip_seconds / 3600)
            assert 0 <= world.serving(question) < 1
        assert world.total(world.even()) == pytest.approx(2 * world.training)
