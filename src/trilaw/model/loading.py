"""The one door to a model: a name in, weights and tokenizer out, checked against each other.

A name is whatever `sources.resolve` knows: a catalogue name, a Hugging Face folder, a run, a `.gguf` file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError
from trilaw.model import hf, precision, sources
from trilaw.model.gguf import read_gguf
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
    the weights of a folder do not fit in memory (said before they are read).
    """
    path = sources.resolve(str(name))
    place = precision.default_device() if device is None else torch.device(device)
    if path.is_dir():
        arch = hf.read_arch(path)
        tokenizer = HFTokenizer.from_folder(path)
        _check_fit(arch, tokenizer, path)
        dtype = dtype or precision.choose(arch.parameters(), place)[0]
        check_fits(arch, dtype, place, str(path))
        return Loaded(hf.load_folder(path, dtype=dtype, device=place), tokenizer, arch, path)
    arch, tensors, tokenizer = read_gguf(path, dtype or torch.float32)
    _check_fit(arch, tokenizer, path)
    dtype = dtype or precision.choose(arch.parameters(), place)[0]
    return Loaded(hf.assemble(arch, _moved(tensors, dtype, place), where=str(path)), tokenizer, arch, path)


def _moved(tensors: dict[str, Tensor], dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for name in list(tensors):
        yield name, tensors.pop(name).to(device, dtype)  # popped: an original is free once its copy is made


def _check_fit(arch: Arch, tokenizer: HFTokenizer, path: Path) -> None:
    if tokenizer.vocab_size > arch.vocab_size:
        raise ModelError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens and the model only {arch.vocab_size}; they do not belong together."
        )
