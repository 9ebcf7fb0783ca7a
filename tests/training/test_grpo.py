from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from trilaw.core.errors import ConfigError, TaskError, TrilawError
from trilaw.core.events import EventLog
from trilaw.core.types import Group, Problem, Sample, SamplingParams, Score, Usage
from trilaw.engine.engine import Engine
from trilaw.model.hf import load_folder
from trilaw.model.int8 import unsupported
from trilaw.model.llama import CausalLM
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import grpo
from trilaw.training.grpo_config import GrpoConfig
from trilaw.training.grpo_update import learn
from trilaw.training.rollout import roll

from .conftest import Copy, Finite


class Spy:
    """Stands where the optimizer does and keeps the gradient."""

    def __init__(self, model: CausalLM) -> None:
        self.model = model

    def step(self, step: int) -> tuple[float, float]:
        self.gradient = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad(set_to_none=True)
        return 0.0, 0.0


def group(samples: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], values: Sequence[float]) -> Group:
    made = [Sample("", p, t, "", (-1.0,) * len(t), "stop", 0, Usage()) for p, t in samples]
    return Group(Problem("p", (), ""), tuple(made), tuple(Score(v) for v in values))


GROUPS = [
    group([((3, 4), (5, 6)), ((3, 4), (7,)), ((3, 4), (5, 9, 2))], [1.0, 0.0, 0.0]),
    group([((8,), (2, 2)), ((8,), (4, 4)), ((8,), (6,))], [1.0, 1.0, 1.0]),
    group([((1, 2, 3), (9, 9)), ((1, 2, 3), (5,)), ((1, 2, 3), (2, 1, 7, 7))], [0.0, 1.0, 1.0]),
]


def rewards(groups: Sequence[Group]) -> torch.Tensor:
    return torch.tensor([[score.value for score in g.scores] for g in groups])


def gradient(model: CausalLM, groups: Sequence[Group], **options: Any) -> tuple[float, dict[str, torch.Tensor]]:
    spy = Spy(model)
    reference = options.pop("reference", None)
    config = GrpoConfig(base="b", task="t", **options)
    update = learn(model, spy, 1, groups, rewards(groups), config, torch.float32, reference)  # type: ignore[arg-type]
    return update.loss, spy.gradient


