"""GRPO: reinforcement learning from checked answers, strictly on-policy.

Shao et al. 2024 (arXiv:2402.03300), in the form that DeepSeek-R1-Zero made known and later work simplified. A step draws problems, samples
a group of answers for each, scores them, and takes ONE optimizer step on

    loss = - sum over samples, tokens of A log p(token) / tokens of the batch        A = reward - mean reward of the group

Departures: one update a batch, so no importance ratio and no clipping; no division by the group's standard deviation and a mean over tokens
instead of samples (Dr. GRPO, arXiv:2503.20783; DAPO, arXiv:2503.14476); no KL term unless asked for. Groups without spread have A = 0: they
pass neither forward nor backward, yet their tokens stay in the denominator (`denominator = "batch"`), so that the step shrinks as the
task is mastered; "informative" leaves them out of it. With `quantization` samples come from an 8-bit copy of the policy, and each token's
share is weighed by its truncated importance ratio (`losses/importance.py`). `entropy` is the mean of -log p over all sampled tokens: an
unbiased estimate of the policy's entropy a token at the sampling temperature. `tokens` counts sampled tokens; FLOPs are the model's, whatever
is computed twice to save memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from trilaw.core.config import Config
from trilaw.core.errors import TaskError, TrilawError
from trilaw.core.events import EventLog
from trilaw.core.ledger import Totals
from trilaw.core.protocols import StageContext, StageResult, Task
from trilaw.core.seeds import derive, rng
from trilaw.core.types import Group, SamplingParams
from trilaw.engine.engine import Engine
from trilaw.model.llama import CausalLM
from trilaw.training.advantages import Baseline, Scale, advantages, spread
from trilaw.training.batch import Completion, auto_micro_tokens, micro_batches, passes
from trilaw.training.loop import Loop, Precision, SaveDtype, base_model, completion_logprobs, compute_dtype, task_of
from trilaw.training.losses.importance import truncated_importance
from trilaw.training.losses.policy_gradient import policy_gradient
from trilaw.training.optim import Optimizer, OptimizerConfig
from trilaw.training.rollout import PassRateFilter, Problems, roll

GAP_LIMIT = 0.25  # nats a token between sampler and trainer, mean: bfloat16 gives about 0.01, other weights far more
GAP_LIMIT_INT8 = 0.5  # 8 bits give 0.05 to 0.15


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


@dataclass(frozen=True)
class Update:
    """What one optimizer step was; `gap_*` compare the log-probabilities of sampler and trainer, in nats."""

    loss: float
    grad_norm: float
    learning_rate: float
    gap_max: float
    gap_mean: float
    flops: float


def run(config: GrpoConfig, context: StageContext) -> StageResult:
    """Raises TaskError for a task whose verifier is not sound or a filter that leaves nothing, Stopped when told to stop."""
    task = task_of(config.task, context)
    if complaints := task.validate():
        raise TaskError(f"stage '{context.name}': task '{config.task}' is not sound: {complaints[0]}")
    loop = Loop(
        context,
        kind="grpo",
        steps=config.steps,
        save_every=config.save_every,
        save_dtype=config.save_dtype,
        keep_every=config.keep_every,
    )
    model, tokenizer, optimizer = loop.open(lambda: base_model(config.base, context), config.optimizer)
    dtype = compute_dtype(config.precision, model)
    reference = base_model(config.base, context)[0] if config.kl > 0 else None
    # float32: the engine reads the very weights that are trained. Otherwise it holds a copy, refreshed after each step.
    copy = None if dtype == torch.float32 else dtype
    other = config.quantization.kind if config.quantization else None
    engine = Engine(
        model,
        tokenizer,
        max_batch=config.max_batch,
        dtype=None if other else copy,
        quantization=other,
        weights_version=loop.start,
    )
    params = SamplingParams(temperature=config.temperature, max_tokens=config.max_tokens)
    problems = Problems(task, config.split, derive(context.seed, context.name, "problems"))
    if config.filter is not None:
        loop.add(_filter(config.filter, problems, engine, params, loop, context))
    stored = EventLog(context.folder / "rollouts.jsonl")
    stored.truncate(context.name, loop.start)

    for step in loop:
        began = time.perf_counter()
        key = (context.seed, context.name, step)
        groups = roll(
            engine, task, problems.of_step(step, config.problems), samples=config.samples, params=params, key=key
        )
        rewards_PG = rewards(groups, config, key)
        sampled = time.perf_counter()
        update = learn(model, optimizer, step, groups, rewards_PG, config, dtype, reference)
        _check_weights(groups, update, step, config)
        engine.load_weights(model, step)
        trained = time.perf_counter()
        samples = [sample for group in groups for sample in group.samples]
        tokens = sum(len(sample.tokens) for sample in samples)
        loop.record(
            step,
            Totals(update.flops + sum(sample.usage.flops for sample in samples), 0.0, tokens),
            **measure(groups, rewards_PG, task, config),
            loss=update.loss,
            grad_norm=update.grad_norm,
            learning_rate=update.learning_rate,
            logprob_gap_max=update.gap_max,
            logprob_gap_mean=update.gap_mean,
            weights_version=step - 1,
            seconds_sampling=sampled - began,
            seconds_training=trained - sampled,
        )
        if step == 1 or step % config.log_samples_every == 0:
            _store(stored, context.name, step, groups)
        if step == 3:
            _warn_if_silent(context)
    rows = context.events.rows(context.name)
    last = rows[-5:]
    closing = {
        "reward_first": rows[0]["reward"],
        **{
            name: sum(row[name] for row in last) / len(last)
            for name in ("reward", "length", "truncated", "entropy", "zero_variance")
        },
    }
    return loop.finish(
        closing, f"reward {closing['reward_first']:.3f} -> {closing['reward']:.3f} (mean of the last {len(last)} steps)"
    )


def rewards(groups: Sequence[Group], config: GrpoConfig, key: tuple[int | str, ...]) -> Tensor:
    """[P, G] float32: the verdicts, or the coin's."""
    if config.reward == "task":
        return torch.tensor([[score.value for score in group.scores] for group in groups])
    return torch.tensor(
        [
            [float(rng(*key, p, i, "coin").random() < config.random_probability) for i in range(len(group.samples))]
            for p, group in enumerate(groups)
        ]
    )


