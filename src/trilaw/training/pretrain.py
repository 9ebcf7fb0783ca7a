"""Pre-training from nothing: next-token prediction over packed whole documents, one pass over a fixed budget of tokens.

Every token is predicted except the first of a document, prompts too. The setting is the one that a tiny calculator model learns with:
Muon, short warm-up, flat, then linear decay (a model is to be compared at its annealed end). Validation is on held-out documents, over all
tokens and over those of responses. FLOPs and tokens count documents and not validation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator

from trilaw.core.arch import Arch
from trilaw.core.config import Config
from trilaw.core.errors import TaskError
from trilaw.core.ledger import Totals
from trilaw.core.protocols import StageContext, StageResult
from trilaw.core.seeds import derive
from trilaw.model.llama import CausalLM
from trilaw.model.precision import default_device
from trilaw.model.registry import build
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training.batch import Completion, auto_micro_tokens
from trilaw.training.corpus import Corpus, open_corpus
from trilaw.training.loop import Loop, Precision, SaveDtype, compute_dtype
from trilaw.training.optim import Kind, OptimizerConfig, Schedule
from trilaw.training.packing import Document, pack
from trilaw.training.supervised import learn, token_nats


class PretrainOptimizer(OptimizerConfig):
    kind: Kind = "muon"
    learning_rate: float = Field(default=6e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    warmup_steps: int = Field(default=40, ge=0)
    schedule: Schedule = "linear"
    decay_from: float = Field(default=0.3, ge=0, lt=1)
    final: float = Field(default=0.05, ge=0, le=1)


class PretrainConfig(Config):
    """Text comes from `task` (words of its alphabet are the tokens) or from `data`, a text file (bytes are the tokens)."""

    task: str | None = None
    data: str | None = None
    hidden: int = Field(default=128, gt=0)
    layers: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)
    kv_heads: int | None = Field(default=None, gt=0)  # as many as heads
    intermediate: int | None = Field(default=None, gt=0)  # 8/3 hidden, rounded up to a multiple of 16
    rope_theta: float = Field(default=1000.0, gt=0)
    max_positions: int = Field(default=256, gt=1)
    tied: bool = False
    tokens: int = Field(
        default=1_100_000, gt=0
    )  # budget in row places: steps x rows_per_step x row_tokens, rounded down
    row_tokens: int = Field(default=128, gt=1)
    rows_per_step: int = Field(default=8, gt=0)
    optimizer: PretrainOptimizer = PretrainOptimizer()
    valid_documents: int = Field(default=512, gt=0)
    evaluate_every: int = Field(default=0, ge=0)  # steps; 0: only at the end
    micro_tokens: int | None = Field(default=None, gt=0)  # tokens at a time; by default what fits in about 2 GB
    recompute: bool = False  # keep little of a block for backward, compute it again
    save_every: int = Field(default=200, gt=0)
    log_every: int = Field(default=10, gt=0)
    precision: Precision = "auto"
    save_dtype: SaveDtype = "auto"

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.task is None) == (self.data is None):
            raise ValueError("give either task or data")
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError("hidden must be an even multiple of heads")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError("heads must be a multiple of kv_heads")
        if self.row_tokens > self.max_positions:
            raise ValueError("row_tokens may not exceed max_positions")
        if not self.steps:
            raise ValueError("tokens must fill at least one step of rows_per_step x row_tokens")
        return self

    @property
    def steps(self) -> int:
        return self.tokens // (self.rows_per_step * self.row_tokens)

    def arch(self, tokenizer: HFTokenizer) -> Arch:
        return Arch(
            vocab_size=tokenizer.vocab_size,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or -(-8 * self.hidden // 48) * 16,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.hidden // self.heads,
            max_positions=self.max_positions,
            rope_theta=self.rope_theta,
            tied=self.tied,
            bos_id=tokenizer.bos_id,
            eos_ids=tokenizer.eos_ids,
        )


def run(config: PretrainConfig, context: StageContext) -> StageResult:
    """Raises ConfigError for a task that writes no documents, Stopped when told to stop."""
    corpus = open_corpus(config.task, config.data, config.valid_documents, context)

    def fresh() -> tuple[CausalLM, HFTokenizer]:
        model = build(config.arch(corpus.tokenizer), seed=derive(context.seed, context.name, "weights"))
        return model.to(default_device()), corpus.tokenizer

    loop = Loop(
        context,
        kind="pretrain",
        steps=config.steps,
        save_every=config.save_every,
        save_dtype=config.save_dtype,
        log_every=config.log_every,
    )
    model, _, optimizer = loop.open(fresh, config.optimizer)
    dtype = compute_dtype(config.precision, model)
    micro_tokens = config.micro_tokens or auto_micro_tokens(model.arch, model.device, config.recompute, dtype)
    rows = itertools.islice(pack(corpus.train(), config.row_tokens), loop.start * config.rows_per_step, None)
    held_out = list(corpus.valid(config.valid_documents))
    valid: dict[str, float] = {}
    for step in loop:
        documents = [document for row in itertools.islice(rows, config.rows_per_step) for document in row]
        batch = completions(documents)
        if not batch:
            raise TaskError(
                f"The documents of task '{config.task}' ran out at step {step}: lower tokens, or let it write more."
            )
        update = learn(model, optimizer, step, batch, micro_tokens, dtype, config.recompute)
        due = step == config.steps or (config.evaluate_every > 0 and step % config.evaluate_every == 0)
        valid = validate(model, held_out, config.row_tokens, micro_tokens, dtype) if due else {}
        loop.record(
            step,
            Totals(update.flops, 0.0, sum(len(document.tokens) for document in documents)),
            loss=update.loss,
            grad_norm=update.grad_norm,
            learning_rate=update.learning_rate,
            **valid,
        )
    closing = {"parameters": model.arch.parameters(), **valid, **_floor(corpus, config)}
    return loop.finish(closing, f"validation loss {valid['valid_loss']:.3f} nats a token")


def _floor(corpus: Corpus, config: PretrainConfig) -> dict[str, float]:
    """`valid_entropy`: nats a token of the validation documents under the program that wrote them; no model does better but by chance."""
    nats = corpus.valid_nats(config.valid_documents)
    if nats is None:
        return {}
    tokens = sum(len(document.tokens) - 1 for document in corpus.valid(config.valid_documents))  # all but the first
    return {"valid_entropy": nats / tokens}


def completions(documents: Iterable[Document]) -> list[Completion]:
    """Documents as the loss takes them: all tokens are learned from but the first."""
    return [Completion(one.tokens[:1], one.tokens[1:]) for one in documents if len(one.tokens) > 1]


def validate(
    model: CausalLM, held_out: Sequence[Document], row_tokens: int, micro_tokens: int, dtype: torch.dtype
) -> dict[str, float]:
    """Mean loss on held-out documents in nats: `valid_loss` over all tokens, `valid_worked_loss` over those of responses, if any."""
    documents = [one for row in pack(held_out, row_tokens) for one in row if len(one.tokens) > 1]
    nats = token_nats(model, completions(documents), micro_tokens, dtype)
    worked_N = torch.cat([of_one[max(one.response - 1, 0) :] for one, of_one in zip(documents, nats, strict=True)])
    return {"valid_loss": float(torch.cat(nats).mean())} | (
        {"valid_worked_loss": float(worked_N.mean())} if len(worked_N) else {}
    )