def brute_force(
    model: CausalLM, groups: Sequence[Group], temperature: float, total: int, cap: float | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """REINFORCE with the group's mean as baseline, one sequence and one token at a time; with `cap`, weighed by capped ratios."""
    loss = torch.zeros(())
    for g in groups:
        mean = sum(s.value for s in g.scores) / len(g.scores)
        for sample, score in zip(g.samples, g.scores, strict=True):
            for at, token in enumerate(sample.tokens):
                context = torch.tensor([sample.prompt_tokens + sample.tokens[:at]])
                distribution = torch.log_softmax(model.logits(model(context))[0, -1] / temperature, -1)
                ratio = math.exp(float(distribution[token].detach()) - sample.logprobs[at])
                weight = 1.0 if cap is None else min(ratio, cap)
                loss = loss - weight * (score.value - mean) * distribution[token] / total
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.item(), found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], scale: float = 1.0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], scale * b[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_gradient_is_that_of_brute_force_reinforce(temperature: float, tiny_model: CausalLM) -> None:
    loss, found = gradient(tiny_model, GROUPS, temperature=temperature)
    expected_loss, expected = brute_force(tiny_model, GROUPS, temperature, total=18)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    same(found, expected)


@pytest.mark.parametrize("cap", [1.0, 1e6])
def test_with_an_8_bit_sampler_tokens_are_weighed_by_capped_ratios(cap: float, tiny_model: CausalLM) -> None:
    groups = [
        group([((3, 4), (5, 6)), ((3, 4), (7,))], [1.0, 0.0]),
        group([((8,), (2, 2)), ((8,), (6, 1, 9))], [0.0, 1.0]),
    ]
    for one in groups:  # so that some ratios are above 1 and some below
        for i, sample in enumerate(one.samples):
            object.__setattr__(sample, "logprobs", tuple(-2.0 - 2.0 * i - t for t in range(len(sample.tokens))))
    loss, found = gradient(tiny_model, groups, quantization={"kind": "int8", "cap": cap})
    expected_loss, expected = brute_force(tiny_model, groups, 1.0, total=8, cap=cap)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    same(found, expected)
    assert loss != pytest.approx(gradient(tiny_model, groups)[0], rel=1e-3)


def test_loss_and_gradient_do_not_depend_on_the_micro_batch_size(tiny_model: CausalLM) -> None:
    whole_loss, whole = gradient(tiny_model, GROUPS, micro_tokens=1000)
    for micro_tokens, recompute in ((1, False), (5, False), (12, False), (12, True)):
        loss, found = gradient(tiny_model, GROUPS, micro_tokens=micro_tokens, recompute=recompute)
        assert loss == pytest.approx(whole_loss, abs=1e-6)
        same(found, whole)


def test_groups_without_spread_count_in_the_denominator_only(tiny_model: CausalLM) -> None:
    _, whole = gradient(tiny_model, GROUPS)
    without = [GROUPS[0], GROUPS[2]]
    same(whole, gradient(tiny_model, without)[1], scale=13 / 18)
    same(gradient(tiny_model, GROUPS, denominator="informative")[1], gradient(tiny_model, without)[1])


def test_no_spread_anywhere_gives_no_gradient_but_still_a_comparison(tiny_model: CausalLM) -> None:
    spy = Spy(tiny_model)
    update = learn(tiny_model, spy, 1, [GROUPS[1]], rewards([GROUPS[1]]), GrpoConfig(base="b", task="t"))  # type: ignore[arg-type]
    assert spy.gradient == {}
    assert update.loss == 0
    assert update.gap_max > 0  # the made-up log-probabilities of -1


def test_kl_pulls_to_the_reference(tiny_model: CausalLM, tiny_arch: Any) -> None:
    from trilaw.model.registry import build

    _, plain = gradient(tiny_model, GROUPS)
    _, own = gradient(tiny_model, GROUPS, kl=0.5, reference=tiny_model)
    same(own, plain)  # k3 has its minimum, 0, at the policy itself
    other = build(tiny_arch, seed=8)
    loss, pulled = gradient(tiny_model, GROUPS, kl=0.5, reference=other)
    assert loss > gradient(tiny_model, GROUPS)[0]
    assert any(not torch.allclose(pulled[n], plain[n], atol=1e-5) for n in plain)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_trainer_agree_in_float32(temperature: float, base: Path, tokenizer: HFTokenizer) -> None:
    model = load_folder(base)
    task = Copy()
    params = SamplingParams(temperature=temperature, max_tokens=8)
    groups = roll(Engine(model, tokenizer), task, task.problems("train", limit=4), samples=8, params=params, key=(0,))
    config = GrpoConfig(base="b", task="t", temperature=temperature)
    values = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))
    update = learn(model, Spy(model), 1, groups, values, config)  # type: ignore[arg-type]
    assert update.gap_max < 1e-4


def test_sample_seeds_depend_on_step_problem_and_index_only(base: Path, tokenizer: HFTokenizer) -> None:
    task = Copy()
    problems = list(task.problems("train", limit=3))
    engine = Engine(load_folder(base), tokenizer)
    options: dict[str, Any] = {"samples": 3, "params": SamplingParams(max_tokens=6), "key": (0, "x", 1)}
    first = roll(engine, task, problems, **options)
    backwards = roll(engine, task, problems[::-1], **options)
    assert [s.tokens for s in first[0].samples] == [s.tokens for s in backwards[2].samples]
    twice = roll(engine, task, [problems[0], problems[0]], **options)
    assert twice[0].samples != twice[1].samples


@pytest.mark.parametrize("quantization", [None, {"kind": "int8"}])
def test_it_learns_a_trivial_task(
    base: Path, tmp_path: Path, stage: Callable[..., Any], quantization: dict[str, str] | None
) -> None:
    if quantization and (reason := unsupported(torch.device("cpu"))):
        pytest.skip(reason)

    class First(Copy):
        """Say 7 first, whatever was asked."""

        def verify(self, problem: Problem, text: str) -> Score:
            return Score(float(text.startswith("7")))

    config = GrpoConfig(
        base="base",
        task="t",
        steps=20,
        problems=8,
        samples=16,
        max_tokens=3,
        optimizer={"learning_rate": 1e-2},
        quantization=quantization,
    )
    result = stage(grpo.run, config, "run", models={"base": base}, tasks={"t": First()})
    rows = EventLog(tmp_path / "run/events.jsonl").rows()
    assert result.metrics["reward"] > result.metrics["reward_first"] + 0.5
    assert [row["weights_version"] for row in rows] == list(range(20))
    assert all((row["logprob_gap_max"] < 1e-4) == (not quantization) for row in rows)
    assert result.tokens == rows[-1]["tokens"] > 0
    assert result.flops == rows[-1]["flops"] > 0
    names = {
        "reward",
        "reward_std",
        "length",
        "truncated",
        "entropy",
        "zero_variance",
        "grad_norm",
        "loss",
        "learning_rate",
    }
    assert rows[0].keys() >= names | {"tokens_per_second", "seconds_sampling", "seconds_training", "task/short"}
    stored = EventLog(tmp_path / "run/stages/x/rollouts.jsonl").rows()
    assert [row["step"] for row in stored] == [1] * 4 + [10] * 4 + [20] * 4