def learn(
    model: CausalLM,
    optimizer: Optimizer,
    step: int,
    groups: Sequence[Group],
    rewards_PG: Tensor,
    config: GrpoConfig,
    dtype: torch.dtype = torch.float32,
    reference: CausalLM | None = None,
) -> Update:
    """One optimizer step on the groups' samples. With nothing to learn from, the first group is only compared, and nothing moves."""
    informative_P = spread(rewards_PG) if reference is None else torch.ones(len(groups), dtype=torch.bool)
    active = bool(informative_P.any())
    advantages_PG = advantages(rewards_PG, baseline=config.baseline, scale=config.std)
    chosen = torch.nonzero(informative_P).flatten().tolist() if active else [0]
    samples = [sample for p in chosen for sample in groups[p].samples]
    batch = [Completion(sample.prompt_tokens, sample.tokens) for sample in samples]
    advantage_S = advantages_PG[chosen].flatten().to(model.device)
    counted = samples if config.denominator == "informative" else [s for group in groups for s in group.samples]
    total = sum(len(sample.tokens) for sample in counted)
    loss = gap_sum = gap_max = 0.0
    micro_tokens = config.micro_tokens or auto_micro_tokens(model.arch, model.device, config.recompute)
    parts = micro_batches(batch, micro_tokens, model.device)
    for part in parts:
        with torch.set_grad_enabled(active):
            logprobs_N = completion_logprobs(model, part, dtype, config.temperature, recompute=config.recompute)
        reference_N = None
        if reference is not None:
            with torch.no_grad():
                reference_N = completion_logprobs(reference, part, dtype, config.temperature)
        sampled_N = torch.tensor([lp for i in part.order for lp in samples[i].logprobs], device=model.device)
        if active:
            advantage_N = advantage_S[part.owner_N]
            if config.quantization is not None:
                advantage_N = advantage_N * truncated_importance(logprobs_N, sampled_N, config.quantization.cap)
            share = policy_gradient(logprobs_N, advantage_N, total, reference_N=reference_N, kl=config.kl)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        gap_N = (logprobs_N.detach() - sampled_N).abs()
        gap_sum, gap_max = gap_sum + float(gap_N.sum()), max(gap_max, float(gap_N.max()))
    norm, rate = optimizer.step(step)
    tokens, pairs, learned = passes(parts)
    forward = model.arch.forward_flops(tokens, pairs, learned)
    flops = forward * ((3 if active else 1) + (0 if reference is None else 1))
    return Update(loss, norm, rate, gap_max, gap_sum / learned, flops)


