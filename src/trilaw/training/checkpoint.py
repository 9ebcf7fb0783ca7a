"""Checkpoints that resume exactly: a Hugging Face folder with float32 weights, plus what the trainer needs.

    checkpoints/step-N/    config.json, model.safetensors, tokenizer files: any tool opens it
        trainer/optimizer.safetensors   every moment, by parameter name
        trainer/state.json              step, totals
        trainer/manifest.json           SHA-256 of each other file, written last

A folder gets its name only when it is whole and durable, the newest two are kept, and one whose bytes do not match its manifest is
passed over for the one before. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from trilaw.core.errors import RunError
from trilaw.core.rundir import TEMPORARY, new_folder, read_json, write_json
from trilaw.model import hf
from trilaw.model.llama import CausalLM
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training.optim import Optimizer

KEEP = 2
_NAME = re.compile(r"step-(\d+)")


def write(
    stage: Path, step: int, model: CausalLM, tokenizer: HFTokenizer, optimizer: Optimizer, state: dict[str, Any]
) -> Path:
    """Save a checkpoint of a stage's folder and drop what is older than the newest two.

    Raises RunError on a full disk or an unwritable folder; the checkpoints before are then intact.
    """
    path = stage / "checkpoints" / f"step-{step}"
    with new_folder(path) as folder:
        try:
            hf.save_folder(model, folder, tokenizer=tokenizer, dtype=torch.float32)
        except SafetensorError as error:  # safetensors has no OSError of its own for a full disk
            raise OSError(str(error)) from error
        trainer = folder / "trainer"
        trainer.mkdir()
        moments = {name: value.detach().to("cpu").contiguous() for name, value in optimizer.state().items()}
        (trainer / "optimizer.safetensors").write_bytes(save(moments))
        write_json(trainer / "state.json", {"step": step, **state})
        sums = {str(file.relative_to(folder)): _sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
        write_json(trainer / "manifest.json", sums)
    for old in _folders(stage)[KEEP:]:
        remove(old)
    return path


def latest(stage: Path) -> Path | None:
    """The newest checkpoint of a stage that is whole; a damaged one is named on stderr and the one before it is taken."""
    found = _folders(stage)
    for path in found:
        fault = _fault(path)
        if fault is None:
            return path
        print(f"Warning: {path} is damaged ({fault}) and passed over.", file=sys.stderr)
    if found:
        print(
            f"Warning: no checkpoint of stage '{stage.name}' is whole: it starts from its beginning.", file=sys.stderr
        )
    return None


def read(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[CausalLM, HFTokenizer, dict[str, torch.Tensor], dict[str, Any]]:
    """(model in float32, tokenizer, optimizer state, trainer state) of a checkpoint that `latest` gave."""
    model = hf.load_folder(path, dtype=torch.float32, device=device)
    moments = load_file(path / "trainer" / "optimizer.safetensors")
    return model, HFTokenizer.from_folder(path), moments, read_json(path / "trainer" / "state.json")


def discard_after(stage: Path, step: int) -> None:
    """Remove checkpoints newer than `step` (damaged ones, when work goes on from an older one)."""
    for path in _folders(stage):
        if _step(path) > step:
            remove(path)


def remove(path: Path) -> None:
    """Delete a folder such that a kill in the middle leaves no half of it under its name."""
    hidden = path.with_name(f"{TEMPORARY}{os.getpid()}-gone-{path.name}")
    os.replace(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _folders(stage: Path) -> list[Path]:
    """Newest first."""
    found = [p for p in (stage / "checkpoints").glob("step-*") if p.is_dir() and _NAME.fullmatch(p.name)]
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _fault(path: Path) -> str | None:
    name = "trainer/manifest.json"
    try:
        sums = read_json(path / "trainer" / "manifest.json")
        for name, expected in sums.items():
            if _sha256(path / name) != expected:
                return f"{name} has changed"
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    except (RunError, AttributeError):
        return "trainer/manifest.json is missing or broken"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
