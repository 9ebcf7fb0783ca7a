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

import torch
from torch import Tensor

from trilaw.core.errors import TaskError, TrilawError
from trilaw.core.events import EventLog
from trilaw.core.ledger import Totals
from trilaw.core.protocols import StageContext, StageResult, Task
from trilaw.core.seeds import derive, rng
from trilaw.core.types import Group, SamplingParams
from trilaw.engine.engine import Engine
from trilaw.training.advantages import spread
from trilaw.training.grpo_config import GrpoConfig
from trilaw.training.grpo_update import Update, learn
from trilaw.training.loop import Loop, base_model, compute_dtype, task_of
from trilaw.training.rollout import PassRateFilter, Problems, roll

GAP_LIMIT = 0.25  # nats a token between sampler and trainer, mean: bfloat16 gives about 0.01, other weights far more
GAP_LIMIT_INT8 = 0.5  # 8 bits give 0.05 to 0.15


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
