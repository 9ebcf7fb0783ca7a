from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.events import EventLog
from trilaw.model.hf import load_folder
from trilaw.model.llama import CausalLM
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import sft
from trilaw.training.batch import Completion, micro_batches, passes
from trilaw.training.loop import completion_logprobs
from trilaw.training.losses.cross_entropy import cross_entropy
from trilaw.training.sft import SftConfig

from .conftest import Copy


def gradient(model: CausalLM, batch: list[Completion], micro_tokens: int) -> tuple[float, list[torch.Tensor]]:
    loss = 0.0
    for part in micro_batches(batch, micro_tokens):
        share = cross_entropy(completion_logprobs(model, part, torch.float32), passes(batch)[2])
        share.backward()
        loss += share.item()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return loss, found


def test_loss_is_the_token_mean_whatever_the_micro_batch_size(tiny_model: CausalLM) -> None:
    batch = [Completion((1, 2), (3, 4, 5)), Completion((6,) * 9, (7,)), Completion((8, 9, 10), (11, 12))]
    nats = []
    for one in batch:
        logits = tiny_model.logits(tiny_model(torch.tensor([one.prompt + one.tokens])))[0].log_softmax(-1)
        nats += [-float(logits[len(one.prompt) - 1 + i, t]) for i, t in enumerate(one.tokens)]
    whole_loss, whole = gradient(tiny_model, batch, 1000)
    assert whole_loss == pytest.approx(sum(nats) / 6, abs=1e-5)
    for micro_tokens in (1, 10, 20):
        loss, found = gradient(tiny_model, batch, micro_tokens)
        assert loss == pytest.approx(whole_loss, abs=1e-6)
        for a, b in zip(found, whole, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_it_learns_and_appends_the_end_token(
    base: Path, tmp_path: Path, stage: Callable[..., Any], tokenizer: HFTokenizer
) -> None:
    config = SftConfig(
        base="base",
        task="copy",
        examples=256,
        epochs=4,
        batch_examples=32,
        evaluate_every=8,
        optimizer={"learning_rate": 5e-3, "schedule": "constant"},
    )
    result = stage(sft.run, config, "run", models={"base": base})
    rows = EventLog(tmp_path / "run/events.jsonl").rows()
    assert result.metrics["steps"] == len(rows) == 32
    assert rows[-1]["valid_loss"] < 0.7 * rows[0]["loss"]
    model = load_folder(result.model)
    prompt = tokenizer.encode_chat(Copy().problems("test", limit=1)[0].messages)
    answered = torch.tensor([[*prompt, tokenizer.encode("7")[0]]])
    assert int(model.logits(model(answered))[0, -1].argmax()) == tokenizer.eos_ids[0]


def test_wrong_requests(base: Path, stage: Callable[..., Any]) -> None:
    class Mute:
        name, splits, description = "mute", ("train",), ""

        def problems(self, *_: Any, **__: Any) -> list[Any]:
            return []

        def verify(self, *_: Any) -> None: ...

        def validate(self) -> list[str]:
            return []

    with pytest.raises(ConfigError, match="shows no worked solutions"):
        stage(sft.run, SftConfig(base="base", task="t"), "a", models={"base": base}, tasks={"t": Mute()})
    with pytest.raises(TaskError, match="no example"):
        stage(sft.run, SftConfig(base="base", task="copy", max_tokens=1), "b", models={"base": base})
