from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.events import EventLog
from trilaw.model.hf import load_folder
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import sft
from trilaw.training.sft import SftConfig

from .conftest import Copy


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
