"""A run folder is read as far as it goes, and never written to."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from trilaw.core.errors import RequestError, RunError
from trilaw.pipeline.evaluate import store_path
from trilaw.reports import contract
from trilaw.reports.measurements import material
from trilaw.reports.read import id_order, read_run, sample_store

from .conftest import ARCH, BASE, FakeRun, write


def test_a_finished_run_is_read_whole(tiny_run: Path) -> None:
    run = read_run(tiny_run)
    assert (run.name, run.seed, run.complete) == ("tiny", 0, True)
    assert [stage.name for stage in run.stages] == ["small", "medium", "base", "zero", "random", "exam"]
    assert run.stages[0].parameters == 2 * 48 * 48 + 4 * (4 * 48 * 48 + 3 * 48 * 344 + 2 * 48) + 48
    first = next(
        row for row in run.evaluations if row.stage == "zero" and row.metric == "pass@1" and row.split == "test"
    )
    assert (first.estimate.value, first.estimate.low, first.estimate.high, first.estimate.n) == (
        0.951,
        0.94,
        0.965,
        256,
    )
    assert run.ancestors("zero") == ["base"]
    assert len(run.series("zero", "step", "reward")[0]) == 50
    assert run.series("zero", "step", "loss") == ([], [])  # null in every row
    base = [sample for sample in run.samples if sample.stage == "base"]
    assert [sample.problem for sample in base] == ["test/0", "test/1", "test/2", "test/3"]
    assert (base[0].task, base[0].split, base[0].text, base[0].tokens) == ("calc", "test", "= 21", 24)


def test_an_unfinished_run_with_torn_files(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.9, done=False)
    fake.exam({"base": {"test": BASE}}, done=False)
    folder = fake.close()
    torn = (folder / "events.jsonl").read_text() + '{"stage": "zero", "st'
    write(folder / "events.jsonl", torn)
    write(folder / "manifest.json", "{broken")
    write(folder / "stages" / "zero" / "done.json", "[]")
    write(
        folder / "stages" / "exam" / "base-test.jsonl",
        'null\n[1]\n{"problem": 3, "sample": 0}\n{"problem": "a", "sample": 0, "text": "x"}\n{"probl',
    )
    run = read_run(folder)
    assert [stage.done for stage in run.stages] == [True, False, False]
    assert not run.complete
    assert run.evaluations == ()
    assert len(run.rows("zero")) == 50
    assert [(sample.text, sample.gold, sample.extracted) for sample in run.samples] == [("x", "", None)]
    assert (folder / "events.jsonl").read_text() == torn  # a reader does not mend what another process may be writing


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run folder"):
        read_run(tmp_path)
    write(tmp_path / "resolved.json", "{}")
    with pytest.raises(RunError, match="lists no named stages"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "model", ["zero", "owner/name", "../../etc", "http://host/v1#m", "größe", "a" * 200, ".hidden"]
)
def test_sample_stores_are_where_the_pipeline_puts_them(tmp_path: Path, model: str) -> None:
    assert sample_store(tmp_path, model, "test") == store_path(tmp_path, model, "test")


def test_ids_order_by_value() -> None:
    assert sorted(["test/10", "test/2", "b", "test/1", "7"], key=id_order) == ["7", "b", "test/1", "test/2", "test/10"]


def test_a_circle_of_bases_ends(fake: FakeRun) -> None:
    fake.grpo("a", "b", 0.5)
    fake.grpo("b", "a", 0.5)
    assert read_run(fake.close()).ancestors("a") == ["b", "a"]


HOSTILE = [
    "NaN",
    "1e400",
    "1" + "0" * 400,
    "-1e308",
    "true",
    "null",
    '"\\ud800\\u0000"',
    "[]",
    "[[]]",
    "{}",
    "[" * 5_000 + "]" * 5_000,
]


@pytest.mark.parametrize("token", HOSTILE)
def test_a_damaged_number_is_none_and_the_rest_is_read(fake: FakeRun, token: str) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.9)
    fake.exam({"base": {"test": BASE}, "zero": {"test": BASE}})
    folder = fake.close()
    for path in (folder / "stages" / "zero" / "done.json", folder / "stages" / "exam" / "done.json"):
        path.write_text(re.sub(r"(?<=: )-?[0-9.e+]+(?=[,}])", lambda _: token, path.read_text(), count=3))
    events = (folder / "events.jsonl").read_text().splitlines()
    events[-1] = re.sub(r"(?<=: )-?[0-9.e+]+(?=[,}])", lambda _: token, events[-1])
    write(folder / "events.jsonl", "\n".join(events) + "\n")
    run = read_run(folder)
    report = contract.report(run)
    assert contract.check(json.loads(json.dumps(report, allow_nan=False))) == []
    assert len(run.series("zero", "step", "reward")[0]) == 49
    material(run)


def test_a_done_that_cannot_be_read_is_said(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.exam({"base": {"test": BASE}})
    folder = fake.close()
    assert read_run(folder).faults == ()
    write(folder / "stages" / "exam" / "done.json", '{"torn')
    (fault,) = read_run(folder).faults
    assert re.search(r"exam/done\.json cannot be read: mend it, or delete it", fault)
    (folder / "stages" / "exam" / "done.json").unlink()
    assert read_run(folder).faults == (), "a stage that has not finished is no fault"


def test_pipes_and_devices_are_not_read(fake: FakeRun) -> None:
    fake.pretrain("base", 128, 1.0)
    fake.exam({"base": {"test": BASE}})
    folder = fake.close()
    (folder / "events.jsonl").unlink()
    os.mkfifo(folder / "events.jsonl")
    (folder / "recipe.toml").unlink()
    (folder / "recipe.toml").symlink_to("/dev/zero")
    (folder / "stages" / "exam" / "base-test.jsonl").symlink_to("/dev/zero")
    run = read_run(folder)
    assert (run.events, run.recipe, run.samples) == ((), "", ())


@pytest.mark.parametrize("layers", [10**18, 10**400, -1, 0, "2", 2.5, None])
def test_a_model_of_absurd_depth_has_no_size(fake: FakeRun, layers: object) -> None:
    fake.pretrain("base", 128, 1.0)
    write(
        fake.folder / "stages" / "base" / "model" / "config.json",
        {**ARCH, "hidden_size": 128, "num_hidden_layers": layers},
    )
    assert read_run(fake.close()).stages[0].parameters is None
