"""GGUF files in: llama.cpp's container of weights, numbers and vocabulary, read into Hugging Face's names and layout.

Format: ggml-org/ggml, docs/gguf.md. The `gguf` package parses the container and dequantises; this file maps names, undoes the
order of rotary dimensions that the converter applies to query and key weights, and turns metadata into an `Arch`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGUFReader, dequantize

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, nearest
from trilaw.model.tokenizer import HFTokenizer

FAMILIES = ("llama",)
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
_NAME = re.compile(r"(?:blk\.(\d{1,4})\.)?([a-z_]+)\.(weight|bias)")


class _Reader(GGUFReader):
    """The package's reader over a plain array: each slice of a memory map is an object of its own, which doubles the time to parse."""

    @property  # type: ignore[override]
    def data(self) -> np.ndarray[Any, Any]:
        return self._plain

    @data.setter
    def data(self, mapped: np.ndarray[Any, Any]) -> None:
        self._plain = mapped.view(np.ndarray)  # still the mapped file underneath


class GGUFModel(NamedTuple):
    """All that a GGUF file holds, in the terms of the house."""

    arch: Arch
    tensors: dict[str, torch.Tensor]  # by Hugging Face name; no lm_head.weight when the head is tied
    tokenizer: HFTokenizer


def read_gguf(path: str | Path, dtype: torch.dtype = torch.float32) -> GGUFModel:
    """Read and dequantise a file. Each tensor is converted on its own, so memory peaks at the result plus one tensor in float32.

    Raises ModelError for a file that is missing, truncated or no GGUF, an architecture other than Llama, or a type of
    quantisation that the `gguf` package cannot undo.
    """
    path = Path(path)
    reader, metadata, shapes = _open(path)
    arch = read_arch(metadata, shapes, str(path))
    tokenizer = HFTokenizer.from_gguf(metadata, str(path))
    tensors: dict[str, torch.Tensor] = {}
    factors: torch.Tensor | None = None
    for tensor in reader.tensors:
        value = _dequantised(tensor, shapes[tensor.name], path)
        if tensor.name == "rope_freqs.weight":
            factors = value
            continue
        name, short = _renamed(tensor.name, str(path))
        if short in ("attn_q", "attn_k"):
            value = _interleaved_to_halves(value, arch.heads if short == "attn_q" else arch.kv_heads, tensor.name, path)
        tensors[name] = value.to(dtype)
    scaling = _scaling(metadata, factors, arch, str(path))
    return GGUFModel(replace(arch, eos_ids=tokenizer.eos_ids, rope_scaling=scaling), tensors, tokenizer)


def read_gguf_arch(path: str | Path) -> tuple[Arch, dict[str, Any]]:
    """The architecture (without rotary scaling) and all metadata, no weight touched. Raises ModelError as `read_gguf` does."""
    reader, metadata, shapes = _open(Path(path))
    del reader
    return read_arch(metadata, shapes, str(path)), metadata


