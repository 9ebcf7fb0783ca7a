"""What every training stage does around its step: go on from the newest checkpoint, count, log, save, stop when told, finish.

    loop = Loop(context, kind="sft", steps=100, save_every=10)
    model, tokenizer, optimizer = loop.open(fresh, config.optimizer)
    for step in loop:                      # from the checkpoint on; saves between steps
        ...
        loop.record(step, Totals(flops, 0, tokens), loss=..., grad_norm=...)
    return loop.finish(metrics)

Nothing else than (run seed, stage name, step) may decide what a step does: then a run that was killed and went on equals one that was not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from trilaw.core.errors import ConfigError, Stopped, TrilawError, nearest
from trilaw.core.ledger import Totals
from trilaw.core.protocols import StageContext, StageResult, Task
from trilaw.core.rundir import kept_model, new_folder
from trilaw.model import hf, loading
from trilaw.model.llama import CausalLM
from trilaw.model.precision import SMALL, choose, default_device
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training import checkpoint
from trilaw.training.batch import MicroBatch
from trilaw.training.logprobs import token_logprobs
from trilaw.training.optim import Optimizer, OptimizerConfig

Precision = Literal["auto", "float32", "bfloat16"]
SaveDtype = Literal["auto", "float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Loop:
    """The steps 1..`steps` of one stage."""

    def __init__(
        self,
        context: StageContext,
        *,
        kind: str,
        steps: int,
        save_every: int,
        save_dtype: SaveDtype = "auto",
        log_every: int = 1,
        keep_every: int = 0,
    ) -> None:
        self.context, self.kind, self.steps = context, kind, steps
        self.save_every, self.save_dtype, self.log_every = save_every, save_dtype, log_every
        self.keep_every = keep_every  # steps between the models that stay, as `stage@step`; 0: none but the last
        self.start = 0  # steps done before this process
        self.totals = Totals()

    def open(
        self, fresh: Callable[[], tuple[CausalLM, HFTokenizer]], optimizer: OptimizerConfig
    ) -> tuple[CausalLM, HFTokenizer, Optimizer]:
        """Model, tokenizer and optimizer of the newest checkpoint, or `fresh()` ones. Events past that point are dropped."""
        found = checkpoint.latest(self.context.folder)
        if found is None:
            model, tokenizer = fresh()
            self.optimizer = Optimizer(model, optimizer, self.steps)
        else:
            model, tokenizer, moments, state = checkpoint.read(found, default_device())
            self.optimizer = Optimizer(model, optimizer, self.steps)
            self.optimizer.load(moments)
            self.start = int(state["step"])
            self.totals = Totals(state["flops"], state["seconds"], state["tokens"])
        checkpoint.discard_after(self.context.folder, self.start)
        self.context.events.truncate(self.context.name, self.start if found else -1)
        self.model, self.tokenizer = model.train(), tokenizer
        self.context.progress.start(self.context.name, self.steps, self.start)
        return self.model, tokenizer, self.optimizer

    def __iter__(self) -> Iterator[int]:
        """The steps still to do. Raises Stopped, after saving, when the context says so."""
        for step in range(self.start + 1, self.steps + 1):
            self._began = time.perf_counter()
            yield step
            if step == self.steps:
                return
            if self.keep_every and step % self.keep_every == 0:
                self._store_model(kept_model(self.context.folder, step))
            stop = self.context.should_stop()
            if stop or step % self.save_every == 0:
                self.save(step)
            if stop:
                raise Stopped(
                    f"Stopped after step {step} of {self.steps} of stage '{self.context.name}'; the same command goes on from there."
                )

    def add(self, work: Totals) -> None:
        """Count work done outside the steps."""
        self.totals += work

    def record(self, step: int, work: Totals, **metrics: float) -> None:
        """Count a step's FLOPs and tokens (its seconds are measured), log its metrics, tell the watching person.

        Raises TrilawError for a loss that is not finite.
        """
        if not abs(metrics.get("loss", 0.0)) < float("inf"):
            raise TrilawError(
                f"The loss of step {step} of stage '{self.context.name}' is not finite: lower optimizer.learning_rate and run again; "
                "the last checkpoint is intact."
            )
        seconds = time.perf_counter() - self._began
        self.totals += Totals(work.flops, seconds, work.tokens)
        if step % self.log_every == 0 or step in (1, self.steps) or "valid_loss" in metrics:
            row = {
                **metrics,
                "tokens": self.totals.tokens,
                "flops": self.totals.flops,
                "tokens_per_second": work.tokens / seconds,
                "seconds": seconds,
            }
            self.context.events.append(self.context.name, step, **row)
        shown = {name: value for name, value in metrics.items() if not name.startswith("seconds")}
        self.context.progress.update(step, **shown, tokens_per_second=work.tokens / seconds)

    def save(self, step: int) -> None:
        """A checkpoint; the events up to it are durable first. Raises RunError on a full disk."""
        self.context.events.flush()
        totals = {"flops": self.totals.flops, "seconds": self.totals.seconds, "tokens": self.totals.tokens}
        checkpoint.write(self.context.folder, step, self.model, self.tokenizer, self.optimizer, totals)

    def finish(self, metrics: Mapping[str, Any], summary: str) -> StageResult:
        """Save the stage's model and close the stage."""
        path = self.context.folder / "model"
        self._store_model(path)
        self.context.events.flush()
        self.context.progress.finish(summary)
        return StageResult(
            self.kind,
            path,
            self.totals.seconds,
            self.totals.flops,
            self.totals.tokens,
            {"steps": self.steps, **metrics},
        )

    def _store_model(self, path: Path) -> None:
        small = sum(p.numel() for p in self.model.parameters()) < SMALL
        dtype = DTYPES["float32" if small else "bfloat16"] if self.save_dtype == "auto" else DTYPES[self.save_dtype]
        with new_folder(path) as folder:
            hf.save_folder(self.model, folder, tokenizer=self.tokenizer, dtype=dtype)


