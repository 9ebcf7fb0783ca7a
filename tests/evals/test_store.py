from __future__ import annotations

import json

import pytest

from trilaw.core.errors import RequestError, RunError
from trilaw.core.types import Message, Problem, Sample, SamplingParams, Score, Usage
from trilaw.evals.run import evaluate
from trilaw.evals.store import Store, files, read_rows, read_settings

PARAMS = SamplingParams(max_tokens=8)


def test_where_a_store_lies(tmp_path):
    assert files(tmp_path / "a") == (tmp_path / "a" / "samples.jsonl", tmp_path / "a" / "samples.settings.json")
    assert files(tmp_path / "b.1.jsonl") == (tmp_path / "b.1.jsonl", tmp_path / "b.1.settings.json")


def test_a_file_as_store(task, sampler, tmp_path):
    path = tmp_path / "deep" / "base-test.jsonl"
    result = evaluate(task, sampler, params=PARAMS, seed=3, store=path, logprobs=True)
    assert result.path == path
    stored = list(read_rows(path))
    assert len(stored) == 7
    assert all(len(row["logprobs"]) == len(row["tokens"]) for row in stored)
    settings = read_settings(path)
    assert (settings["task"], settings["split"], settings["seed"], settings["max_tokens"]) == ("sums", "test", 3, 8)


def test_a_broken_line_inside_is_a_sentence(task, sampler, tmp_path):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    good = path.read_text().splitlines()
    for bad in ("{", "[]", "{}", "3"):
        path.write_text("\n".join([good[0], bad, *good[2:]]) + "\n")
        with pytest.raises(RunError, match="line 2"):
            evaluate(task, sampler, params=PARAMS, store=tmp_path)
        with pytest.raises(RunError, match="line 2"):
            list(read_rows(tmp_path))
    path.write_text(json.dumps({"problem": "test/0", "sample": 0}) + "\n")
    with pytest.raises(RunError, match="incomplete"):
        evaluate(task, sampler, params=PARAMS, store=tmp_path)


def test_reading_leaves_out_a_torn_line(task, sampler, tmp_path):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    path.write_bytes(path.read_bytes()[:-5])
    assert len(list(read_rows(tmp_path))) == 6


def test_samples_without_settings_are_not_touched(task, sampler, tmp_path):
    (tmp_path / "samples.jsonl").write_text("precious\n")
    with pytest.raises(RequestError, match="beside it"):
        evaluate(task, sampler, params=PARAMS, store=tmp_path)
    assert (tmp_path / "samples.jsonl").read_text() == "precious\n"


def test_a_line_that_stands_there_twice_counts_once(task, sampler, tmp_path):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[2])
    again = evaluate(task, sampler, params=PARAMS, store=tmp_path)
    assert len(again.problems) == 7
    assert path.read_bytes() == content


def test_missing_and_unwritable_stores_are_sentences(tmp_path):
    with pytest.raises(RunError):
        list(read_rows(tmp_path / "none"))
    with pytest.raises(RunError):
        read_settings(tmp_path / "none")
    (tmp_path / "f").write_text("")
    with pytest.raises(RunError):
        Store(tmp_path / "f" / "x", {})


def test_nothing_temporary_stays_behind(task, sampler, tmp_path):
    evaluate(task, sampler, samples=3, params=PARAMS, store=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "samples.jsonl", "samples.settings.json"]


def test_a_disk_that_fills_up_is_named_once(tmp_path):
    store = Store(tmp_path / "s", {"seed": 0})
    problem = Problem("p", (Message(role="user", content="q"),), "1")
    sample = Sample("p/0", (), (), "x" * 100, (), "stop", 0, Usage())
    full = open("/dev/full", "ab")  # noqa: SIM115  (the store closes it)
    store._file.close()
    store._file = full
    with pytest.raises(RunError, match="the disk is full"):
        store.add(problem, 0, sample, Score(1.0), Usage(), 0.0)
    store.close()
    assert full.closed


@pytest.mark.parametrize(
    "change",
    [
        {"value": "1"},
        {"value": None},
        {"value": float("nan")},
        {"value": 10**400},
        {"extracted": ["a"]},
        {"usage": {"prompt_tokens": "x"}},
        {"usage": {"flops": float("inf")}},
        {"usage": 3},
        {"seconds_elapsed": None},
        {"messages": 3},
    ],
)
def test_a_line_with_other_kinds_of_values_is_a_sentence(task, sampler, tmp_path, change):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"sample 0 of problem .* is incomplete: delete its line"):
        evaluate(task, sampler, params=PARAMS, store=tmp_path)
    assert len(path.read_text().splitlines()) == 7, "nothing is thrown away"


@pytest.mark.parametrize("line", ['{"problem": ["a"], "sample": 0}', '{"problem": "a", "sample": "0"}', "[" * 100_000])
def test_a_line_that_names_no_sample_is_a_sentence(task, sampler, tmp_path, line):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    path.write_text(line + "\n")
    with pytest.raises(RunError, match="line 1, is no stored sample"):
        evaluate(task, sampler, params=PARAMS, store=tmp_path)


def test_settings_that_are_no_table_are_a_sentence(task, sampler, tmp_path):
    path = evaluate(task, sampler, params=PARAMS, store=tmp_path).path
    path.with_suffix(".settings.json").write_text("[1]")
    for again in (lambda: evaluate(task, sampler, params=PARAMS, store=tmp_path), lambda: read_settings(tmp_path)):
        with pytest.raises(RunError, match="is no table"):
            again()
