"""What all peers work on: one model as a Hugging Face folder with the same weights for everybody, and the same questions.

The folder holds bfloat16, as models are published. A GGUF model keeps its own file besides, for llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trilaw.core.errors import TrilawError
from trilaw.model import hf, precision
from trilaw.model.loading import load
from trilaw.model.tokenizer import HFTokenizer

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Material:
    folder: Path
    gguf: Path | None
    tokenizer: HFTokenizer
    dtype: str
    device: str

    def job(self, **more: Any) -> dict[str, Any]:
        """What every peer is told."""
        gguf = None if self.gguf is None else str(self.gguf)
        return {"model": str(self.folder), "gguf": gguf, "dtype": self.dtype, "device": self.device, **more}

    def ceilings(self) -> list[str]:
        """The number formats whose matrix products bound this work: the one asked for, float32, and bfloat16 where it is native."""
        native = precision.native_bfloat16(torch.device(self.device))
        return [name for name in DTYPES if name in ("float32", self.dtype) or native]


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="smollm2-135m", help="a catalogue name, a folder or a .gguf file (default: %(default)s)")
    add(
        "--dtype",
        choices=DTYPES,
        help="number format of all peers (default: bfloat16 where its products are native, else float32)",
    )
    add("--device", choices=("cpu", "cuda"), help="(default: cuda where there is one)")
    add("--questions", type=Path, help="GSM8K's test.jsonl; without it the questions are arithmetic of like length")


def prepare(options: argparse.Namespace, folder: Path) -> Material:
    """Load the model once and save it in `folder`. Ends the command with the reason if it cannot be loaded."""
    try:
        loaded = load(options.model, dtype=torch.float32, device="cpu")
    except TrilawError as error:
        sys.exit(str(error))
    hf.save_folder(loaded.model, folder, tokenizer=loaded.tokenizer, dtype=torch.bfloat16)
    device = torch.device(options.device) if options.device else precision.default_device()
    chosen = precision.choose(loaded.arch.parameters(), device)[0]
    dtype = options.dtype or str(chosen).removeprefix("torch.")
    gguf = loaded.path if loaded.path.suffix == ".gguf" else None
    return Material(folder, gguf, loaded.tokenizer, dtype, device.type)


def described(options: argparse.Namespace, material: Material, *names: str) -> dict[str, Any]:
    """The work in words, for the file of results: the options of these names, and what was drawn from the others."""
    asked = {name: getattr(options, name) for name in ("model", "rounds", *names)}
    questions = options.questions.name if options.questions else "arithmetic"
    return {**asked, "dtype": material.dtype, "device": material.device, "questions": questions}


def questions(file: Path | None, first: int, count: int) -> list[str]:
    """`count` questions from number `first` on; a file is gone through again from its beginning."""
    numbers = range(first, first + count)
    if file is not None:
        lines = file.read_text(encoding="utf-8").splitlines()
        return [str(json.loads(lines[i % len(lines)])["question"]) for i in numbers]
    sum_of = "Anna buys {} pens at {} cents each, and {} books at {} dollars each. She pays with a note of {} dollars. "
    return [
        sum_of.format(3 + i, 20 + i, 2 + i % 5, 5 + i % 7, 50 + i) * (1 + i % 2) + "How much money does she get back?"
        for i in numbers
    ]


def prompts(tokenizer: HFTokenizer, asked: list[str]) -> list[list[int]]:
    """The questions by the model's chat template."""
    return [tokenizer.encode_chat([{"role": "user", "content": question}]) for question in asked]


def text_rows(material: Material, file: Path | None, rows: int, tokens: int) -> list[list[int]]:
    """`rows` rows of `tokens` token ids: the questions one after the other, without padding."""
    stream: list[int] = []
    first, block = 0, 256
    while len(stream) < rows * tokens:
        stream += material.tokenizer.encode("\n".join(questions(file, first, block)) + "\n")
        first += block
    return [stream[i * tokens : (i + 1) * tokens] for i in range(rows)]