def base_model(base: str, context: StageContext) -> tuple[CausalLM, HFTokenizer]:
    """The model of an earlier stage of that name, or of a MODEL name, in float32 on the default device."""
    path: str | Path = context.models.get(base, base)
    loaded = loading.load(path, dtype=torch.float32, device=default_device())
    return loaded.model, loaded.tokenizer


def task_of(name: str, context: StageContext) -> Task:
    """Raises ConfigError for a task that the recipe does not name."""
    if name not in context.tasks:
        raise ConfigError(f"stage '{context.name}': there is no task '{name}'{nearest(name, context.tasks)}.")
    return context.tasks[name]


def compute_dtype(precision: Precision, model: CausalLM) -> torch.dtype:
    """In which format matrices are multiplied; the weights that are trained are float32 in any case."""
    if precision == "auto":
        return choose(sum(p.numel() for p in model.parameters()), model.device)[0]
    return DTYPES[precision]


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Forward passes inside multiply in `dtype`."""
    return torch.autocast(device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()


def completion_logprobs(
    model: CausalLM, part: MicroBatch, dtype: torch.dtype, temperature: float = 1.0, *, recompute: bool = False
) -> torch.Tensor:
    """[N] float32: log-probabilities of the completion tokens of a micro-batch, with gradient.

    recompute: keep little for backward (the blocks' inputs, no logits) and compute it again.
    """
    with autocast(dtype, model.device):
        hidden_BTD = model(part.tokens_BT, positions_BT=part.positions_BT, cache=part.sequences, recompute=recompute)
    hidden_ND = hidden_BTD[0, part.select_N]
    return token_logprobs(
        hidden_ND, model.head_weight, part.targets_N, temperature=temperature, recompute=recompute, dtype=dtype
    )
