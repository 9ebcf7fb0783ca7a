from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trilaw.core import rundir
from trilaw.core.errors import RunError
from trilaw.model.llama import CausalLM
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import checkpoint
from trilaw.training.optim import Optimizer, OptimizerConfig


def save(stage: Path, step: int, model: CausalLM, tokenizer: HFTokenizer) -> Path:
    optimizer = Optimizer(model, OptimizerConfig(), 1)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step(1)
    return checkpoint.write(stage, step, model, tokenizer, optimizer, {"tokens": step})


def test_two_are_kept_and_read_back(tmp_path: Path, tiny_model: CausalLM, tokenizer: HFTokenizer) -> None:
    for step in (9, 10, 11):
        path = save(tmp_path, step, tiny_model, tokenizer)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-10", "step-11"]
    assert checkpoint.latest(tmp_path) == path
    model, _, moments, state = checkpoint.read(path)
    assert state == {"step": 11, "tokens": 11}
    assert all(a.equal(b) for a, b in zip(model.parameters(), tiny_model.parameters(), strict=True))
    assert float(moments["model.norm.weight/step"]) == 1


@pytest.mark.parametrize("file", ["model.safetensors", "trainer/optimizer.safetensors", "trainer/manifest.json"])
def test_a_damaged_newest_is_passed_over(
    file: str, tmp_path: Path, tiny_model: CausalLM, tokenizer: HFTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = (save(tmp_path, step, tiny_model, tokenizer) for step in (1, 2))
    data = bytearray((newest / file).read_bytes())
    data[len(data) // 2] ^= 1
    (newest / file).write_bytes(data)
    assert checkpoint.latest(tmp_path) == older
    assert "step-2 is damaged" in capsys.readouterr().err
    (older / file).unlink()
    assert checkpoint.latest(tmp_path) is None
    assert "starts from its beginning" in capsys.readouterr().err


def test_a_full_disk_leaves_the_old_one(
    tmp_path: Path, tiny_model: CausalLM, tokenizer: HFTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = save(tmp_path, 1, tiny_model, tokenizer)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rundir, "_fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save(tmp_path, 2, tiny_model, tokenizer)
    assert checkpoint.latest(tmp_path) == older
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-1"]


def test_transformers_opens_a_checkpoint(tmp_path: Path, base: Path, tokenizer: HFTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    from trilaw.model.hf import load_folder

    model = load_folder(base)
    path = save(tmp_path, 1, model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, model.logits(model(tokens)), atol=1e-4, rtol=1e-4)
