"""Numbers of an architecture from metadata, and what of them is refused. Files are made up: no byte is read."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from trilaw.core.errors import ModelError
from trilaw.model.gguf_arch import read_arch
from trilaw.model.gguf_file import GGUFFile, Place

NUMBERS: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.embedding_length": 64,
    "llama.block_count": 1,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
}
SHAPES = {"token_embd.weight": (100, 64), "blk.0.attn_q.weight": (64, 64)}


def file(numbers: dict[str, Any], shapes: dict[str, tuple[int, ...]] = SHAPES) -> GGUFFile:
    places = {name: Place(GGMLQuantizationType.F32, shape, 0, 0) for name, shape in shapes.items()}
    return GGUFFile(Path("m.gguf"), {**NUMBERS, **numbers}, places, mmap.mmap(-1, 1))


def test_what_is_left_out_has_the_formats_default() -> None:
    arch = read_arch(file({}))
    assert (arch.kv_heads, arch.head_dim, arch.max_positions, arch.rope_theta) == (4, 16, 2048, 10_000.0)
    assert (arch.vocab_size, arch.norm_eps, arch.tied, arch.attention_bias) == (100, 1e-5, True, False)
    more = SHAPES | {"output.weight": (100, 64), "blk.0.attn_q.bias": (64,)}
    arch = read_arch(file({"llama.attention.head_count_kv": 2, "llama.attention.key_length": 32}, more))
    assert (arch.kv_heads, arch.head_dim, arch.tied, arch.attention_bias) == (2, 32, False, True)


def test_yarn() -> None:
    table = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    assert read_arch(file(table)).rope_scaling == {"rope_type": "yarn", "factor": 4.0}
    table["llama.rope.scaling.original_context_length"] = 512
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    assert read_arch(file(table)).rope_scaling == scaling
    assert read_arch(file({**table, "llama.rope.scaling.type": "none"})).rope_scaling is None


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"general.architecture": ["llama"]}, "is not supported"),
        ({"general.architecture": "x" * 1000}, r"'x{37}\.\.\.' is not supported"),
        ({"llama.embedding_length": None}, "embedding_length' must be a positive whole number"),
        ({"llama.embedding_length": True}, "embedding_length"),
        ({"llama.feed_forward_length": 2**31}, "feed_forward_length"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.attention.head_count": [4, 4]}, "head_count"),
        ({"llama.block_count": 2**31 - 1}, "lacks tensors: it has 2 for 2,147,483,647 layers"),
        ({"llama.rope.freq_base": float("nan")}, "freq_base' must be a number above 1"),
        ({"llama.rope.freq_base": "10000"}, "freq_base"),
        ({"llama.attention.layer_norm_rms_epsilon": [1e-5]}, "layer_norm_rms_epsilon"),
        ({"llama.rope.scaling.type": "yran", "llama.rope.scaling.factor": 4.0}, "did you mean 'yarn'"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": "4"}, r"scaling\.factor"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float("inf")}, r"scaling\.factor"),
        ({"tokenizer.ggml.bos_token_id": "<s>"}, "bos_token_id"),
    ],
)
def test_impossible_numbers_are_refused(numbers: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=rf"^m\.gguf.*{complaint}"):
        read_arch(file(numbers))


def test_tensors_that_do_not_suit_are_refused() -> None:
    with pytest.raises(ModelError, match="no token embeddings"):
        read_arch(file({}, {"token_embd.weight": (100,)}))
    with pytest.raises(ModelError, match=r"'rope_freqs\.weight' is not half as long as a head of 16"):
        read_arch(file({}, {**SHAPES, "rope_freqs.weight": (16,)}))
