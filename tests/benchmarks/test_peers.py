"""The peers that need no environment of their own, at toy size: they do the work that is ordered, and the same work."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpo_ceiling
import grpo_trilaw
import products
import pytest
import rollout_bandwidth
import rollout_ceiling
import rollout_transformers
import rollout_trilaw
import tiny_trilaw
import torch
import train_ceiling
import train_transformers
import train_trilaw
from torch.utils.flop_counter import FlopCounterMode

from trilaw.core.protocols import Tokenizer
from trilaw.engine import Engine
from trilaw.model.hf import read_arch
from trilaw.model.llama import CausalLM

from .conftest import BENCHMARKS

Job = Callable[..., dict[str, Any]]


def numbers(count: int, seed: int = 0) -> list[int]:
    return [random.Random(seed).randrange(50) for _ in range(count)] if count else []


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of a moment."""
    monkeypatch.setattr(products.Products, "_mean", lambda self, work, least: mean(self, work, 0.0))
    monkeypatch.setattr(tiny_trilaw, "SECONDS", 0.0)
    monkeypatch.setattr(rollout_bandwidth, "SECONDS", 0.0)
    monkeypatch.setattr(rollout_bandwidth, "ELEMENTS", 1 << 10)


mean = products.Products._mean


@pytest.mark.parametrize("peer", [rollout_trilaw, rollout_transformers])
@pytest.mark.parametrize("greedy", [False, True])
def test_a_rollout_makes_every_token_and_passes_over_end_tokens(peer: Any, greedy: bool, job: Job) -> None:
    # Of 60 words one ends a sample: among 1,280 draws some would, and the peer complains when tokens are missing.
    samples = 1 if greedy else 16
    work = peer.load(job(prompts=[[numbers(5)], [numbers(9), numbers(4, 1)]], samples=samples, new=40, greedy=greedy))
    answer = work(0)
    assert answer["prompt_tokens"] == 13
    assert answer["rate"] == pytest.approx(2 * samples * 40 / answer["seconds"])


def test_weights_go_to_the_engine(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, object]] = []

    class Spy(Engine):
        def __init__(self, model: CausalLM, tokenizer: Tokenizer, **more: Any) -> None:
            seen.append((model.dtype, more["quantization"]))
            super().__init__(model, tokenizer)

    monkeypatch.setattr(rollout_trilaw, "Engine", Spy)
    for weights in ("float32", "bfloat16", "int8"):
        rollout_trilaw.load(job(prompts=[[numbers(5)]], samples=1, new=2, weights=weights))
    assert seen == [(torch.float32, None), (torch.bfloat16, None), (torch.float32, "int8")]


def test_training_peers_learn_the_same(job: Job) -> None:
    rows = [[numbers(32, 10 * turn + row) for row in range(3)] for turn in range(3)]
    ours, theirs = (peer.load(job(rows=rows)) for peer in (train_trilaw, train_transformers))
    for turn in range(2):
        one, other = ours(turn), theirs(turn)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["rate"] == pytest.approx(96 / one["seconds"])


def test_ceilings_multiply_what_the_model_multiplies(job: Job, folder: Path) -> None:
    arch = read_arch(folder)
    made = products.Products(job())
    with FlopCounterMode(display=False) as counted:
        made.step(6)
    assert counted.get_total_flops() == 3 * arch.forward_flops(6, 0)  # a call to warm up and two that are timed
    layer = (arch.forward_flops(6, 0) - 6 * 2 * arch.hidden_size * arch.vocab_size) / arch.layers
    with FlopCounterMode(display=False) as counted:
        made.training(6)
    assert counted.get_total_flops() == 3 * 3 * (layer + 6 * 2 * arch.hidden_size * arch.vocab_size)


def test_rates_of_ceilings(job: Job) -> None:
    order = job(
        prompts=[[numbers(5)], [numbers(5), numbers(7, 1)]],
        questions=[["a"], ["b", "c"]],
        rows=[[numbers(8)], [numbers(8), numbers(8, 1)]],
        samples=4,
        new=3,
    )
    for peer in (rollout_ceiling, rollout_bandwidth, train_ceiling):
        assert peer.load(order)(0)["rate"] > 0
    answer = grpo_ceiling.load(order)(0)
    assert answer["plain_training_seconds"] > answer["training_seconds"]
    assert answer["rate"] == pytest.approx(2 * 4 * 3 / answer["seconds"])


def test_a_grpo_step_samples_learns_and_samples_from_the_new_weights(job: Job) -> None:
    questions = [["Add 1 and 2.", "Add 3 and 4."], ["Add 5 and 6.", "Add 7 and 8."], ["Add 1 and 9.", "Add 2 and 2."]]
    work = grpo_trilaw.load(job(questions=questions, samples=4, new=12, learning_rate=1e-2))
    first, second = work(0), work(1)
    for answer in (first, second):
        assert answer["trained_groups"] == 2
        assert answer["logprob_gap_mean"] < 1e-4, (
            "sampled from the weights that are trained, at this rate not the old ones"
        )
        assert answer["seconds"] == pytest.approx(answer["sampling_seconds"] + answer["training_seconds"])
        assert answer["sampling_rate"] == pytest.approx(96 / answer["sampling_seconds"])


def test_tiny_counts_tokens_and_steps(job: Job) -> None:
    answer = tiny_trilaw.load(job(batch=6, group=4, prompt=3, new=5))(0)
    assert answer["rate"] * answer["milliseconds_a_step"] / 1000 == pytest.approx(6 * 5 / 6, rel=0.35)  # tokens a step


def test_a_whole_comparison(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    sizes = ["--problems", "2", "--samples", "2", "--new", "4", "--rounds", "1", "--threads", "1", "--disturbed", "2"]
    command = [sys.executable, str(BENCHMARKS / "rollout.py"), "--model", str(folder), "--out", str(out), *sizes]
    done = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert {"trilaw", "transformers", "ceiling-float32"} <= set(written["peers"])
    assert {"trilaw/transformers", "trilaw/ceiling-float32"} <= set(written["ratios"])
    assert written["work"]["samples"] == 2
    assert "torch" in written["peers"]["transformers"]["facts"]
