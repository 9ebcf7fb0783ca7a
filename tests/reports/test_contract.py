"""report.json keeps its contract, and docs/report.md describes all of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trilaw.reports import contract
from trilaw.reports.html import build
from trilaw.reports.read import read_run

from .conftest import FakeRun, write

DOCS = Path(__file__).parents[2] / "docs" / "report.md"


def load(folder: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in report.json")

    return json.loads((folder / "report.json").read_text(), parse_constant=refuse)


def test_a_built_report_is_sound_and_says_what_the_stages_said(built: Path) -> None:
    report = load(built)
    assert contract.check(report) == []
    assert report["version"] == 1
    assert report["totals"] == {
        "seconds": 3 * 90.0 + 2 * 75.0 + 21.0,
        "flops": pytest.approx(5.4e12 * (0.11 + 0.3 + 1 + 2) + 3e11),
        "tokens": 3 * 1_100_000 + 2 * 620_000 + 410_000,
        "joules": pytest.approx(report["cost"]["watts"] * (3 * 90.0 + 2 * 75.0 + 21.0)),
        "usd": pytest.approx(report["totals"]["joules"] / 3.6e6 * 0.15),
    }
    assert sum(stage["joules"] for stage in report["stages"]) == pytest.approx(report["totals"]["joules"])
    assert report["machine"]["torch"] == "2.13.0"
    assert (report["machine"]["started"], report["machine"]["attempts"]) == ("2026-11-24T08:00:00Z", 1)
    done = json.loads((built / "stages" / "exam" / "done.json").read_text())
    assert report["evaluations"] == done["evaluations"]


def test_every_key_is_documented(tiny_run: Path) -> None:
    documented = set(
        re.findall(
            r"`(\w+)`",
            "\n".join(line.split("|")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `")),
        )
    )
    report = contract.report(read_run(tiny_run))
    keys = set(report)
    for part in (
        *report["verdicts"],
        *report["stages"],
        *report["evaluations"],
        report["totals"],
        report["cost"],
        report["machine"],
    ):
        keys |= set(part)
    assert keys == documented


def test_an_unfinished_run_with_nothing_but_its_plan(fake: FakeRun) -> None:
    fake.stage("base", "pretrain")
    folder = fake.close()
    (folder / "manifest.json").unlink()
    build(folder)
    report = load(folder)
    assert contract.check(report) == []
    assert report["complete"] is False
    assert report["stages"][0]["done"] is False


def test_what_is_not_finite_becomes_null(fake: FakeRun) -> None:
    fake.stage(
        "base", "pretrain", {"metrics": {"loss": float("nan"), "deep": [{"x": float("inf")}]}, "flops": float("nan")}
    )
    folder = fake.close()
    write(folder / "manifest.json", '{"cores": NaN, "attempts": 3}')
    build(folder)
    report = load(folder)
    assert report["stages"][0]["metrics"] == {"loss": None, "deep": [{"x": None}]}
    assert report["stages"][0]["flops"] == 0
    assert contract.check(report) == []


def _drop(report: dict[str, Any]) -> None:
    del report["stages"][0]["kind"]


def _add(report: dict[str, Any]) -> None:
    report["totals"]["yen"] = 1


def _retype(report: dict[str, Any]) -> None:
    report["evaluations"][0]["n"] = True


def _nan(report: dict[str, Any]) -> None:
    report["evaluations"][0]["value"] = float("nan")


def _version(report: dict[str, Any]) -> None:
    report["version"] = 2


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [(_drop, "stages[0].kind is missing"), (_add, "totals.yen is not in the contract"), (_retype, "n has the wrong type (bool)"), (_nan, "value is not finite"), (_version, "report.version is 2")],
)  # fmt: skip
def test_the_check_sees_a_broken_report(
    tiny_run: Path, spoil: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    report = copy.deepcopy(contract.report(read_run(tiny_run)))
    spoil(report)
    assert any(complaint in found for found in contract.check(report))


@pytest.mark.parametrize("value", ["y", 10**400, -3.5, True, [1], {"a": 1}, None])
def test_a_manifest_of_other_kinds_keeps_the_contract(fake: FakeRun, value: object) -> None:
    fake.pretrain("base", 128, 1.0)
    folder = fake.close()
    known = json.loads((folder / "manifest.json").read_text())
    write(
        folder / "manifest.json",
        {**dict.fromkeys(known, value), "attempts": [dict.fromkeys(("started", "ended"), value)]},
    )
    assert contract.check(json.loads(json.dumps(contract.report(read_run(folder))))) == []
    build(folder)
