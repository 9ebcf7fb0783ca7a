"""Optimizers: AdamW, or Muon for the matrices inside blocks with AdamW for the rest; clipping, schedule, exact state.

AdamW: Loshchilov and Hutter 2019 (arXiv:1711.05101); matrices decay, vectors do not. Muon: Jordan et al. 2024, scaled to AdamW's step
size (Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both; embedding, head and norms then have AdamW without decay.
Weights and moments are float32. State is named by parameter, so it is stored as safetensors and fits any later process.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from trilaw.core.config import Config
from trilaw.core.errors import RunError, TrilawError
from trilaw.model.memory import keep_freed
from trilaw.training.muon import Muon

Kind = Literal["adamw", "muon"]
Schedule = Literal["constant", "linear", "cosine"]


class OptimizerConfig(Config):
    """A stage narrows the defaults to its own vetted setting."""

    kind: Kind = "adamw"
    learning_rate: float = Field(default=1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = Field(default=0.95, ge=0, lt=1)  # of Muon
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0)  # largest norm of the whole gradient; 0: no clipping
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Schedule = "constant"
    decay_from: float = Field(default=0.0, ge=0, lt=1)  # share of the steps before linear or cosine decay begins
    final: float = Field(default=0.0, ge=0, le=1)  # share of the learning rate left at the end

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 1..steps."""
        warm = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        done = max(0.0, (step / steps - self.decay_from) / (1 - self.decay_from))
        if self.schedule == "constant":
            left = 1.0
        elif self.schedule == "linear":
            left = 1 - (1 - self.final) * done
        else:
            left = self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * warm * left


class Optimizer:
    """The optimizer of one model over a run of `steps` steps. Gradients are expected in `.grad` and are cleared by `step`."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, steps: int) -> None:
        keep_freed()  # here, as every training process comes by
        self.config, self.steps = config, steps
        self.named = dict(model.named_parameters())
        muon = {n for n, p in self.named.items() if config.kind == "muon" and ".layers." in n and p.dim() == 2}
        rest = {n: p for n, p in self.named.items() if n not in muon}
        decay = config.weight_decay if config.kind == "adamw" else 0.0
        groups = [
            {"params": [p for p in rest.values() if p.dim() >= 2], "weight_decay": decay},
            {"params": [p for p in rest.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        rate = config.learning_rate
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=rate, betas=config.betas, fused=True)]
        if muon:
            self.parts.append(
                Muon(
                    [self.named[n] for n in self.named if n in muon],
                    lr=rate,
                    momentum=config.momentum,
                    weight_decay=config.weight_decay,
                )
            )

    def step(self, step: int) -> tuple[float, float]:
        """Clip, update, clear. Returns the gradient's norm before clipping and the learning rate used.

        Without any gradient (a batch with nothing to learn from) nothing moves. Raises TrilawError when the norm is not finite.
        """
        rate = self.config.rate(step, self.steps)
        weights = [p for p in self.named.values() if p.grad is not None]
        if not weights:
            return 0.0, rate
        norm = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if not torch.isfinite(norm):
            raise TrilawError(
                f"The gradient of step {step} is not finite: lower optimizer.learning_rate and run again; "
                "the last checkpoint is intact and the run goes on from it."
            )
        if self.config.clip > 0:
            nn.utils.clip_grads_with_norm_(weights, self.config.clip, norm)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm), rate

    def state(self) -> dict[str, Tensor]:
        """Every moment as `<parameter>/<moment>`."""
        return {
            f"{name}/{key}": value
            for part in self.parts
            for name, weight in self._of(part)
            for key, value in part.state.get(weight, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises RunError for a moment of an unknown parameter or of another shape."""
        homes = {name: (part, weight) for part in self.parts for name, weight in self._of(part)}
        for part in self.parts:
            part.state.clear()
        for key, value in state.items():
            name, _, moment = key.rpartition("/")
            if name not in homes or value.shape not in (homes[name][1].shape, torch.Size()):
                raise RunError(
                    f"The optimizer state has {key} {tuple(value.shape)}, which the model lacks: it belongs to another model."
                )
            part, weight = homes[name]
            part.state[weight][moment] = value.to(weight.device).clone()

    def _of(self, part: torch.optim.Optimizer) -> Iterable[tuple[str, Tensor]]:
        names = {id(weight): name for name, weight in self.named.items()}
        return [(names[id(weight)], weight) for group in part.param_groups for weight in group["params"]]
