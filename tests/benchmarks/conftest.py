"""The benchmarks are scripts that import each other by name, so their folders stand on the path here as they do when one is run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilaw.core.arch import Arch
from trilaw.model.hf import save_folder
from trilaw.model.registry import build
from trilaw.model.tokenizer import HFTokenizer

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]


@pytest.fixture
def options() -> argparse.Namespace:
    """Of a short comparison that nothing disturbs (ticks of 10 ms say little about rounds of 1 ms)."""
    return argparse.Namespace(rounds=2, tries=3, minutes=1.0, disturbed=1e6, patience=60.0, threads=1, out=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A random model of a few thousand weights with a tokenizer of single characters, as a Hugging Face folder."""
    words = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,?\n"]
    tokenizer = HFTokenizer.word_level(words)
    arch = Arch(
        tokenizer.vocab_size, 32, 48, 2, 4, 2, 8, max_positions=512, bos_id=tokenizer.bos_id, eos_ids=tokenizer.eos_ids
    )
    save_folder(build(arch, seed=1), tmp_path / "model", tokenizer=tokenizer, dtype=torch.bfloat16)
    return tmp_path / "model"


@pytest.fixture
def job(folder: Path) -> Callable[..., dict[str, Any]]:
    """`job(key=value, ...)`: what the frame tells a peer about that model."""

    def make(**more: Any) -> dict[str, Any]:
        common = {"model": str(folder), "gguf": None, "dtype": "float32", "device": "cpu", "threads": 1}
        return {**common, "weights": "float32", "greedy": False, **more}

    return make
