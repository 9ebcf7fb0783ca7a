"""GGUF files in: llama.cpp's container of weights, numbers and vocabulary, read into Hugging Face's names and layout.

`gguf_file` parses the container, `gguf_arch` its numbers, `gguf_vocab` its vocabulary. This file maps names and undoes the order of rotary
dimensions that llama.cpp's converter applies to query and key weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from trilaw.core.errors import ModelError
from trilaw.model.gguf_arch import FACTORS, read_arch
from trilaw.model.gguf_file import open_gguf
from trilaw.model.tokenizer import HFTokenizer

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ALONE = 1 << 15  # weights that torch copies without waking other threads, which costs more, and far more on busy cores
_NAME = re.compile(r"(?:blk\.(0|[1-9]\d{0,3})\.)?([a-z_]+)\.(weight|bias)")


class GGUFModel:
    """A GGUF file in the terms of the house: its numbers and vocabulary are there at once, its weights when they are asked for."""

    def __init__(self, path: str | Path) -> None:
        """Raises ModelError for a file that is missing, truncated or no GGUF, an architecture other than Llama, a vocabulary or tensors
        that are not supported, or more weights than its numbers speak of."""
        self._file = open_gguf(Path(path))
        arch = read_arch(self._file)
        self.tokenizer = HFTokenizer.from_gguf(self._file.metadata, str(path))
        self.arch = replace(arch, eos_ids=self.tokenizer.eos_ids)
        self._names = {name: _renamed(name, str(path)) for name in self._file.places if name != FACTORS}
        stored = sum(prod(self._file.places[name].shape) for name in self._names)
        if stored > arch.parameters():  # refused here: who reads them has made sure of memory for `arch.parameters()`
            raise ModelError(
                f"{path} holds {stored:,} weights and speaks of a model of {arch.parameters():,}; fetch the model again."
            )

    def weights(self, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Each weight by its Hugging Face name, out of quantisation; a tied head is not among them. Beside what was given out, memory
        holds one tensor.

        Raises ModelError for a type of quantisation that the `gguf` package cannot undo, or heads that do not share the rows.
        """
        for name, (renamed, short) in self._names.items():
            value = self._dequantised(name, dtype)
            if short in ("attn_q", "attn_k"):
                heads = self.arch.heads if short == "attn_q" else self.arch.kv_heads
                value = _interleaved_to_halves(value, heads, f"{self._file.path}: '{name}'")
            yield renamed, value.to(device)

    def _dequantised(self, name: str, dtype: torch.dtype) -> Tensor:
        value = torch.empty(self._file.places[name].shape, dtype=dtype)
        flat, at = value.view(-1), 0
        for chunk in self._file.chunks(name):
            for part in torch.split(torch.from_numpy(chunk), _ALONE):
                flat[at : at + len(part)] = part
                at += len(part)
        return value


def _renamed(name: str, where: str) -> tuple[str, str]:
    """The Hugging Face name, and the GGUF name without layer and kind."""
    match = _NAME.fullmatch(name)
    layer, short, kind = match.groups() if match else (None, "", "")
    table = _TOP if layer is None else _LAYER
    if short not in table:
        raise ModelError(f"{where}: the tensor {name[:60]!r} belongs to no Llama model; this variant is not supported.")
    return f"{'' if layer is None else f'model.layers.{int(layer)}.'}{table[short]}.{kind}", short


def _interleaved_to_halves(value: Tensor, heads: int, where: str) -> Tensor:
    """Rows of a query or key projection [heads * E, ...]: GGUF pairs rotary dimensions (2i, 2i + 1), Hugging Face (i, i + E/2)."""
    if value.shape[0] % (2 * heads):
        raise ModelError(f"{where} has {value.shape[0]} rows, which {heads} heads cannot share; fetch the file again.")
    half = value.shape[0] // heads // 2
    return value.reshape(heads, half, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
