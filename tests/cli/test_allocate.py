"""`trilaw allocate`: budgets and prices are read strictly, and a run folder gets a verdict or the sentence that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trilaw.cli.allocate import parse_budget, parse_price
from trilaw.cli.main import main
from trilaw.core.errors import RequestError

ARCH = {
    "model_type": "llama",
    "vocab_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Eight bases on a clean loss law, RL on the largest with three kept models, 48 questions x 8 samples of each."""
    folder, draw = tmp_path / "run", np.random.default_rng(1)
    stages, events, examined = [], [], []

    def done(name: str, kind: str, **more: object) -> None:
        write(folder / "stages" / name / "done.json", {"name": name, "kind": kind, "model": None, "seconds": 1.0, "flops": 0.0, "tokens": 0, "metrics": {}, "evaluations": [], **more})  # fmt: skip

    for hidden in (8, 16, 32):
        for tokens in (100_000, 400_000, 1_600_000):
            name = f"b{hidden}-{tokens // 1000}k"
            n = 48 * hidden * 2 + 2 * (4 * hidden**2 + 3 * 64 * hidden + 2 * hidden) + hidden
            loss = 1.0 + 60.0 / n**0.5 + 400.0 / tokens**0.55
            stages.append({"name": name, "kind": "pretrain", "task": "calc"})
            done(name, "pretrain", model="model", tokens=tokens, flops=6.0 * n * tokens, metrics={"valid_loss": loss})
            write(folder / "stages" / name / "model" / "config.json", {**ARCH, "hidden_size": hidden})
            examined.append((name, -2.5 + 3.0 * (2.2 - loss)))
    stages.append({"name": "rl", "kind": "grpo", "base": "b32-1600k", "steps": 40})
    done("rl", "grpo", model="model", flops=4e10)
    write(folder / "stages" / "rl" / "model" / "config.json", {**ARCH, "hidden_size": 32})
    for step in range(1, 41):
        events.append({"stage": "rl", "step": step, "flops": 1e9 * step, "reward": 0.5})
    start = examined[-1][1]
    for step in (10, 20, 30, 40):
        name = "rl" if step == 40 else f"rl@{step}"
        examined.append((name, start + 3.0 / (1 + (8.0 / step) ** 1.5)))
    stages.append(
        {"name": "exam", "kind": "eval", "models": [m for m, _ in examined], "task": "calc", "splits": ["test"]}
    )
    done("exam", "eval")
    from trilaw.reports.read import sample_store

    for model, logit in examined:
        mean = 1 / (1 + np.exp(-logit))
        lines = []
        for question in range(48):
            p = np.random.default_rng(question).beta(6 * mean, 6 * (1 - mean))
            for index in range(8):
                right = bool(draw.random() < p)
                lines.append(json.dumps({"problem": f"q{question}", "sample": index, "value": float(right), "extracted": "1" if right else str(draw.integers(2, 30)), "usage": {"prompt_tokens": 8, "completion_tokens": 20}}))  # fmt: skip
        write(sample_store(folder / "stages" / "exam", model, "test"), "\n".join(lines) + "\n")
    write(folder / "resolved.json", {"version": 1, "name": "run", "seed": 0, "stages": stages})
    write(folder / "recipe.toml", "version = 1\n")
    write(folder / "events.jsonl", "".join(json.dumps(row) + "\n" for row in events))
    return folder


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("1e18", 1e18, "flops"), ("2e15 FLOPs", 2e15, "flops"), ("500USD", 500, "usd"), ("$1_000", 1000, "usd")],
)
def test_budgets(text: str, amount: float, unit: str) -> None:
    assert parse_budget(text) == (amount, unit)


@pytest.mark.parametrize("text", ["", "-1", "0", "nan", "inf", "1e18 EUR", "a lot"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(RequestError, match="give FLOPs such as 1e18, or dollars such as 500USD"):
        parse_budget(text)


def test_prices() -> None:
    price = parse_price("2,1e15,0.5")
    assert price.usd_per_flop == pytest.approx(2 / 3600 / 1e15 / 0.5)
    with pytest.raises(RequestError, match=r"such as 2,989e12,0\.35"):
        parse_price("2")


def test_a_run_gets_a_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("allocate", str(run), "--budget", "3e11", "--queries", "1000", "--bootstraps", "30") == 0
    said = capsys.readouterr().out
    assert "Best split of 3e+11 FLOPs" in said
    assert "A tenth of the budget more into one option" in said
    assert "status quo" in said
    assert call("allocate", str(run), "--budget", "3e11", "--queries", "1000", "--bootstraps", "30", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert sum(plan["spent"].values()) <= 3e11 * 1.001
    assert {option["name"] for option in plan["options"]} == {"pretraining", "rl", "samples"}
    assert plan["accuracy"]["low"] <= plan["accuracy"]["value"] <= plan["accuracy"]["high"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--budget", "much"], "--budget is 'much'"),
        (["--budget", "1e3"], "budget"),
        (["--budget", "500USD"], "price"),
        (["--budget", "1e12", "--model", "nobody"], "measured no model 'nobody'"),
        (["--budget", "1e12", "--how", "luck"], "'luck'"),
        (["--budget", "1e12", "--queries", "-1"], "number of questions"),
    ],
)
def test_one_sentence_for_what_is_wrong(
    words: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("allocate", str(run), "--bootstraps", "20", *words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_run_without_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "r" / "resolved.json", {"version": 1, "stages": []})
    assert call("allocate", str(tmp_path / "r"), "--budget", "1e12") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--budget", "5USD"], "say with --price what a FLOP costs, such as --price 2,989e12,0.35"),
        (["--budget", "1e61"], "at most 1e+60"),
        (["--budget", "1e12", "--queries", "1e300"], "at most 1e+18"),
        (["--budget", "1e12", "--queries", "0"], "it must be at least 1"),
        (["--budget", "1e12", "--queries", "nan"], "lifetime is nan"),
        (["--budget", "1e12", "--how", "luck"], "how is 'luck'"),
        (["--budget", "1e12", "--accuracy", "1"], "target accuracy is 1"),
        (["--budget", "1e12", "--accuracy", "nan"], "target accuracy is nan"),
        (["--budget", "5USD", "--price", "2,1e400,0.5"], "price of a FLOP is 0"),
        (["--budget", "5USD", "--price", "nan,1,1"], "price of a FLOP is nan"),
    ],
)
def test_a_slip_costs_no_fit(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilaw.api.laws.fit", lambda *_, **__: pytest.fail("the fit was run"))
    assert call("allocate", str(tmp_path), *words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
