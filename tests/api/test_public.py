"""The public functions, on models of a few thousand weights: train, load, sample, evaluate, solve, report."""

from __future__ import annotations

from pathlib import Path

import pytest

import trilaw
from trilaw.core.errors import ConfigError, RequestError, RunError
from trilaw.evals.run import EvalResult


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> trilaw.RunSummary:
    """A calculator model of one layer, pre-trained for six steps."""
    out = tmp_path_factory.mktemp("api") / "Base 1"
    size = {
        "hidden": 16,
        "layers": 1,
        "heads": 2,
        "row_tokens": 64,
        "rows_per_step": 2,
        "tokens": 768,
        "valid_documents": 4,
    }
    return trilaw.pretrain(task="calculator", out=out, seed=1, **size)


@pytest.fixture(scope="module")
def model(base: trilaw.RunSummary) -> trilaw.Model:
    return trilaw.load(base.folder)


def test_a_stage_alone_is_a_run(base: trilaw.RunSummary) -> None:
    assert base.name == "base-1"
    assert base.model == base.folder / "stages/pretrain/model"
    assert base.report.is_file()
    assert list(base.results) == ["pretrain"]


def test_the_same_call_again_changes_nothing_and_another_is_refused(base: trilaw.RunSummary) -> None:
    size = {
        "hidden": 16,
        "layers": 1,
        "heads": 2,
        "row_tokens": 64,
        "rows_per_step": 2,
        "tokens": 768,
        "valid_documents": 4,
    }
    assert not trilaw.pretrain(task="calculator", out=base.folder, seed=1, **size).fresh
    with pytest.raises(RunError, match="seed = 1, now 2"):
        trilaw.pretrain(task="calculator", out=base.folder, seed=2, **size)


def test_sampling_repeats_and_keeps_order(model: trilaw.Model) -> None:
    task = trilaw.task("calculator")
    problems = task.problems("test", limit=2)
    params = trilaw.SamplingParams(max_tokens=8)
    first = model.sample([problems[0], problems[1].messages, problems[1].messages[-1]["content"]], 2, params, seed=4)
    assert len(first) == 6
    assert first[2].prompt_tokens == first[4].prompt_tokens != first[0].prompt_tokens, "three ways to ask, in order"
    again = trilaw.sample(model, problems[0], 2, params, seed=4)
    assert [s.tokens for s in again] == [s.tokens for s in first[:2]]
    assert again[0].tokens != again[1].tokens
    other = model.sample(problems[0], 2, params, seed=5)
    assert [s.tokens for s in other] != [s.tokens for s in again]


def test_training_goes_on_from_a_run_with_a_task_made_in_python(base: trilaw.RunSummary, tmp_path: Path) -> None:
    task = trilaw.task("calculator", train_steps=[1, 2])
    taught = trilaw.sft(
        base=base.folder, task=task, out=tmp_path / "taught", examples=8, batch_examples=4, valid_examples=0
    )
    assert taught.model is not None
    trained = trilaw.grpo(
        base=taught.model, task=task, out=tmp_path / "zero", steps=1, problems=2, samples=2, max_tokens=8
    )
    assert trained.results["grpo"].kind == "grpo"
    assert trilaw.load(trained.folder).arch == trilaw.load(base.folder).arch


def test_evaluate_and_solve_take_what_load_gave(model: trilaw.Model) -> None:
    params = trilaw.SamplingParams(max_tokens=8)
    result = trilaw.evaluate(model, "calculator", limit=3, samples=2, params=params)
    assert result["pass@1"].n == 3
    question = trilaw.task("calculator").problems("test", limit=1)[0].messages[-1]["content"]
    assert isinstance(trilaw.solve(model, question, params=params).text(), str)


def test_sampling_options_may_be_keywords(model: trilaw.Model) -> None:
    problem = trilaw.task("calculator").problems("test", limit=1)[0]
    params = trilaw.SamplingParams(temperature=0.5, max_tokens=6)
    plain = model.sample(problem, 2, params)
    assert [s.tokens for s in plain] == [s.tokens for s in model.sample(problem, 2, temperature=0.5, max_tokens=6)]
    shorter = trilaw.sample(model, problem, 2, params, max_tokens=3)
    assert [s.tokens for s in shorter] == [s.tokens[:3] for s in plain], "a keyword goes over params"
    assert len(model.sample(problem.messages, max_tokens=3)) == 1, "a list of messages is one prompt"
    with pytest.raises(TypeError, match="max_token"):
        model.sample(problem, max_token=3)  # type: ignore[call-arg]


def test_compare_pairs_the_problems(model: trilaw.Model, tmp_path: Path) -> None:
    def measured(limit: int, temperature: float) -> EvalResult:
        return trilaw.evaluate(model, {"kind": "calculator"}, limit=limit, temperature=temperature, max_tokens=8)

    cold, warm = measured(6, 0.0), measured(6, 1.0)
    gain = trilaw.compare(warm, cold, "mean_tokens")
    difference = sum(a - b for a, b in zip(warm.values["mean_tokens"], cold.values["mean_tokens"], strict=True)) / 6
    assert gain.value == pytest.approx(difference)
    assert gain.low <= gain.value <= gain.high
    assert gain.n == 6
    assert trilaw.compare(cold, cold).value == 0
    with pytest.raises(RequestError, match="different problems"):
        trilaw.compare(measured(3, 1.0), cold)
    with pytest.raises(RequestError, match="no 'maj@8'"):
        trilaw.compare(warm, cold, "maj@8")


def test_a_store_may_be_named_by_a_string(model: trilaw.Model, tmp_path: Path) -> None:
    first = trilaw.evaluate(model, "calculator", limit=2, max_tokens=4, store=str(tmp_path / "kept.jsonl"))
    assert first.path == tmp_path / "kept.jsonl"
    again = trilaw.evaluate(model, "calculator", limit=2, max_tokens=4, stores=str(tmp_path))
    assert again.path is not None
    assert again.path.parent.parent == tmp_path


def test_pretrain_takes_a_text_file(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("One line.\n\nAnother.\n\nA third.\n")
    size = {"hidden": 16, "layers": 1, "heads": 2, "row_tokens": 32, "rows_per_step": 2, "tokens": 128}
    made = trilaw.pretrain(data=text, out=tmp_path / "made", **size)
    sample = trilaw.sample(made.folder, "Ünlikely wörds\n", max_tokens=3)[0]
    assert len(sample.tokens) <= 3
    with pytest.raises(ConfigError, match="give either task or data"):
        trilaw.pretrain(out=tmp_path / "none", **size)
    with pytest.raises(ConfigError, match="give either task or data"):
        trilaw.pretrain(task="calculator", data=text, out=tmp_path / "both", **size)


def test_names_and_reports(base: trilaw.RunSummary, tmp_path: Path) -> None:
    assert trilaw.resolve(str(base.folder)) == base.model
    assert trilaw.resolve(f"{base.folder}#pretrain") == base.model
    assert trilaw.report(base.folder) == base.report
    with pytest.raises(RequestError):
        trilaw.report(tmp_path)
    with pytest.raises(RequestError, match="smollm2-135m"):
        trilaw.pull("smollm2-135")


def test_wrong_keywords_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trilaw\.grpo: stage 'grpo': unknown key 'step' \(did you mean 'steps'\?\)"):
        trilaw.grpo(base="x", task="calculator", out=tmp_path / "r", step=3)
    with pytest.raises(RequestError, match="is no stage"):
        trilaw.grpo(base="no-such-model", task="calculator", out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
