"""The kinds of stage that a recipe may name, and where the code of each lives.

A stage is a config class and a function `run(config, context) -> StageResult` side by side in one file. A new kind of stage is a
new file and one line here. The files are imported when a recipe asks for them: most of them need torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trilaw.core.config import Config
from trilaw.core.protocols import StageContext, StageResult

RunStage = Callable[[Any, StageContext], StageResult]


@dataclass(frozen=True)
class Kind:
    """One kind of stage: the module that holds `config_name` and `run`, and whether it leaves a model behind."""

    module: str
    config_name: str
    makes_model: bool
    about: str

    @property
    def config(self) -> type[Config]:
        cls: type[Config] = getattr(importlib.import_module(self.module), self.config_name)
        return cls

    @property
    def run(self) -> RunStage:
        function: RunStage = importlib.import_module(self.module).run
        return function


KINDS: Mapping[str, Kind] = {
    "pretrain": Kind("trilaw.training.pretrain", "PretrainConfig", True, "a new model from a task's worked text"),
    "sft": Kind("trilaw.training.sft", "SftConfig", True, "supervised fine-tuning on worked solutions"),
    "grpo": Kind("trilaw.training.grpo", "GrpoConfig", True, "reinforcement learning from checked answers"),
    "eval": Kind(
        "trilaw.pipeline.evaluate", "EvalConfig", False, "accuracy of models on a task's splits, with intervals"
    ),
    "laws": Kind("trilaw.pipeline.laws", "LawsConfig", False, "the three scaling laws of what was measured so far"),
}
