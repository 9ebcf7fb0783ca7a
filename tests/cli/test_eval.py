"""`trilaw eval`: what it asks of the API and what it prints. The API is replaced where a model would be needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import trilaw.api.evaluate as api
from trilaw.cli.main import build
from trilaw.core.config import TaskSpec
from trilaw.core.intervals import bootstrap
from trilaw.core.ledger import Totals
from trilaw.core.types import Evaluation, SamplingParams
from trilaw.evals.run import EvalResult


@pytest.fixture
def asked(monkeypatch):
    """The arguments that the command gave to trilaw.api.evaluate."""
    seen: dict = {}

    def evaluate(model, task, **options):
        seen.update(options, model=model, task=task)
        values = {"pass@1": (1.0, 0.0, 1.0, 1.0), "mean_tokens": (10.0, 20.0, 30.0, 40.5)}
        bounds = {"pass@1": (0.0, 1.0), "mean_tokens": (0.0, 99.0)}
        rows = tuple(
            Evaluation("", task.kind, options["split"], m, bootstrap(v, bounds=bounds[m])) for m, v in values.items()
        )
        return EvalResult(
            rows, ("a", "b", "c", "d"), values, 1, 2, Totals(1.5e12, 4.0, 100), 40, Path("s/samples.jsonl")
        )

    monkeypatch.setattr(api, "evaluate", evaluate)
    return seen


def run(*words: str):
    return CliRunner().invoke(build(), ["eval", *words], catch_exceptions=False)


def test_the_table_names_everything(asked):
    done = run("m", "--task", "gsm8k")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["metric", "value", "95%", "interval", "problems", "method"]
    assert lines[1].split()[:2] == ["pass@1", "0.750"]
    assert "[0.250, 1.000]" in lines[1]
    assert lines[1].endswith("bootstrap over problems, 95%")
    assert lines[2].split()[1] == "25.1"
    assert "100 tokens, 4.0 s, 25 tokens/s, 1.5e12 FLOPs" in done.stdout
    assert "2 samples could not be verified" in done.stdout
    assert "s/samples.jsonl" in done.stdout


def test_json_is_the_stable_schema(asked):
    out = json.loads(run("m", "--task", "gsm8k", "--json").stdout)
    assert list(out) == ["version", "model", "task", "split", "evaluations", "usage", "errors", "samples"]
    assert (out["version"], out["model"], out["task"], out["split"]) == (1, "m", "gsm8k", "test")
    assert set(out["evaluations"][0]) == {"stage", "task", "split", "metric", "value", "low", "high", "n", "method"}
    assert out["usage"] == {
        "prompt_tokens": 40,
        "completion_tokens": 100,
        "seconds": 4.0,
        "tokens_per_second": 25.0,
        "flops": 1.5e12,
    }


def test_options_reach_the_api(asked):
    run(
        "m", "--task", "calculator", "--task-option", "digits=[1, 3]", "--split", "hard", "--samples", "4", "--limit", "9",
        "--temperature", "0.6", "--top-p", "0.9", "--top-k", "5", "--min-p", "0.1", "--max-tokens", "64", "--seed", "3", "--stop", "X",
        "--stop", "Y", "--out", "there",
    )  # fmt: skip
    assert asked["task"] == TaskSpec(kind="calculator", options={"digits": [1, 3]})
    assert asked["params"] == SamplingParams(0.6, 5, 0.9, 0.1, 64, ("X", "Y"))
    assert (asked["split"], asked["samples"], asked["limit"], asked["seed"]) == ("hard", 4, 9, 3)
    assert (asked["store"], asked["stores"]) == (Path("there"), None)
    run("m", "--task", "gsm8k", "--data", "d.jsonl")
    assert (asked["store"], asked["stores"]) == (None, Path("runs/eval"))
    assert asked["params"] == SamplingParams()
    assert asked["task"].options == {"data": {"test": "d.jsonl"}}


def test_bad_options_are_usage_errors(asked):
    for words in (("m",), ("m", "--task", "t", "--samples", "0"), ("m", "--task", "t", "--temperature", "-1")):
        assert CliRunner().invoke(build(), ["eval", *words]).exit_code == 2
    assert asked == {}


def test_default_stores_tell_settings_apart(tmp_path):
    names = {api.store_name("a/b c", "gsm8k", "test", {"seed": seed}) for seed in (0, 1)}
    assert len(names) == 2
    assert all(name.startswith("b-c-gsm8k-test-") for name in names)
    assert "/" not in api.store_name("runs/tiny#base", "t", "x/../y", {})


def test_fingerprint_sees_any_changed_weight_file(tmp_path):
    def write(size: int, name: str = "model.safetensors", change: int | None = None) -> str:
        data = bytearray(i % 251 for i in range(size))
        if change is not None:
            data[change] ^= 1
        (tmp_path / name).write_bytes(data)
        return api.fingerprint(tmp_path)

    assert write(5000) == write(5000)
    assert (
        len({write(5000), write(5001), write(5000, change=0), write(5000, change=2500), write(5000, change=4999)}) == 5
    )
    write(5000)
    alone = api.fingerprint(tmp_path / "model.safetensors")
    assert alone == api.fingerprint(tmp_path / "model.safetensors")
    assert write(0, "second.safetensors") != write(5000, "third.safetensors")