def measure(groups: Sequence[Group], rewards_PG: Tensor, task: Task, config: GrpoConfig) -> dict[str, float]:
    """What the batch of rollouts was like; `task/...` are means of the traits that the task sees in a text."""
    samples = [sample for group in groups for sample in group.samples]
    scores = [score for group in groups for score in group.scores]
    tokens = sum(len(sample.tokens) for sample in samples)
    values = {
        "reward": float(rewards_PG.mean()),
        "reward_std": float(rewards_PG.std(correction=0)),
        "length": tokens / len(samples),
        "truncated": sum(sample.stop == "length" for sample in samples) / len(samples),
        "entropy": -sum(sum(sample.logprobs) for sample in samples) / tokens,
        "zero_variance": 1.0 - float(spread(rewards_PG).float().mean()),
        "verifier_errors": sum(score.error is not None for score in scores) / len(scores),
    }
    if config.reward == "random":
        values["task_reward"] = sum(score.value for score in scores) / len(scores)
    traits = getattr(task, "traits", None)
    seen = [traits(sample.text) for sample in samples] if traits else []
    return values | {f"task/{name}": sum(one[name] for one in seen) / len(seen) for name in (seen[0] if seen else {})}


def _filter(
    rule: PassRateFilter, problems: Problems, engine: Engine, params: SamplingParams, loop: Loop, context: StageContext
) -> Totals:
    file = context.folder / "pass_rates.json"
    if loop.start and not file.exists():
        raise TrilawError(
            f"{file} is missing, so the problems that the stage trained on are unknown: remove its checkpoints to start it anew."
        )
    key = (context.seed, context.name, "filter")
    return problems.filter(
        rule,
        file,
        lambda pool: roll(engine, problems.task, pool, samples=rule.samples, params=params, key=key),
        fresh=not loop.start,
    )


def _check_weights(groups: Sequence[Group], update: Update, step: int, config: GrpoConfig) -> None:
    """The samples must come from the weights that were just trained on."""
    versions = {sample.weights_version for group in groups for sample in group.samples}
    if versions != {step - 1} or update.gap_mean > (GAP_LIMIT_INT8 if config.quantization else GAP_LIMIT):
        exact = "leave quantization out" if config.quantization else 'use precision = "float32"'
        raise TrilawError(
            f"Step {step}: the samples do not come from the weights in training (versions {sorted(versions)}, expected {step - 1}; "
            f"log-probabilities differ by {update.gap_mean:.3f} nats a token on average): {exact}, or report it."
        )


def _store(file: EventLog, stage: str, step: int, groups: Sequence[Group]) -> None:
    """One sample each of the first four groups."""
    for group in groups[:4]:
        prompt = "\n".join(message["content"] for message in group.problem.messages)
        file.append(
            stage,
            step,
            problem_id=group.problem.id,
            prompt=prompt,
            text=group.samples[0].text,
            reward=group.scores[0].value,
        )


def _warn_if_silent(context: StageContext) -> None:
    """The first steps had nothing to learn from: say why, and go on."""
    rows = [row for row in context.events.rows(context.name) if row["step"] <= 3]
    if any(row["zero_variance"] < 1 for row in rows):
        return
    reward = sum(row["reward"] for row in rows) / len(rows)
    truncated = sum(row["truncated"] for row in rows) / len(rows)
    if reward == 0 and truncated > 0.5:
        why = f"every sample got reward 0 and {truncated:.0%} were cut at max_tokens: raise max_tokens, or train the base to end its answers"
    elif reward == 0:
        why = "every sample got reward 0: use an easier split or a stronger base (sft first)"
    elif reward == 1:
        why = "every sample got reward 1: use a harder split"
    else:
        why = "all samples of a problem always got the same reward: raise samples, or set filter to keep problems of middle difficulty"
    print(f"Warning: stage '{context.name}' learns nothing so far, {why}.", file=sys.stderr)
