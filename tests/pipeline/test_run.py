from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError, RunError, Stopped
from trilaw.core.rundir import lock
from trilaw.pipeline.recipe import parse_recipe
from trilaw.pipeline.run import RunSummary, first_difference, run

from .toys import KINDS, ToyTask, recipe_data, state

pytestmark = pytest.mark.usefixtures("reports", "models")


def go(out: Path, *, should_stop: Callable[[], bool] | None = None, **changes: object) -> RunSummary:
    recipe = parse_recipe(recipe_data(**changes), where="r.toml", tasks={"toy": ToyTask()}, kinds=KINDS)
    return run(recipe, out, should_stop=should_stop, kinds=KINDS)


def after(calls: int) -> Callable[[], bool]:
    """Asks to stop from the `calls`-th question on."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= calls

    return should_stop


def test_stages_feed_each_other_and_leave_the_contract(tmp_path: Path, reports: list[Path]) -> None:
    out = tmp_path / "runs" / "toys"
    summary = go(out)
    assert [(row.stage, row.split, row.estimate.value) for row in summary.evaluations] == [
        ("one", "test", 0.03),
        ("two", "test", 0.33),
    ]
    assert summary.fresh
    assert summary.model == out / "stages/two/model"
    assert summary.seconds == 3.0
    assert math.isclose(sum(r.flops for r in summary.results.values()), 4.0)
    assert reports == [out]
    done = json.loads((out / "stages/two/done.json").read_text())
    assert done["model"] == "model"
    assert done["metrics"] == {"value": 33, "odd": None}
    rows = json.loads((out / "stages/exam/done.json").read_text())["evaluations"]
    assert rows[0] == {
        "stage": "one", "task": "toy", "split": "test", "metric": "pass@1",
        "value": 0.03, "low": 0.0, "high": 1.0, "n": 4, "method": "toy",
    }  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert [a["outcome"] for a in manifest["attempts"]] == ["complete"]
    assert manifest["seed"] == 0
    assert manifest["cores"] >= 1
    assert manifest["memory_bytes"] > 1e6


def test_a_complete_run_is_shown_again_and_not_touched(tmp_path: Path, reports: list[Path]) -> None:
    first = go(tmp_path / "r")
    before = state(tmp_path / "r")
    second = go(tmp_path / "r")
    assert not second.fresh
    assert second.evaluations == first.evaluations
    assert state(tmp_path / "r") == before
    assert len(reports) == 1
    (tmp_path / "r/report.html").unlink()
    go(tmp_path / "r")
    assert len(reports) == 2, "a missing report is drawn again"


@pytest.mark.parametrize("calls", range(1, 11))
def test_stopped_anywhere_and_resumed_is_as_if_never_stopped(tmp_path: Path, calls: int) -> None:
    go(tmp_path / "straight")
    out = tmp_path / "stopped"
    with pytest.raises(
        Stopped, match=r"^Stopped (before stage '\w+'|at stage '(one|two)', step \d of 3); the same command goes on\.$"
    ):
        go(out, should_stop=after(calls)) if calls < 9 else go(out, should_stop=after(min(calls, 9)))
    assert not (out / "report.html").exists()
    go(out)
    assert state(out) == state(tmp_path / "straight")
    outcomes = [a["outcome"] for a in json.loads((out / "manifest.json").read_text())["attempts"]]
    assert outcomes == ["stopped", "complete"]


def test_a_failing_stage_keeps_its_error_and_its_work(tmp_path: Path) -> None:
    recipe = recipe_data()
    recipe["stages"][1]["fail_at"] = 1  # type: ignore[index]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            go(tmp_path / "r", **recipe)
    assert (tmp_path / "r/stages/one/work").read_text() == "1\n2\n3\n"
    assert (tmp_path / "r/stages/two/work").read_text() == "1\n"
    assert [a["outcome"] for a in json.loads((tmp_path / "r/manifest.json").read_text())["attempts"]] == [
        "failed",
        "failed",
    ]


def test_a_changed_recipe_is_refused_and_the_key_named(tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    go(out)
    before = state(out)
    with pytest.raises(RunError) as caught:
        go(out, seed=1)
    assert str(caught.value) == f"{out} was made with seed = 0, now 1: give another --out, or delete it."
    stages = recipe_data()["stages"]
    stages[1]["amount"] = 11  # type: ignore[index]
    with pytest.raises(RunError, match=r"was made with stages\.two\.amount = 10, now 11"):
        go(out, stages=stages)
    with pytest.raises(RunError, match=r"was made with stages = \['one', 'two', 'exam'\], now \['one', 'two'\]"):
        go(out, stages=stages[:2])  # type: ignore[index]
    assert state(out) == before
    go(out, description="other words make no other run")


def test_first_difference_sees_keys_that_come_and_go() -> None:
    a = {"version": 1, "name": "r", "seed": 0, "tasks": {}, "stages": [{"name": "x", "steps": 1}]}
    b = {**a, "stages": [{"name": "x", "steps": 1, "extra": None}]}
    assert first_difference(a, a) is None
    assert first_difference(a, {**a, "tasks": {"t": {"kind": "k"}}}) == ("tasks.t.kind", "nothing", "'k'")
    assert first_difference({**a, "tasks": {"t": {"kind": "k"}}}, a) == ("tasks.t.kind", "'k'", "nothing")
    assert first_difference(a, b) == ("stages.x.extra", "nothing", "None")


def test_a_folder_in_use_or_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "r"
    with lock(out), pytest.raises(RunError, match="Another process is working in"):
        go(out)
    other = tmp_path / "home"
    other.mkdir()
    (other / ".tmp-precious").write_text("x")
    (other / "letter.txt").write_text("x")
    with pytest.raises(RunError, match=r"no run folder and holds other things \('letter\.txt'\)"):
        go(other)
    assert sorted(os.listdir(other)) == [".tmp-precious", "letter.txt"]
    with pytest.raises(RunError, match="is a file"):
        go(other / "letter.txt")


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    out = tmp_path / "r"
    (out / ".tmp-1-resolved.json").parent.mkdir()
    (out / ".tmp-1-resolved.json").write_text("torn")
    (out / "recipe.toml").write_text("given")
    go(out)
    assert not list(out.rglob(".tmp-*"))


def test_models_from_outside_are_looked_up_before_anything_starts(tmp_path: Path) -> None:
    stages = recipe_data()["stages"]
    stages[2]["models"] = ["one", "outside"]  # type: ignore[index]
    assert [row.stage for row in go(tmp_path / "a", stages=stages).evaluations] == ["one", "outside"]
    stages[2]["models"] = ["one", "twoo"]  # type: ignore[index]
    with pytest.raises(
        RequestError,
        match=r"r\.toml: stage 'exam': models = 'twoo' is no stage \(did you mean 'two'\?\) and no model: there is no model 'twoo'",
    ):
        go(tmp_path / "b", stages=stages)
    assert not (tmp_path / "b").exists()


def test_a_moved_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        go(tmp_path / "here", should_stop=after(6))
    (tmp_path / "here").rename(tmp_path / "there")
    assert go(tmp_path / "there").evaluations[1].estimate.value == 0.33


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", "1.5"),
        ("seconds", None),
        ("seconds", True),
        ("flops", 10**400),
        ("tokens", 1.5),
        ("metrics", []),
        ("kind", 3),
        ("evaluations", {}),
        ("evaluations", [3]),
        ("evaluations", [{"stage": "one"}]),
    ],
)
def test_a_done_of_other_kinds_is_broken(tmp_path: Path, key: str, value: object) -> None:
    go(tmp_path)
    done = tmp_path / "stages" / "exam" / "done.json"
    done.write_text(json.dumps({**json.loads(done.read_text()), key: value}))
    with pytest.raises(
        RunError, match=r"exam/done\.json is broken: delete it, and `trilaw run` finishes the stage anew"
    ):
        go(tmp_path)
    done.unlink()
    assert go(tmp_path).seconds == 3.0


@pytest.mark.parametrize("tasks", [[1], "x", {"toy": 3}, None])
def test_a_resolved_recipe_with_other_tasks_is_another_one(tmp_path: Path, tasks: object) -> None:
    go(tmp_path)
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": tasks}))
    with pytest.raises(RunError, match=r"was made with tasks\.toy"):
        go(tmp_path)