def _open(path: Path) -> tuple[Any, dict[str, Any], dict[str, tuple[int, ...]]]:
    """The reader, the key-value pairs as plain Python values, and each tensor's shape in torch's order."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file: it does not begin with 'GGUF'.")
    try:
        reader = _Reader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        return reader, metadata, {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    except Exception as error:  # the parser raises whatever broken bytes lead it to
        if "GGMLQuantizationType" in str(error):
            raise ModelError(
                f"{path} holds a type of quantisation that is not known here ({error}): use another file, Q8_0 for one."
            ) from None
        raise ModelError(f"{path} is truncated or broken ({str(error).rstrip('.')}); fetch it again.") from None


def read_arch(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str) -> Arch:
    """The architecture's numbers from metadata; the vocabulary's size and whether the head is tied from the tensors.

    Raises ModelError for another architecture or a missing number.
    """
    family = metadata.get("general.architecture")
    if family not in FAMILIES:
        raise ModelError(f"{where}: the architecture '{family}' is not supported{nearest(str(family), FAMILIES)}.")
    if metadata.get(f"{family}.expert_count"):
        raise ModelError(f"{where}: mixtures of experts are not supported yet; use a dense model.")

    def number(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{family}.{key}", default)
        if not isinstance(value, int) or value <= 0:
            raise ModelError(f"{where}: '{family}.{key}' must be a positive whole number, it is {str(value)[:40]}.")
        return value

    if len(shapes.get("token_embd.weight", ())) != 2:
        raise ModelError(f"{where} holds no token embeddings (token_embd.weight): fetch a complete model file.")
    rope: dict[str, Any] = {}
    if theta := metadata.get(f"{family}.rope.freq_base"):
        rope["rope_theta"] = float(theta)
    heads, hidden = number("attention.head_count"), number("embedding_length")
    config = {
        "model_type": family,
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden,
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "head_dim": number("attention.key_length", max(hidden // heads, 1)),
        "max_position_embeddings": number("context_length", 2048),
        # GGUF stores a float32: rounding to seven digits gives 1e-05 back instead of 9.999999747378752e-06.
        "rms_norm_eps": float(f"{float(metadata.get(f'{family}.attention.layer_norm_rms_epsilon', 1e-5)):.7g}"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        **rope,
    }
    return replace(Arch.from_config(config, where), extra={})


def _scaling(
    metadata: Mapping[str, Any], factors: torch.Tensor | None, arch: Arch, where: str
) -> dict[str, Any] | None:
    """The table of rotary scaling as config.json has it, or None."""
    if factors is not None:
        return _llama3(factors.double().numpy(), arch, where)
    kind = metadata.get(f"{arch.family}.rope.scaling.type")
    factor = metadata.get(f"{arch.family}.rope.scaling.factor")
    if kind in (None, "none") or not factor:
        return None
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"{where}: the rotary scaling '{kind}' is not supported{nearest(str(kind), ('linear', 'yarn'))}."
        )
    table: dict[str, Any] = {"rope_type": kind, "factor": float(factor)}
    original = metadata.get(f"{arch.family}.rope.scaling.original_context_length")
    if kind == "yarn" and original:
        table["original_max_position_embeddings"] = int(original)
    return table


def _llama3(factors_E2: np.ndarray[Any, Any], arch: Arch, where: str) -> dict[str, Any]:
    """Llama 3.1's scaling. GGUF keeps only its result, one factor a frequency; the numbers behind it are found again and checked."""
    table = {"rope_type": "llama3", "factor": float(factors_E2.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    table["original_max_position_embeddings"] = 8192
    lengths = 2 * math.pi * arch.rope_theta ** (np.arange(0, arch.head_dim, 2) / arch.head_dim)  # tokens a turn
    smooth = np.clip((8192 / lengths - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    expected = 1 / ((1 - smooth) / factors_E2.max() + smooth)
    if expected.shape != factors_E2.shape or not np.allclose(expected, factors_E2, rtol=1e-3):
        raise ModelError(
            f"{where}: its rotary frequency factors are not those of Llama 3; use the model in Hugging Face layout."
        )
    return table


def _dequantised(tensor: Any, shape: tuple[int, ...], path: Path) -> torch.Tensor:
    kind = tensor.tensor_type
    try:
        value = np.array(dequantize(tensor.data, kind), dtype=np.float32).reshape(shape)
    except NotImplementedError:
        raise ModelError(
            f"{path}: '{tensor.name}' has the type {kind.name}, which cannot be dequantised; use another quantisation, Q8_0 for one."
        ) from None
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: '{tensor.name}' is truncated or broken ({str(error).rstrip('.')}); fetch the file again."
        ) from None
    return torch.from_numpy(value)


def _renamed(name: str, where: str) -> tuple[str, str]:
    """The Hugging Face name, and the GGUF name without layer and kind."""
    match = _NAME.fullmatch(name)
    layer, short, kind = match.groups() if match else (None, "", "")
    table = _TOP if layer is None else _LAYER
    if short not in table:
        raise ModelError(f"{where}: the tensor '{name}' belongs to no Llama model; this variant is not supported.")
    return f"{'' if layer is None else f'model.layers.{int(layer)}.'}{table[short]}.{kind}", short


def _interleaved_to_halves(value: torch.Tensor, heads: int, name: str, path: Path) -> torch.Tensor:
    """Rows of a query or key projection [heads * E, ...]: GGUF pairs rotary dimensions (2i, 2i + 1), Hugging Face (i, i + E/2)."""
    if value.shape[0] % (2 * heads):
        raise ModelError(
            f"{path}: '{name}' has {value.shape[0]} rows, which {heads} heads cannot share; fetch the file again."
        )
    half = value.shape[0] // heads // 2
    return value.reshape(heads, half, 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
