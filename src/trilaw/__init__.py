"""Trilaw: make a reasoning model out of an open model on the compute you have, and know what the next unit of compute buys.

Every public name is here, and each is loaded when it is first used: `import trilaw` alone brings in no torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilaw.api.evaluate import compare, evaluate
    from trilaw.api.laws import allocate, fit
    from trilaw.api.load import Model, load, pull, resolve, sample
    from trilaw.api.plan import plan_rl, plan_serve, plan_train
    from trilaw.api.run import grpo, pretrain, report, run, sft, task
    from trilaw.api.solve import solve
    from trilaw.core.errors import Stopped, TrilawError
    from trilaw.core.protocols import Task
    from trilaw.core.types import Estimate, Evaluation, Example, Message, Problem, Sample, SamplingParams, Score
    from trilaw.pipeline.run import RunSummary
    from trilaw.tasks.verifiers.marks import marked
    from trilaw.tasks.verifiers.number import final_number

__version__ = "0.1.0"

# PyTorch asks Linux for large pages then, if this comes before its first tensor: memory is got a page at a time, and by the small ones a
# training step spends a tenth of its time on that.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_HOMES = {
    "allocate": "trilaw.api.laws",
    "fit": "trilaw.api.laws",
    "compare": "trilaw.api.evaluate",
    "evaluate": "trilaw.api.evaluate",
    "Model": "trilaw.api.load",
    "load": "trilaw.api.load",
    "pull": "trilaw.api.load",
    "resolve": "trilaw.api.load",
    "sample": "trilaw.api.load",
    "plan_rl": "trilaw.api.plan",
    "plan_serve": "trilaw.api.plan",
    "plan_train": "trilaw.api.plan",
    "grpo": "trilaw.api.run",
    "pretrain": "trilaw.api.run",
    "report": "trilaw.api.run",
    "run": "trilaw.api.run",
    "sft": "trilaw.api.run",
    "task": "trilaw.api.run",
    "solve": "trilaw.api.solve",
    "Stopped": "trilaw.core.errors",
    "TrilawError": "trilaw.core.errors",
    "Task": "trilaw.core.protocols",
    "Estimate": "trilaw.core.types",
    "Evaluation": "trilaw.core.types",
    "Example": "trilaw.core.types",
    "Message": "trilaw.core.types",
    "Problem": "trilaw.core.types",
    "Sample": "trilaw.core.types",
    "SamplingParams": "trilaw.core.types",
    "Score": "trilaw.core.types",
    "RunSummary": "trilaw.pipeline.run",
    "marked": "trilaw.tasks.verifiers.marks",
    "final_number": "trilaw.tasks.verifiers.number",
}

__all__ = [
    "Estimate",
    "Evaluation",
    "Example",
    "Message",
    "Model",
    "Problem",
    "RunSummary",
    "Sample",
    "SamplingParams",
    "Score",
    "Stopped",
    "Task",
    "TrilawError",
    "allocate",
    "compare",
    "evaluate",
    "final_number",
    "fit",
    "grpo",
    "load",
    "marked",
    "plan_rl",
    "plan_serve",
    "plan_train",
    "pretrain",
    "pull",
    "report",
    "resolve",
    "run",
    "sample",
    "sft",
    "solve",
    "task",
]


def __getattr__(name: str) -> Any:
    """PEP 562: the name's module, imported now; kept, so that this happens once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trilaw' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
