"""The one door to a model: a name in, weights and tokenizer out, checked against each other.

A name is whatever `sources.resolve` knows: a catalogue name, a Hugging Face folder, a run, a `.gguf` file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model import hf, precision, sources
from trilaw.model.gguf import GGUFModel
from trilaw.model.llama import CausalLM
from trilaw.model.memory import check_fits
from trilaw.model.tokenizer import HFTokenizer


class Loaded(NamedTuple):
    model: CausalLM
    tokenizer: HFTokenizer
    arch: Arch
    path: Path


def load(name: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device | None = None) -> Loaded:
    """The model that `name` means, in evaluation mode.

    dtype: of the weights; None lets `precision.choose` decide. device: None takes CUDA when there is one, else the CPU.
    Raises SourceError if the name leads nowhere, ModelError if files are missing, broken, not supported or do not fit each other, or if
    the weights do not fit in memory (said before they are read).
    """
    path = sources.resolve(str(name))
    place = precision.default_device() if device is None else torch.device(device)
    file = None if path.is_dir() else GGUFModel(path)
    arch = file.arch if file else hf.read_arch(path)
    tokenizer = file.tokenizer if file else HFTokenizer.from_folder(path)
    if tokenizer.vocab_size > arch.vocab_size:
        raise ModelError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens and the model only {arch.vocab_size}; they do not belong together."
        )
    dtype = dtype or precision.choose(arch.parameters(), place)[0]
    check_fits(arch, dtype, place, str(path))
    if file:
        model = hf.assemble(arch, file.weights(dtype, place), where=str(path))
    else:
        model = hf.load_folder(path, dtype=dtype, device=place)
    return Loaded(model, tokenizer, arch, path)
