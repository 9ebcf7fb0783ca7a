"""Supervised fine-tuning on worked solutions: cross-entropy on the completion only, mean over the tokens of the global batch.

The prompt is the conversation through the chat template, the completion the example's text and the first end token: what the engine
will see and must produce. Each epoch goes through the examples in a new order, f(seed, epoch); a step's batch is f(seed, step).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

from trilaw.core.config import Config
from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.ledger import Totals
from trilaw.core.protocols import StageContext, StageResult, TeachingTask
from trilaw.core.seeds import derive
from trilaw.model.llama import CausalLM
from trilaw.training.batch import Completion, auto_micro_tokens, draw
from trilaw.training.loop import Loop, Precision, SaveDtype, base_model, compute_dtype, task_of
from trilaw.training.optim import OptimizerConfig, Schedule
from trilaw.training.supervised import learn, token_nats


class SftOptimizer(OptimizerConfig):
    learning_rate: float = Field(default=2e-5, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    schedule: Schedule = "linear"
    final: float = Field(default=0.1, ge=0, le=1)


class SftConfig(Config):
    base: str
    task: str
    split: str = "train"
    examples: int = Field(default=1024, gt=0)  # to learn from
    valid_examples: int = Field(default=64, ge=0)  # held out besides; a tenth of a set that is too small
    epochs: int = Field(default=1, gt=0)  # steps = examples x epochs / batch_examples
    batch_examples: int = Field(default=32, gt=0)
    max_tokens: int = Field(default=1024, gt=0)  # of a completion; longer examples are left out and counted
    optimizer: SftOptimizer = SftOptimizer()
    evaluate_every: int = Field(default=0, ge=0)  # steps; 0: only at the end
    micro_tokens: int | None = Field(default=None, gt=0)  # tokens at a time; by default what fits in about 2 GB
    recompute: bool = False  # keep little of a block for backward, compute it again
    save_every: int = Field(default=20, gt=0)
    log_every: int = Field(default=1, gt=0)
    precision: Precision = "auto"
    save_dtype: SaveDtype = "auto"


def run(config: SftConfig, context: StageContext) -> StageResult:
    """Raises ConfigError for a task without worked solutions, TaskError when no example fits, Stopped when told to stop."""
    task = task_of(config.task, context)
    if not isinstance(task, TeachingTask):
        raise ConfigError(
            f"stage '{context.name}': task '{config.task}' shows no worked solutions: use a task with examples for sft."
        )
    seed = derive(context.seed, context.name, "examples")
    examples = task.examples(config.split, seed=seed, limit=config.examples + config.valid_examples)
    held_out = min(config.valid_examples, max(len(examples) - config.examples, len(examples) // 10))
    kept = len(examples) - held_out
    steps = -(-kept * config.epochs // config.batch_examples)
    loop = Loop(
        context,
        kind="sft",
        steps=steps,
        save_every=config.save_every,
        save_dtype=config.save_dtype,
        log_every=config.log_every,
    )
    model, tokenizer, optimizer = loop.open(lambda: base_model(config.base, context), config.optimizer)

    def encode(part: slice) -> list[Completion]:
        pairs = ((e.messages, e.completion) for e in examples[part])
        rows = [
            Completion(tuple(tokenizer.encode_chat(m)), (*tokenizer.encode(c), *tokenizer.eos_ids[:1]))
            for m, c in pairs
        ]
        return [r for r in rows if len(r.tokens) <= config.max_tokens and r.inputs <= model.arch.max_positions]

    train, valid = encode(slice(0, kept)), encode(slice(kept, None))
    if not train:
        raise TaskError(
            f"stage '{context.name}': no example of task '{config.task}' fits max_tokens = {config.max_tokens}: raise it."
        )
    dtype = compute_dtype(config.precision, model)
    micro_tokens = config.micro_tokens or auto_micro_tokens(model.arch, model.device, config.recompute, dtype)
    held: dict[str, float] = {}
    for step in loop:
        batch = [train[i] for i in draw(len(train), config.batch_examples, step, seed)]
        update = learn(model, optimizer, step, batch, micro_tokens, dtype, config.recompute)
        due = valid and (step == steps or (config.evaluate_every > 0 and step % config.evaluate_every == 0))
        held = {"valid_loss": validate(model, valid, micro_tokens, dtype)} if due else {}
        loop.record(
            step,
            Totals(update.flops, 0.0, sum(one.inputs for one in batch)),
            loss=update.loss,
            grad_norm=update.grad_norm,
            learning_rate=update.learning_rate,
            **held,
        )
    closing = {"examples": len(train), "left_out": len(examples) - len(train) - len(valid), "loss": update.loss, **held}
    return loop.finish(closing, f"{len(train)} examples, loss {update.loss:.3f} nats a token")


def validate(model: CausalLM, batch: Sequence[Completion], micro_tokens: int, dtype: torch.dtype) -> float:
    """Mean nats a completion token."""
    return float(torch.cat(token_nats(model, batch, micro_tokens, dtype)).mean())