def test_random_reward_is_a_coin(base: Path, tmp_path: Path, stage: Callable[..., Any]) -> None:
    config = GrpoConfig(
        base="base",
        task="copy",
        steps=4,
        problems=8,
        samples=16,
        max_tokens=3,
        reward="random",
        random_probability=0.25,
    )
    stage(grpo.run, config, "run", models={"base": base})
    rows = EventLog(tmp_path / "run/events.jsonl").rows()
    assert sum(row["reward"] for row in rows) / 4 == pytest.approx(0.25, abs=0.08)
    assert len({row["reward"] for row in rows}) > 1
    assert all(row["task_reward"] < 0.25 for row in rows)


def test_filter_keeps_the_middle_and_its_cost_is_counted(base: Path, tmp_path: Path, stage: Callable[..., Any]) -> None:
    class Odd(Finite):
        """Odd problems are never solved, even ones always."""

        def verify(self, problem: Problem, text: str) -> Score:
            return Score(float(problem.answer in "02468"))

    rule = {"pool": 12, "samples": 2, "low": 0.9, "high": 1.0}
    config = GrpoConfig(base="base", task="t", steps=1, problems=6, samples=2, max_tokens=3, filter=rule)
    result = stage(grpo.run, config, "run", models={"base": base}, tasks={"t": Odd()})
    rates = json.loads((tmp_path / "run/stages/x/pass_rates.json").read_text())
    assert len(rates["pass_rates"]) == 12
    row = EventLog(tmp_path / "run/events.jsonl").rows()[0]
    assert row["reward"] == 1.0  # only even ones were drawn
    assert result.tokens > rates["tokens"] > 0
    impossible = GrpoConfig(**{**config.model_dump(), "filter": {**rule, "low": 0.4, "high": 0.6}})
    with pytest.raises(TaskError, match="None of 12 problems"):
        stage(grpo.run, impossible, "none", models={"base": base}, tasks={"t": Odd()})


@pytest.mark.parametrize(("value", "why"), [(0.0, "reward 0"), (1.0, "harder split")])
def test_silent_start_is_explained(
    value: float, why: str, base: Path, stage: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class Flat(Copy):
        def verify(self, problem: Problem, text: str) -> Score:
            return Score(value)

    config = GrpoConfig(base="base", task="t", steps=4, problems=2, samples=2, max_tokens=2)
    result = stage(grpo.run, config, "run", models={"base": base}, tasks={"t": Flat()})
    assert why in capsys.readouterr().err
    after = load_folder(result.model).state_dict()
    assert all(weight.equal(after[name]) for name, weight in load_folder(base).state_dict().items())


def test_an_unsound_task_an_unknown_one_and_broken_weights_stop(
    base: Path, tmp_path: Path, stage: Callable[..., Any]
) -> None:
    class Unsound(Copy):
        def validate(self) -> list[str]:
            return ["the gold answer is refused"]

    config = GrpoConfig(base="base", task="t", steps=1, max_tokens=2)
    with pytest.raises(TaskError, match="gold answer is refused"):
        stage(grpo.run, config, "a", models={"base": base}, tasks={"t": Unsound()})
    with pytest.raises(ConfigError, match="did you mean 'copy'"):
        stage(grpo.run, GrpoConfig(base="base", task="copi"), "b", models={"base": base})
    wild = GrpoConfig(
        base="base",
        task="copy",
        steps=9,
        problems=4,
        samples=8,
        max_tokens=3,
        optimizer={"learning_rate": 1e30, "warmup_steps": 0},
    )
    with pytest.raises(TrilawError, match="not finite"):
        stage(grpo.run, wild, "c", models={"base": base})
