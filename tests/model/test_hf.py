"""Hugging Face folders: what we save opens in transformers, what transformers saves opens here, what is broken is a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, RunError
from trilaw.model.hf import load_folder, save_folder
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build

Save = Callable[..., Path]
TOKENS_BT = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(0))
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def logits(model: CausalLM) -> torch.Tensor:
    with torch.inference_mode():
        return model.logits(model(TOKENS_BT))


@pytest.mark.parametrize("change", [{}, {"tied": True}, {"rope_scaling": YARN}, {"attention_bias": True}], ids=str)
def test_a_saved_folder_opens_in_transformers(tiny_arch: Arch, save: Save, change: dict[str, Any]) -> None:
    model = build(replace(tiny_arch, **change), seed=5)
    with torch.no_grad():
        model.head_weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(5))
    folder = save(model)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        torch.testing.assert_close(logits(model), theirs(TOKENS_BT).logits, atol=1e-5, rtol=1e-5)
    assert theirs.generation_config.eos_token_id == 1
    assert ("lm_head.weight" in load_file(folder / "model.safetensors")) is not model.arch.tied
    again = load_folder(folder)
    assert torch.equal(logits(again), logits(model))
    assert all(weight.requires_grad for weight in again.parameters())


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_by_transformers_opens_here(tmp_path: Path, tied: bool, shards: bool) -> None:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    theirs: Any = LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if shards else "5GB")
    assert (tmp_path / "model.safetensors.index.json").is_file() is shards
    with torch.inference_mode():
        torch.testing.assert_close(logits(load_folder(tmp_path)), theirs(TOKENS_BT).logits, atol=1e-5, rtol=1e-5)


def test_dtype_is_converted_and_told(tiny_model: CausalLM, save: Save) -> None:
    folder = save(tiny_model, dtype=torch.bfloat16)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    assert load_folder(folder).dtype == torch.float32
    half = load_folder(folder, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    expected = tiny_model.model.embed_tokens.weight.to(torch.bfloat16)
    assert torch.equal(half.model.embed_tokens.weight, expected)
    assert tiny_model.dtype == torch.float32  # saving does not touch the model


def test_loaded_weights_do_not_hang_on_the_file(tiny_model: CausalLM, save: Save) -> None:
    folder = save(tiny_model)
    model = load_folder(folder)
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(logits(model), logits(tiny_model))


def test_companions_are_kept(tiny_model: CausalLM, save: Save, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "generation_config.json").write_text('{"eos_token_id": [1, 2], "temperature": 0.6}')
    (source / "tokenizer.json").write_text("{}")
    (source / "README.md").write_text("not a part of the model")

    class Tokenizer:
        def save(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("mine")

    copied = save(tiny_model, "copied", copy_from=source)
    assert json.loads((copied / "generation_config.json").read_text()) == {"eos_token_id": [1, 2], "temperature": 0.6}
    assert (copied / "tokenizer.json").read_text() == "{}"
    assert not (copied / "README.md").exists()
    own = save(tiny_model, "own", copy_from=source, tokenizer=Tokenizer(), generation={"top_p": 0.9})
    assert json.loads((own / "generation_config.json").read_text()) == {"top_p": 0.9}
    assert (own / "tokenizer.json").read_text() == "mine"


def test_harmless_extras_are_accepted(tiny_arch: Arch, save: Save) -> None:
    model = build(replace(tiny_arch, tied=True), seed=5)
    folder = save(model)
    weights = load_file(folder / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    extras = {"lm_head.weight": head, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights | extras, folder / "model.safetensors")
    assert torch.equal(logits(load_folder(folder)), logits(model))
    save_file(weights | {"lm_head.weight": head + 1}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="ties the head to the embedding"):
        load_folder(folder)


def _rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return apply


def _configure(**values: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return apply


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _index(weight_map: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return apply


NORM = "model.norm.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "broken config": (lambda f: (f / "config.json").write_text('{"model_type": '), r"config\.json cannot be read"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "one JSON object"),
    "deep config": (lambda f: (f / "config.json").write_text("[" * 100_000), r"config\.json cannot be read"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), r"config\.json cannot be read"),
    "odd value": (_configure(rope_parameters=7), "must be a table"),
    "other architecture": (_configure(model_type="mamba"), "'mamba' is not supported"),
    "quantised": (_configure(quantization_config={"bits": 4}), "quantised weights are not supported"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors"),
    "pickle only": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
    "empty weights": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        r"model\.safetensors is truncated or broken",
    ),
    "cut weights": (_cut, r"model\.safetensors is truncated or broken"),
    "not safetensors": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs\noid sha256:00"),
        r"model\.safetensors is truncated or broken",
    ),
    "missing tensor": (_rewrite(lambda w: w.pop(NORM)), f"'{NORM}' is missing"),
    "misshapen tensor": (_rewrite(lambda w: w.update({NORM: torch.ones(33)})), rf"'{NORM}' has the shape \(33,\)"),
    "unknown tensor": (_rewrite(lambda w: w.update({"x.bias": torch.ones(3)})), r"'x\.bias' has no place"),
    "whole numbers": (_rewrite(lambda w: w.update({NORM: torch.ones(32, dtype=torch.int8)})), r"torch\.int8"),
    "other size": (_configure(hidden_size=64), "has the shape"),
    "shard missing": (_index({NORM: "part.safetensors", "x": "gone.safetensors"}), r"gone\.safetensors is missing"),
    "shard lacks a tensor": (_index({"y": "part.safetensors"}), r"part\.safetensors lacks the tensor 'y'"),
    "shard outside": (_index({"y": "../part.safetensors"}), "not the name of a safetensors file"),
    "empty index": (_index({}), "no 'weight_map'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_are_a_sentence(tiny_model: CausalLM, save: Save, case: str) -> None:
    folder = save(tiny_model)
    damage, words = BROKEN[case]
    damage(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_no_folder_and_no_room_are_sentences(tiny_model: CausalLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").mkdir()  # a place where no file can be written, also for root
    with pytest.raises(RunError, match="cannot be written"):
        save_folder(tiny_model, tmp_path)
