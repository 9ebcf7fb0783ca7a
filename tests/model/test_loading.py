"""The one door to a model, and the choice of number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model import loading, memory, precision
from trilaw.model.llama import CausalLM
from trilaw.model.loading import load
from trilaw.model.registry import build
from trilaw.model.tokenizer import HFTokenizer

Save = Callable[..., Path]
WORDS = [str(digit) for digit in range(10)]


@pytest.fixture
def tokenizer() -> HFTokenizer:
    return HFTokenizer.word_level(WORDS)


def test_a_folder_comes_back_whole(tiny_model: CausalLM, save: Save, tokenizer: HFTokenizer) -> None:
    folder = save(tiny_model, tokenizer=tokenizer)
    loaded = load(str(folder))
    assert loaded.path == folder
    assert loaded.arch == loaded.model.arch
    assert loaded.arch.parameters() == tiny_model.arch.parameters()
    assert loaded.tokenizer.encode("2024") == tokenizer.encode("2024")
    assert not loaded.model.training
    assert loaded.model.dtype == torch.float32  # tiny: float32 on every machine
    for name, weight in tiny_model.state_dict().items():
        assert torch.equal(weight.cpu(), loaded.model.state_dict()[name].cpu())
    assert load(folder, dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16


class Stub:
    """Stands for a .gguf file of the tiny model."""

    def __init__(self, model: CausalLM, tokenizer: HFTokenizer) -> None:
        self.arch, self.tokenizer, self._model = model.arch, tokenizer, model
        self.asked: list[torch.dtype] = []

    def weights(self, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        self.asked.append(dtype)
        return ((name, weight.to(device, dtype).clone()) for name, weight in self._model.state_dict().items())


@pytest.fixture
def stub(tiny_model: CausalLM, tokenizer: HFTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    stub = Stub(tiny_model, tokenizer)
    monkeypatch.setattr(loading, "GGUFModel", lambda path: stub)
    return stub


def test_a_gguf_file_is_assembled_like_a_folder(stub: Stub, tiny_model: CausalLM, tmp_path: Path) -> None:
    tokens_BT = torch.arange(10)[None]
    loaded = load(tmp_path / "model.gguf", device="cpu")
    assert torch.equal(loaded.model(tokens_BT), tiny_model(tokens_BT))
    assert load(tmp_path / "model.gguf", dtype=torch.bfloat16, device="cpu").model.dtype == torch.bfloat16
    assert stub.asked == [torch.float32, torch.bfloat16], "weights come in the dtype that they will have"


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(
    stub: Stub,
    tiny_model: CausalLM,
    save: Save,
    tokenizer: HFTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save(tiny_model, tokenizer=tokenizer)
    need = 4 * tiny_model.arch.parameters()
    monkeypatch.setattr(memory, "free_bytes", lambda device: need)
    load(folder, device="cpu")
    load(tmp_path / "model.gguf", device="cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: need - 1)
    (folder / "model.safetensors").write_bytes(b"never read")
    stub.asked.clear()
    for path in (folder, tmp_path / "model.gguf"):
        with pytest.raises(ModelError, match=rf"{path.name}: {tiny_model.arch.parameters():,} weights .* need .* GiB"):
            load(path, device="cpu")
    assert stub.asked == []


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    tiny_arch: Arch, save: Save, tokenizer: HFTokenizer
) -> None:
    arch = replace(tiny_arch, vocab_size=tokenizer.vocab_size)
    assert load(save(build(arch), "fits", tokenizer=tokenizer)).arch.vocab_size == tokenizer.vocab_size
    folder = save(build(replace(arch, vocab_size=tokenizer.vocab_size - 1)), "too small", tokenizer=tokenizer)
    with pytest.raises(ModelError, match="do not belong together"):
        load(folder)


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_chosen_where_it_pays(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: native)
    cpu = torch.device("cpu")
    small, reason = precision.choose(precision.SMALL - 1, cpu)
    assert small == torch.float32
    assert "too few" in reason
    large, reason = precision.choose(precision.SMALL, cpu)
    assert large == (torch.bfloat16 if native else torch.float32)
    assert reason.startswith(f"{large}".removeprefix("torch."))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_tile": True}, True),
        ({}, False),
    ],
)
def test_the_probe_asks_for_native_products(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert precision.native_bfloat16(torch.device("cpu")) is expected
    assert precision.native_bfloat16(torch.device("meta")) is False
