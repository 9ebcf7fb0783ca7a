"""From a GGUF file's metadata and table of tensors to an `Arch`. No torch.

Format: ggml-org/ggml, docs/gguf.md. Keys of an architecture begin with its name; the vocabulary's size, biases, and whether the head is tied
follow from which tensors are there. Llama 3.1's rotary scaling stands in a tensor of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, nearest
from trilaw.model.gguf_file import GGUFFile

FAMILIES = ("llama",)
FACTORS = "rope_freqs.weight"  # Llama 3.1's factors of rotary frequencies: the one tensor that is no weight


def read_arch(file: GGUFFile) -> Arch:
    """The architecture's numbers; `eos_ids` has the end of a text only, the vocabulary may know more.

    Raises ModelError for another architecture, a missing or impossible number, or a rotary scaling that is not supported.
    """
    metadata, where = file.metadata, str(file.path)
    shapes = {name: place.shape for name, place in file.places.items()}
    family = metadata.get("general.architecture")
    if family not in FAMILIES:
        name = _short(family)
        raise ModelError(f"{where}: the architecture '{name}' is not supported{nearest(name, FAMILIES)}.")
    if metadata.get(f"{family}.expert_count"):
        raise ModelError(f"{where}: mixtures of experts are not supported yet; use a dense model.")

    def number(key: str, default: int | None = None) -> int:
        value = metadata.get(f"{family}.{key}", default)
        if type(value) is not int or not 0 < value < 2**31:
            raise ModelError(f"{where}: '{family}.{key}' must be a positive whole number, it is {_short(value)}.")
        return value

    if len(shapes.get("token_embd.weight", ())) != 2:
        raise ModelError(f"{where} holds no token embeddings (token_embd.weight): fetch a complete model file.")
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
        "rope_theta": _real(file, f"{family}.rope.freq_base", 10_000.0, above=1),
        # GGUF stores a float32: rounding to seven digits gives 1e-05 back instead of 9.999999747378752e-06.
        "rms_norm_eps": float(f"{_real(file, f'{family}.attention.layer_norm_rms_epsilon', 1e-5):.7g}"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "attention_bias": "blk.0.attn_q.bias" in shapes,
        "mlp_bias": "blk.0.ffn_up.bias" in shapes,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }
    if number("block_count") > len(shapes):  # asked before an Arch counts them one by one
        raise ModelError(
            f"{where} lacks tensors: it has {len(shapes):,} for {number('block_count'):,} layers; fetch it again."
        )
    arch = Arch.from_config(config, where)
    return replace(arch, rope_scaling=_scaling(file, arch), extra={})


def _real(file: GGUFFile, key: str, default: float = math.nan, *, above: float = 0) -> float:
    value = file.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < math.inf:
        raise ModelError(f"{file.path}: '{key}' must be a number above {above}, it is {_short(value)}.")
    return float(value)


def _scaling(file: GGUFFile, arch: Arch) -> dict[str, Any] | None:
    """The table of rotary scaling as config.json has it, or None."""
    if FACTORS in file.places:
        return _llama3(file, arch)
    prefix = f"{arch.family}.rope.scaling"
    kind = file.metadata.get(f"{prefix}.type")
    if kind in (None, "none") or not file.metadata.get(f"{prefix}.factor"):
        return None
    if kind not in ("linear", "yarn"):
        name = _short(kind)
        raise ModelError(
            f"{file.path}: the rotary scaling '{name}' is not supported{nearest(name, ('linear', 'yarn'))}."
        )
    table: dict[str, Any] = {"rope_type": kind, "factor": _real(file, f"{prefix}.factor")}
    if kind == "yarn" and file.metadata.get(f"{prefix}.original_context_length"):
        table["original_max_position_embeddings"] = int(_real(file, f"{prefix}.original_context_length", above=1))
    return table


def _llama3(file: GGUFFile, arch: Arch) -> dict[str, Any]:
    """Llama 3.1's scaling. GGUF keeps only its result, one factor a frequency; the numbers behind it are found again and checked."""
    if file.places[FACTORS].shape != (arch.head_dim // 2,):
        raise ModelError(f"{file.path}: '{FACTORS}' is not half as long as a head of {arch.head_dim}; fetch it again.")
    factors_F = np.concatenate(list(file.chunks(FACTORS))).astype(np.float64)
    largest = float(factors_F.max())
    lengths_F = 2 * math.pi * arch.rope_theta ** (np.arange(0, arch.head_dim, 2) / arch.head_dim)  # tokens a turn
    smooth_F = np.clip((8192 / lengths_F - 1.0) / (4.0 - 1.0), 0.0, 1.0)
    if not largest > 0 or not np.allclose(1 / ((1 - smooth_F) / largest + smooth_F), factors_F, rtol=1e-3):
        raise ModelError(
            f"{file.path}: its rotary frequency factors are not those of Llama 3; use the model in Hugging Face layout."
        )
    return {
        "rope_type": "llama3",
        "factor": largest,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
