"""What a GRPO stage can be told; `grpo.py` says what it does with it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trilaw.core.config import Config
from trilaw.training.advantages import Baseline, Scale
from trilaw.training.loop import Precision, SaveDtype
from trilaw.training.optim import OptimizerConfig
from trilaw.training.rollout import PassRateFilter


class GrpoOptimizer(OptimizerConfig):
    learning_rate: float = Field(default=1e-6, gt=0)
    warmup_steps: int = Field(default=5, ge=0)


class Quantization(Config):
    """Samples from a copy of the policy in another format, and the cap of the importance weights that make up for the difference."""

    kind: Literal["int8"] = "int8"
    cap: float = Field(default=2.0, ge=1)


class GrpoConfig(Config):
    base: str
    task: str
    split: str = "train"
    steps: int = Field(default=100, gt=0)
    problems: int = Field(default=32, gt=0)  # a step
    samples: int = Field(default=16, gt=1)  # a problem
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=512, gt=0)
    baseline: Baseline = "group_mean"
    std: Scale = "none"
    denominator: Literal["batch", "informative"] = "batch"
    kl: float = Field(default=0.0, ge=0)  # weight of the pull to the base model
    reward: Literal["task", "random"] = (
        "task"  # random: a coin instead of the verdict, the control that should teach nothing
    )
    random_probability: float = Field(default=0.5, gt=0, lt=1)  # of a reward of 1 from the coin
    filter: PassRateFilter | None = None
    optimizer: GrpoOptimizer = GrpoOptimizer()
    quantization: Quantization | None = None  # of the copy that samples
    max_batch: int = Field(default=512, gt=0)  # samples that the engine decodes side by side
    micro_tokens: int | None = Field(
        default=None, gt=0
    )  # tokens at a time in training; by default what fits in about 2 GB
    recompute: bool = False  # keep little of a block for backward, compute it again
    save_every: int = Field(default=10, gt=0)
    keep_every: int = Field(default=0, ge=0)  # steps between models that stay and can be named `stage@step`; 0: none
    log_samples_every: int = Field(default=10, gt=0)  # steps; 4 samples each into rollouts.jsonl
    precision: Precision = "auto"
    save_dtype: SaveDtype = "auto"
