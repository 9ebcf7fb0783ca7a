"""Hugging Face folders in and out: config.json, safetensors (one file or shards with an index), tokenizer files.

Nothing is unpickled: a folder that holds only pytorch_model.bin is refused. Reading checks that every tensor is there, has the right
shape, and that none is left over; each is converted on its own, so memory holds one model. Writing is plain: callers that need
it atomic write inside `core.rundir.new_folder`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trilaw.core.arch import Arch
from trilaw.core.errors import ModelError, RunError
from trilaw.model.llama import CausalLM
from trilaw.model.memory import drop_pages
from trilaw.model.registry import empty

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Savable(Protocol):
    """A tokenizer, as far as this file cares."""

    def save(self, folder: Path) -> None: ...


def read_arch(folder: Path) -> Arch:
    """The architecture in the folder's config.json.

    Raises ModelError if the file is missing, broken, of an unsupported architecture, or announces quantised weights.
    """
    config = _read_table(folder / CONFIG)
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder / CONFIG}: quantised weights are not supported; use the unquantised model or a GGUF file."
        )
    try:
        return Arch.from_config(config, str(folder / CONFIG))
    except (TypeError, ValueError, AttributeError) as error:  # a value of a kind that no model has
        raise ModelError(f"{folder / CONFIG} does not describe a model: {error}.") from None


def load_folder(
    path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> CausalLM:
    """The model in a Hugging Face folder, in evaluation mode, its weights converted to `dtype` on `device`.

    Raises ModelError, naming the file, for a missing, truncated or broken file, a missing, misshapen or unknown tensor, or an
    architecture that is not supported.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.")
    arch = read_arch(folder)
    return assemble(arch, _tensors(folder, dtype, torch.device(device)), where=str(folder))


def assemble(arch: Arch, tensors: Iterable[tuple[str, Tensor]], *, where: str) -> CausalLM:
    """A model that takes the given tensors, under Hugging Face's names, as its weights, without a copy.

    Raises ModelError, naming `where`, for a missing, misshapen or unknown tensor.
    """
    with torch.device("meta"):
        model = empty(arch)
    shapes = {name: weight.shape for name, weight in model.named_parameters()}
    state: dict[str, Tensor] = {}
    spare_head: Tensor | None = None
    for name, tensor in tensors:
        if name == "lm_head.weight" and arch.tied:
            spare_head = tensor
        elif name in shapes:
            if tensor.shape != shapes[name]:
                raise ModelError(
                    f"{where}: the tensor '{name}' has the shape {tuple(tensor.shape)}, config.json asks for {tuple(shapes[name])}."
                )
            state[name] = tensor
        elif not name.endswith("rotary_emb.inv_freq"):  # old folders carry these; they follow from config.json
            raise ModelError(
                f"{where}: the tensor '{name}' has no place in a '{arch.family}' model of this config.json."
            )
    if missing := sorted(shapes.keys() - state.keys()):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{where}: the tensor '{missing[0]}'{more} is missing; download or save the model again.")
    if spare_head is not None and not torch.equal(spare_head, state["model.embed_tokens.weight"]):
        raise ModelError(
            f"{where}: config.json ties the head to the embedding, but the two differ; set 'tie_word_embeddings' to false there."
        )
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True).eval()


def save_folder(
    model: CausalLM,
    folder: str | Path,
    *,
    tokenizer: Savable | None = None,
    generation: Mapping[str, Any] | None = None,
    copy_from: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a folder that Hugging Face's tools open: weights (a tied head once), config.json, generation_config.json, tokenizer.

    dtype: of the weights on disk, by default the model's own. generation: the content of generation_config.json; by default that of
    `copy_from`, else the beginning and end tokens. tokenizer: saves itself; without it, tokenizer files come from `copy_from`.
    Raises RunError if the weights cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = None if copy_from is None else Path(copy_from)
    dtype = dtype or model.dtype
    state = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in model.named_parameters()}
    try:
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise RunError(
            f"{folder / WEIGHTS} cannot be written: {error}. Free space or choose another folder."
        ) from error
    name = str(dtype).removeprefix("torch.")
    # transformers 5 reads the first key, 4 the second.
    config = model.arch.to_config() | {"dtype": name, "torch_dtype": name}
    _write_table(folder / CONFIG, config)
    if generation is None and source is not None and (source / GENERATION).is_file():
        generation = _read_table(source / GENERATION)
    if generation is None:
        generation = {key: config[key] for key in ("bos_token_id", "eos_token_id") if config[key] is not None}
    _write_table(folder / GENERATION, generation)
    if tokenizer is not None:
        tokenizer.save(folder)
    elif source is not None:
        for file in TOKENIZER_FILES:
            if (source / file).is_file():
                shutil.copyfile(source / file, folder / file)


def _tensors(folder: Path, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for file, promised in _files(folder).items():
        try:
            with safe_open(file, framework="pt") as reader:
                names = set(reader.keys())
                if absent := sorted(promised - names):
                    raise ModelError(
                        f"{file} lacks the tensor '{absent[0]}' that {INDEX} promises; download the model again."
                    )
                for name in sorted(names):
                    tensor = reader.get_tensor(name)
                    if tensor.dtype not in _FLOATS and not name.endswith("inv_freq"):
                        raise ModelError(
                            f"{file}: the tensor '{name}' is {tensor.dtype}, quantised weights are not supported."
                        )
                    # A copy even where nothing changes: the reader's tensor may be a view of the file, which can be replaced.
                    copied = tensor.to(device, dtype, copy=True)
                    drop_pages(tensor.data_ptr(), tensor.nbytes)
                    yield name, copied
        except (SafetensorError, OSError, ValueError) as error:
            reason = str(error).rstrip(".")
            raise ModelError(f"{file} is truncated or broken ({reason}); download or save the model again.") from None


def _files(folder: Path) -> dict[Path, set[str]]:
    """The weight files, each with the tensors that an index promises there (none without an index)."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: set()}
    if not (folder / INDEX).is_file():
        pickled = any(folder.glob("pytorch_model*.bin"))
        reason = (
            "only pickled weights (.bin), which are never loaded; convert it to safetensors"
            if pickled
            else f"no {WEIGHTS}"
        )
        raise ModelError(f"{folder} holds {reason}.")
    places = _read_table(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{folder / INDEX} has no 'weight_map'; download the model again.")
    files: dict[Path, set[str]] = {}
    for tensor, file in places.items():
        if not isinstance(file, str) or os.path.basename(file) != file or not file.endswith(".safetensors"):
            raise ModelError(f"{folder / INDEX}: {file!r} is not the name of a safetensors file in this folder.")
        if not (folder / file).is_file():
            raise ModelError(f"{folder / file} is missing, though {INDEX} names it; download the model again.")
        files.setdefault(folder / file, set()).add(tensor)
    return files


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: the folder is no model in Hugging Face layout.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}; download or save the model again.") from None
    if not isinstance(table, dict):
        raise ModelError(f"{path} must hold one JSON object.")
    return table


def _write_table(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
