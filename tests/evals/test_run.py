from __future__ import annotations

import json
from dataclasses import replace

import pytest

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError, Stopped, TaskError
from trilaw.core.protocols import Sampler, Silent, Task
from trilaw.core.seeds import derive
from trilaw.core.types import SamplingParams
from trilaw.evals import run
from trilaw.evals.run import evaluate

from .conftest import TABLE, ScriptedSampler, Sums

PARAMS = SamplingParams(max_tokens=8)


def rows(path):
    """The stored lines without times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["seconds_elapsed"]
    return lines


def test_the_doubles_meet_the_protocols(task, sampler):
    assert isinstance(task, Task)
    double: Sampler = sampler
    assert double.pending == 0


def test_values_are_those_of_the_samples(task, sampler, tmp_path):
    result = evaluate(task, sampler, samples=6, params=PARAMS, seed=4, store=tmp_path / "s", stage="base")
    stored = rows(result.path)
    assert [(r["problem"], r["sample"]) for r in stored] == [(f"test/{i}", j) for i in range(7) for j in range(6)]
    for r in stored:
        choices = TABLE[r["messages"][0]["content"]]
        text = choices[derive(4, r["problem"], r["sample"], "eval") % 5]
        assert r["text"] == text[:8]
        assert r["value"] == float(text[:8].partition("=")[2] == r["gold"])
        assert r["tokens"] == list(r["text"].encode())
        assert "logprobs" not in r
    share = sum(r["value"] for r in stored) / len(stored)
    assert result["pass@1"].value == pytest.approx(share)
    assert result["maj@1"].value == pytest.approx(share)
    assert result["truncated"].value == pytest.approx(sum(r["stop"] == "length" for r in stored) / 42)
    assert result["answered"].value == pytest.approx(sum(r["extracted"] is not None for r in stored) / 42)
    assert result["mean_tokens"].value == pytest.approx(sum(len(r["tokens"]) for r in stored) / 42)
    shown = str(result).splitlines()
    assert [line.split()[0] for line in shown] == [row.metric for row in result.evaluations]
    assert result.problems[0] not in repr(result)  # which may be thousands
    assert result.tokens == sum(len(r["tokens"]) for r in stored)
    assert result.prompt_tokens == 42 * 3
    assert [e.metric for e in result.evaluations] == [
        *(f"{kind}@{k}" for kind in ("pass", "maj") for k in (1, 2, 4, 6)), "mean_tokens", "truncated", "answered",
    ]  # fmt: skip
    assert {(e.stage, e.task, e.split, e.estimate.n) for e in result.evaluations} == {("base", "sums", "test", 7)}
    assert (
        result["pass@6"].value == sum(any(r["value"] for r in stored if r["problem"] == p) for p in result.problems) / 7
    )
    assert sampler.pending == 0


def test_no_store_gives_the_same_numbers(task, tmp_path):
    kept = evaluate(task, ScriptedSampler(TABLE), samples=4, params=PARAMS, store=tmp_path / "s")
    lost = evaluate(task, ScriptedSampler(TABLE, batch=100), samples=4, params=PARAMS)
    assert lost.evaluations == kept.evaluations
    assert lost.values == kept.values
    assert lost.path is None


@pytest.mark.parametrize("after", [0, 1, 5, 16, 27])
def test_stopped_and_gone_on_equals_uninterrupted(task, tmp_path, after):
    whole = evaluate(task, ScriptedSampler(TABLE), samples=4, params=PARAMS, store=tmp_path / "whole")
    told = 0

    class Counting(Silent):
        def update(self, done, **metrics):
            nonlocal told
            told = done

    first = ScriptedSampler(TABLE, batch=1)
    with pytest.raises(Stopped):
        evaluate(
            task,
            first,
            samples=4,
            params=PARAMS,
            store=tmp_path / "s",
            progress=Counting(),
            should_stop=lambda: told >= after,
        )
    assert first.pending == 0
    kept = rows(tmp_path / "s" / "samples.jsonl")
    assert len(kept) == after
    second = ScriptedSampler(TABLE, batch=2)
    result = evaluate(task, second, samples=4, params=PARAMS, store=tmp_path / "s")
    assert sum(map(len, second.submitted)) == 28 - after
    assert rows(result.path) == rows(whole.path)
    assert result.evaluations == whole.evaluations


def test_killed_in_the_middle_of_a_line_equals_uninterrupted(task, tmp_path):
    whole = evaluate(task, ScriptedSampler(TABLE), samples=2, params=PARAMS, store=tmp_path / "whole")
    content = whole.path.read_bytes()
    for cut in (*range(0, len(content), 311), len(content) - 1):
        store = tmp_path / f"cut{cut}"
        store.mkdir()
        (store / "samples.settings.json").write_bytes((tmp_path / "whole" / "samples.settings.json").read_bytes())
        (store / "samples.jsonl").write_bytes(content[:cut])
        sampler = ScriptedSampler(TABLE)
        result = evaluate(task, sampler, samples=2, params=PARAMS, store=store)
        assert sum(map(len, sampler.submitted)) == 14 - content[:cut].count(b"\n")
        assert rows(result.path) == rows(whole.path)


def test_an_error_in_the_verifier_keeps_the_samples_and_frees_the_sampler(task, sampler, tmp_path, monkeypatch):
    calls = 0
    honest = task.verify

    def broken(problem, text):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ZeroDivisionError
        return honest(problem, text)

    monkeypatch.setattr(task, "verify", broken)
    with pytest.raises(ZeroDivisionError):
        evaluate(task, sampler, samples=4, params=PARAMS, store=tmp_path)
    assert sampler.pending == 0
    assert len(rows(tmp_path / "samples.jsonl")) == 5
    assert evaluate(task, sampler, samples=4, params=PARAMS, store=tmp_path).samples == 4


def test_a_store_can_be_widened(task, tmp_path):
    evaluate(task, ScriptedSampler(TABLE), limit=3, samples=2, params=PARAMS, store=tmp_path / "s")
    wide = ScriptedSampler(TABLE)
    result = evaluate(task, wide, limit=5, samples=4, params=PARAMS, store=tmp_path / "s")
    assert sum(map(len, wide.submitted)) == 5 * 4 - 3 * 2
    whole = evaluate(task, ScriptedSampler(TABLE), limit=5, samples=4, params=PARAMS, store=tmp_path / "whole")
    assert rows(result.path) == rows(whole.path)
    # Fewer are a part of what is there: nothing is drawn, nothing is lost.
    none = ScriptedSampler(TABLE)
    part = evaluate(task, none, limit=3, samples=2, params=PARAMS, store=tmp_path / "s")
    assert none.submitted == []
    assert part.evaluations == evaluate(task, none, limit=3, samples=2, params=PARAMS).evaluations
    assert len(rows(result.path)) == 20


def test_other_settings_are_refused(task, sampler, tmp_path):
    evaluate(task, sampler, params=PARAMS, store=tmp_path, settings={"model": "a"})
    with pytest.raises(RequestError, match=r"temperature = 1\.0, not 0\.5"):
        evaluate(task, sampler, params=replace(PARAMS, temperature=0.5), store=tmp_path, settings={"model": "a"})
    with pytest.raises(RequestError, match='model = "a", not "b"'):
        evaluate(task, sampler, params=PARAMS, store=tmp_path, settings={"model": "b"})
    with pytest.raises(RequestError, match="another problem 'test/0'"):
        evaluate(Sums(gold="5"), sampler, params=PARAMS, store=tmp_path, settings={"model": "a"})


def test_large_evaluations_wait_outside_the_sampler(monkeypatch):
    monkeypatch.setattr(run, "WINDOW", 20)
    sampler = ScriptedSampler(TABLE, batch=7)
    result = evaluate(Sums(300), sampler, samples=4, params=PARAMS)
    assert 20 <= sampler.most <= 23
    assert len(result.problems) == 300
    assert all(len({name.rpartition("/")[0] for name in wave}) == 1 for wave in sampler.submitted)


def test_samples_that_could_not_be_verified_are_counted_apart():
    result = evaluate(Sums(2), ScriptedSampler({"0+1": ["=1"], "1+1": ["=?"]}), samples=2, params=PARAMS)
    assert result.errors == 2
    assert result["pass@1"].value == 0.5


def test_flops_are_filled_in_where_the_sampler_knows_none():
    arch = Arch(
        vocab_size=10, hidden_size=4, intermediate_size=6, layers=2, heads=2, kv_heads=1, head_dim=2, max_positions=8
    )
    result = evaluate(Sums(1), ScriptedSampler({"0+1": ["=1"]}), params=PARAMS, arch=arch)
    assert result.flops == arch.forward_flops(4, 10, 2)  # three prompt tokens and the first of two


def test_bad_requests_are_sentences(task, sampler):
    with pytest.raises(RequestError, match="did you mean 'test'"):
        evaluate(task, sampler, split="tset", params=PARAMS)
    with pytest.raises(RequestError, match="same sample 4 times"):
        evaluate(task, sampler, samples=4, params=replace(PARAMS, temperature=0.0))
    with pytest.raises(RequestError, match="at least one"):
        evaluate(task, sampler, samples=0, params=PARAMS)
    with pytest.raises(TaskError, match="no problems"):
        evaluate(Sums(0), sampler, params=PARAMS)


def test_a_prompt_that_is_too_long_names_its_problem(sampler, monkeypatch):
    task = Sums(3)
    plain = task.problems

    def problems(split, *, seed=0, limit=None):
        found = plain(split, seed=seed, limit=limit)
        return [*found[:2], replace(found[2], messages=({"role": "user", "content": "x" * 200},))]

    monkeypatch.setattr(task, "problems", problems)
    with pytest.raises(RequestError, match=r"Problem test/2: The prompt has more tokens"):
        evaluate(task, sampler, params=PARAMS)
    assert sampler.pending == 0


def test_two_problems_of_one_id_are_refused(sampler, monkeypatch):
    task = Sums(2)
    twice = task.problems("test")[:1] * 2
    monkeypatch.setattr(task, "problems", lambda *a, **k: twice)
    with pytest.raises(TaskError, match="two problems"):
        evaluate(task, sampler, params=PARAMS)


def test_progress_counts_what_was_stored_before(task, tmp_path):
    said = []

    class Watching(Silent):
        def start(self, stage, total, done=0):
            said.append((stage, total, done))

        def update(self, done, **metrics):
            said.append(done)
            assert 0.0 <= metrics["pass@1"] <= 1.0

    evaluate(task, ScriptedSampler(TABLE), limit=2, params=PARAMS, store=tmp_path)
    evaluate(task, ScriptedSampler(TABLE), limit=4, params=PARAMS, store=tmp_path, progress=Watching(), stage="zero")
    assert said == [("zero test", 4, 2), 3, 4]
