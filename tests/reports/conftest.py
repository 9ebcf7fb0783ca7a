"""A run folder as the pipeline leaves it, written file by file."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from trilaw.reports.html import build

ARCH = {
    "model_type": "llama",
    "vocab_size": 48,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


class FakeRun:
    """Writes the files of a made-up run of the tiny recipe; tests then spoil or add to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def stage(self, name: str, kind: str, done: dict[str, Any] | None = None, **config: Any) -> None:
        self.stages.append({"name": name, "kind": kind, **config})
        if done is not None:
            defaults = {"seconds": 90.0, "flops": 5.4e12, "tokens": 1_100_000, "metrics": {}, "evaluations": []}
            write(
                self.folder / "stages" / name / "done.json",
                {"name": name, "kind": kind, "model": None, **defaults, **done},
            )

    def model(self, name: str, hidden: int) -> None:
        write(self.folder / "stages" / name / "model" / "config.json", {**ARCH, "hidden_size": hidden})

    def pretrain(self, name: str, hidden: int, scale: float) -> None:
        self.stage(name, "pretrain", {"model": "model", "flops": 5.4e12 * scale}, task="calc")
        self.model(name, hidden)
        for i in range(1, 13):
            loss = 1.19 + 0.02 / scale + 1.6 * math.exp(-i / (2.2 / scale**0.2))
            self.events.append(
                {
                    "stage": name,
                    "step": 90 * i,
                    "loss": loss + 0.02,
                    "valid_loss": loss,
                    "flops": 4.5e11 * scale * i,
                    "tokens": 91_000 * i,
                }
            )

    def grpo(self, name: str, base: str, final: float, done: bool = True, steps: int = 50) -> None:
        self.stage(
            name,
            "grpo",
            {"model": "model", "seconds": 75.0, "tokens": 620_000} if done else None,
            base=base,
            task="calc",
            steps=steps,
        )
        self.model(name, 128)
        noise = random.Random(name)
        for i in range(steps):
            grown = 1 - math.exp(-i / 7)
            row: dict[str, Any] = {
                "stage": name,
                "step": i,
                "flops": 6e10 * (i + 1),
                "tokens": 12_400 * (i + 1),
                "loss": None,
            }
            row["reward"] = min(1.0, max(0.0, 0.22 + (final - 0.22) * grown + noise.gauss(0, 0.025)))
            row["length"] = 13.8 + 12 * grown * (1.0 - 0.004 * i) + noise.gauss(0, 0.4)
            row["entropy"] = 0.35 * (1 - grown) + 0.02
            row["zero_variance"] = min(1.0, max(0.0, 0.02 + 0.7 * grown * (i / steps) + noise.gauss(0, 0.03)))
            row["task/direct"] = 0.6 * (1 - grown)
            row["task/checked"] = 0.2 + 0.25 * grown * math.exp(-i / 20) - 0.17 * i / steps
            row["task/worked"] = 1 - row["task/direct"] - row["task/checked"]
            self.events.append(row)

    def exam(self, models: dict[str, dict[str, dict[str, tuple[float, float, float]]]], done: bool = True) -> None:
        """`models`: name -> split -> metric -> (value, low, high)."""
        rows = [
            {
                "stage": model,
                "task": "calc",
                "split": split,
                "metric": metric,
                "value": v,
                "low": low,
                "high": high,
                "n": 256,
                "method": "bootstrap over problems, 95 %",
            }
            for split in sorted({s for by_split in models.values() for s in by_split}, reverse=True)
            for model, by_split in models.items()
            for metric, (v, low, high) in by_split.get(split, {}).items()
        ]
        self.stage(
            "exam",
            "eval",
            {"seconds": 21.0, "flops": 3e11, "tokens": 410_000, "evaluations": rows} if done else None,
            models=list(models),
            task="calc",
            splits=["test", "hard"],
        )

    def samples(self, model: str, split: str, texts: list[tuple[str, float]]) -> None:
        """A sample store as evals writes it: two samples a problem, the second one not to be shown."""
        lines = []
        for i, (text, value) in enumerate(texts):
            for index in (0, 1):
                row = {
                    "problem": f"{split}/{i}", "sample": index, "messages": [{"role": "user", "content": f"{37 + i} *2 +8 -3 +9 *3"}],
                    "gold": "64", "text": text if index == 0 else "another sample", "tokens": [], "stop": "stop", "value": value,
                    "extracted": "64" if value else "21", "detail": "", "error": None, "usage": {"completion_tokens": 24}, "seconds_elapsed": 1.0,
                }  # fmt: skip
                lines.append(json.dumps(row))
        home = self.folder / "stages" / "exam"
        write(home / f"{model}-{split}.jsonl", "\n".join(lines) + "\n")
        write(
            home / f"{model}-{split}.settings.json",
            {"version": 1, "task": "calc", "split": split, "temperature": 1.0, "seed": 0},
        )

    def close(self) -> Path:
        write(
            self.folder / "resolved.json",
            {"version": 1, "name": "tiny", "seed": 0, "tasks": {"calc": {"kind": "calculator"}}, "stages": self.stages},
        )
        write(self.folder / "recipe.toml", 'version = 1\nname = "tiny"\n\n[tasks.calc]\nkind = "calculator"\n')
        write(self.folder / "events.jsonl", "".join(json.dumps(row) + "\n" for row in self.events))
        machine = {
            "trilaw": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "numpy": "2.3.0",
            "platform": "Linux-6.1-x86_64",
            "cpu": "A processor of 2024",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 8 << 30,
            "git": None,
        }
        attempts = [
            {"started": "2026-11-24T08:00:00Z", "ended": "2026-11-24T08:06:12Z", "outcome": "complete", **machine}
        ]
        write(self.folder / "manifest.json", {"version": 1, "seed": 0, **machine, "attempts": attempts})
        return self.folder


