"""Which tasks there are, and how a name with options becomes one.

A task's file is imported only when the task is built. Each has a frozen `Config` class beside it; its class takes that config.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, cast

from trilaw.core.config import Config, TaskSpec, parse
from trilaw.core.errors import ConfigError, nearest
from trilaw.core.protocols import Task

KINDS: dict[str, str] = {
    "calculator": "a pocket calculator's keys, for models trained from nothing (word-level tokens)",
    "markov": "a made-up language whose entropy is known, for the law of pre-training (word-level tokens)",
    "arithmetic": "short sums, differences and products in words, one step a line",
    "countdown": "reach a target with each given number used exactly once",
    "gsm8k": "grade-school word problems (GSM8K), from a JSONL file or the Hugging Face hub",
    "custom": "your own problems: a JSONL file, or a Python file with a verify function",
}
_CLASSES: dict[str, tuple[str, str, str]] = {
    "calculator": ("trilaw.tasks.calculator", "Calculator", "CalculatorConfig"),
    "markov": ("trilaw.tasks.markov", "Markov", "MarkovConfig"),
    "arithmetic": ("trilaw.tasks.arithmetic", "Arithmetic", "ArithmeticConfig"),
    "countdown": ("trilaw.tasks.countdown", "Countdown", "CountdownConfig"),
    "gsm8k": ("trilaw.tasks.gsm8k", "GSM8K", "GSM8KConfig"),
    "custom": ("trilaw.tasks.custom", "Custom", "CustomConfig"),
}


def from_file(spec: TaskSpec) -> TaskSpec:
    """`spec` itself, or the `custom` task that a kind ending in .jsonl or .py stands for."""
    suffix = Path(spec.kind).suffix
    if suffix not in (".jsonl", ".py"):
        return spec
    option = "python" if suffix == ".py" else "data"
    return TaskSpec(kind="custom", options={option: spec.kind, **spec.options})


def config_class(kind: str, where: str = "") -> type[Config]:
    """The options of a kind of task. Raises ConfigError for a kind that there is not."""
    module, _, config = _find(kind, where)
    return cast(type[Config], getattr(importlib.import_module(module), config))


def build(spec: TaskSpec | str, where: str = "") -> Task:
    """The task that `spec` names; `where` is the place in a recipe, for complaints.

    Raises ConfigError for an unknown kind or an option that does not hold, TaskError when its data is broken.
    """
    spec = from_file(TaskSpec(kind=spec) if isinstance(spec, str) else spec)
    module, task, _ = _find(spec.kind, where)
    options = parse(config_class(spec.kind, where), spec.options, where or f"task '{spec.kind}'")
    make: Any = getattr(importlib.import_module(module), task)
    return cast(Task, make(options))


def _find(kind: str, where: str) -> tuple[str, str, str]:
    if kind not in _CLASSES:
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}there is no task '{kind}'{nearest(kind, KINDS)}, and it is no .jsonl or .py file.")
    return _CLASSES[kind]
