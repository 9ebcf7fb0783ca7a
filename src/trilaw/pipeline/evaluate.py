"""The eval stage: models of the run (or from outside) on a task's splits, each number with its interval.

Every model answers the same problems, and sample seeds come from the run's seed alone. Each model and split has its
own sample store `<model>-<split>.jsonl` in the stage's folder; what a killed evaluation had stored is not sampled again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from trilaw.core.config import Config
from trilaw.core.errors import RequestError
from trilaw.core.protocols import StageContext, StageResult, Task
from trilaw.core.seeds import derive
from trilaw.core.types import Evaluation, SamplingParams
from trilaw.pipeline.progress import Under


class EvalConfig(Config):
    """Which models on which splits, and how to sample. `limit` counts problems a split, `samples` counts completions a problem."""

    models: list[str] = Field(min_length=1)
    task: str
    splits: list[str] = Field(default=["test"], min_length=1)
    limit: int | None = Field(default=128, ge=1)
    samples: int = Field(default=1, ge=1, le=100_000)
    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    max_tokens: int = Field(default=512, ge=1)
    for_laws: bool = False  # points for the scaling laws: left out of the tables of results and of the verdicts

    @field_validator("models", "splits")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a name stands there twice")
        return value

    @model_validator(mode="after")
    def _greedy_once(self) -> Self:
        try:
            self.params.check()
        except RequestError as error:
            raise ValueError(str(error)) from None
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("greedy samples (temperature = 0) are all alike: set samples = 1 or a temperature above 0")
        return self

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            max_tokens=self.max_tokens,
        )


def store_path(folder: Path, model: str, split: str) -> Path:
    """The sample store of a model and a split; a name that is no plain file name gets a short hash, so that none collide."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", model).lstrip(".")[-80:]
    return folder / f"{plain if plain == model else f'{plain}-{derive(model) % 0x10000:04x}'}-{split}.jsonl"


class Named:
    """A task under the name that the recipe gives it: two tasks of one kind stay apart in tables and sample stores."""

    def __init__(self, name: str, task: Task) -> None:
        self.name, self.splits, self.description = name, task.splits, task.description
        self.problems, self.verify, self.validate = task.problems, task.verify, task.validate


def run(config: EvalConfig, context: StageContext) -> StageResult:
    """Evaluate every model on every split, one after the other.

    Raises Stopped when asked to stop (finished samples are stored), ModelError or SourceError for a model that cannot be had.
    """
    from trilaw.engine.engine import Engine  # torch: only when the stage runs
    from trilaw.evals.run import evaluate
    from trilaw.model.loading import load

    task = Named(config.task, context.tasks[config.task])
    progress = Under(context.name, context.progress)
    evaluations: list[Evaluation] = []
    seconds, flops, tokens = 0.0, 0.0, 0
    for name in config.models:
        loaded = load(context.models.get(name, name))
        engine = Engine(loaded.model, loaded.tokenizer, consume=True)
        for split in config.splits:
            result = evaluate(
                task,
                engine,
                split=split,
                limit=config.limit,
                samples=config.samples,
                params=config.params,
                seed=context.seed,
                store=store_path(context.folder, name, split),
                arch=loaded.arch,
                progress=progress,
                should_stop=context.should_stop,
                stage=name,
            )
            evaluations += result.evaluations
            seconds += result.seconds
            flops += result.flops
            tokens += result.tokens
    return StageResult("eval", None, seconds, flops, tokens, evaluations=tuple(evaluations))