BASE = {
    "pass@1": (0.229, 0.21, 0.25),
    "pass@4": (0.61, 0.57, 0.64),
    "pass@16": (0.96, 0.93, 0.98),
    "maj@4": (0.36, 0.32, 0.4),
    "maj@16": (0.71, 0.65, 0.76),
    "mean_tokens": (13.8, 13.6, 14.1),
}
GOOD = {
    "pass@1": (0.951, 0.94, 0.965),
    "pass@4": (0.99, 0.98, 1.0),
    "pass@16": (0.998, 0.99, 1.0),
    "maj@4": (0.97, 0.95, 0.99),
    "maj@16": (0.996, 0.98, 1.0),
    "mean_tokens": (24.2, 24.0, 24.4),
}
HARD_BASE = {
    "pass@1": (0.141, 0.12, 0.16),
    "pass@4": (0.41, 0.37, 0.45),
    "pass@16": (0.91, 0.87, 0.94),
    "maj@4": (0.24, 0.2, 0.28),
    "maj@16": (0.55, 0.49, 0.61),
    "mean_tokens": (18.9, 18.5, 19.3),
}
HARD_GOOD = {
    "pass@1": (0.533, 0.49, 0.58),
    "pass@4": (0.57, 0.52, 0.62),
    "pass@16": (0.6, 0.54, 0.66),
    "maj@4": (0.51, 0.46, 0.56),
    "maj@16": (0.48, 0.42, 0.54),
    "mean_tokens": (37.7, 37.2, 38.1),
}


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path / "run")


def tiny(fake: FakeRun) -> Path:
    """The whole tiny run, with a control that degrades."""
    fake.pretrain("small", 48, 0.11)
    fake.pretrain("medium", 80, 0.3)
    fake.pretrain("base", 128, 1.0)
    fake.grpo("zero", "base", 0.95)
    fake.grpo("random", "base", 0.05, steps=30)
    bad = {
        "pass@1": (0.01, 0.004, 0.02),
        "pass@4": (0.04, 0.02, 0.06),
        "pass@16": (0.18, 0.14, 0.23),
        "maj@4": (0.02, 0.01, 0.04),
        "maj@16": (0.03, 0.01, 0.06),
        "mean_tokens": (16.4, 16.0, 16.9),
    }
    fake.exam(
        {"base": {"test": BASE, "hard": HARD_BASE}, "zero": {"test": GOOD, "hard": HARD_GOOD}, "random": {"test": bad}}
    )
    fake.samples(
        "base",
        "test",
        [
            ("= 21", 0.0),
            ("*2=74 , +8=82 , -3=79 , +9=88 , *3=64 , = 64", 1.0),
            ("*2=78 , +8=87 no +8=86", 0.0),
            ("= 5", 0.0),
        ],
    )
    fake.samples("zero", "test", [("*2=74 , +8=82 , -3=79 , +9=88 , *3=64 , = 64", 1.0)] * 4)
    return fake.close()


@pytest.fixture
def tiny_run(fake: FakeRun) -> Path:
    return tiny(fake)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with its report, built once for all tests that only look at it."""
    folder = tiny(FakeRun(tmp_path_factory.mktemp("built") / "run"))
    build(folder)
    return folder
