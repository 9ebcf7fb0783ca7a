from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilaw.core.config import parse
from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.events import EventLog
from trilaw.model.hf import load_folder
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import pretrain
from trilaw.training.corpus import FileCorpus, TaskCorpus, byte_level
from trilaw.training.pretrain import PretrainConfig

from .conftest import Copy

SMALL: dict[str, Any] = {
    "hidden": 32,
    "layers": 1,
    "heads": 2,
    "row_tokens": 32,
    "rows_per_step": 4,
    "valid_documents": 50,
}


def test_it_learns_from_the_uniform_distribution_on(tmp_path: Path, stage: Callable[..., Any]) -> None:
    config = PretrainConfig(task="copy", tokens=128 * 80, log_every=20, **SMALL)
    result = stage(pretrain.run, config, "run")
    rows = EventLog(tmp_path / "run/events.jsonl").rows()
    assert [row["step"] for row in rows] == [1, 20, 40, 60, 80]
    assert rows[0]["loss"] == pytest.approx(math.log(14), abs=1e-4)  # eleven words and three special tokens
    assert result.metrics["valid_worked_loss"] < result.metrics["valid_loss"] < 2.2
    assert rows[-1]["valid_loss"] == result.metrics["valid_loss"]
    model = load_folder(result.model)
    assert result.metrics["parameters"] == sum(p.numel() for p in model.parameters())
    # 6 N tokens, less the embedding, plus attention: within a factor of two at this size
    assert 0.5 < result.flops / (6 * result.metrics["parameters"] * result.tokens) < 2


def test_validation_loss_is_that_of_plain_documents(
    tmp_path: Path, stage: Callable[..., Any], tokenizer: HFTokenizer
) -> None:
    result = stage(pretrain.run, PretrainConfig(task="copy", tokens=128 * 5, **SMALL), "run")
    model = load_folder(result.model)
    from trilaw.core.seeds import derive

    nats, worked = [], []
    for document in TaskCorpus(
        Copy(), tokenizer, derive(0, "x", "documents"), derive(0, "copy", "valid documents")
    ).valid(50):
        assert (
            tokenizer.decode(document.tokens[document.response : -1])
            == Copy().split_document("^" + tokenizer.decode(document.tokens))[1]
        )
        logits = model.logits(model(torch.tensor([document.tokens])))[0].detach().log_softmax(-1)
        each = [-float(logits[i, t]) for i, t in enumerate(document.tokens[1:])]
        nats += each
        worked += each[document.response - 1 :]
    assert result.metrics["valid_loss"] == pytest.approx(sum(nats) / len(nats), abs=1e-5)
    assert result.metrics["valid_worked_loss"] == pytest.approx(sum(worked) / len(worked), abs=1e-5)


def test_a_text_file_and_bytes(tmp_path: Path, stage: Callable[..., Any]) -> None:
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(f"Zeile {i}\nné {i * i}" for i in range(30)) + "\n \n")
    result = stage(pretrain.run, PretrainConfig(data=str(file), tokens=128 * 6, **SMALL), "run")
    assert "valid_worked_loss" not in result.metrics
    tokenizer = HFTokenizer.from_folder(result.model)
    assert tokenizer.decode(tokenizer.encode("né </s> ✓")) == "né </s> ✓"
    corpus = FileCorpus(file, byte_level(), 0, 100)
    assert (len(corpus.held_out), len(corpus.documents)) == (3, 27)
    stream = corpus.train()
    first, second = ([next(stream).tokens for _ in range(27)] for _ in range(2))
    assert sorted(first) == sorted(second)
    assert first != second
    begin, *text, end = first[0]
    assert [begin, end] == [byte_level().bos_id, byte_level().eos_ids[0]]
    assert byte_level().decode(text) in corpus.documents
    file.write_text("one document")
    with pytest.raises(TaskError, match="blank line"):
        FileCorpus(file, byte_level(), 0, 1)


def test_model_sizes_of_the_defaults() -> None:
    tokenizer = HFTokenizer.word_level(Copy().alphabet(), Copy().chat_template())
    sizes = {
        d: PretrainConfig(task="t", hidden=d, heads=h).arch(tokenizer).intermediate_size
        for d, h in ((48, 3), (80, 5), (128, 4))
    }
    assert sizes == {48: 128, 80: 224, 128: 352}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({}, "either task or data"),
        ({"task": "t", "hidden": 30, "heads": 4}, "multiple of heads"),
        ({"task": "t", "kv_heads": 3}, "multiple of kv_heads"),
        ({"task": "t", "tokens": 10}, "at least one step"),
        ({"task": "t", "optimizer": {"kind": "sgd"}}, "optimizer.kind"),
        ({"task": "t", "optimizer": {"learning_rat": 1}}, "learning_rate"),
    ],
)
def test_contradictions_are_refused(data: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse(PretrainConfig, data, "recipe")


def test_a_task_without_documents_and_one_that_runs_out(stage: Callable[..., Any]) -> None:
    class Short(Copy):
        def documents(self, *, seed: int = 0, count: int) -> Any:
            return super().documents(seed=seed, count=min(count, 60))

    config = PretrainConfig(task="t", tokens=128 * 40, **SMALL)
    with pytest.raises(TaskError, match="ran out"):
        stage(pretrain.run, config, "a", tasks={"t": Short()})
    with pytest.raises(ConfigError, match="writes no documents"):
        stage(pretrain.run, config, "b", tasks={"t": object()})
