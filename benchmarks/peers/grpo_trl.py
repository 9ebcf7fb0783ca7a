"""TRL's GRPOTrainer on a GRPO step, without vLLM. The trainer drives itself: it waits for a round where a step begins.

Its first step is the warm-up. In bfloat16 it trains float32 weights under autocast, as Trilaw does.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from protocol import Parent
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def digits(completions: list[list[dict[str, str]]], **rest: Any) -> list[float]:
    """The share of digits in each completion."""
    texts = [messages[0]["content"] for messages in completions]
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts]


class Trainer(GRPOTrainer):
    """Tells how long its newest rollouts took, scores included, and how many tokens they have."""

    sampling_seconds, tokens = 0.0, 0

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        clock = time.perf_counter()
        made = super()._generate_and_score_completions(inputs)
        self.sampling_seconds += time.perf_counter() - clock
        self.tokens += int(made["completion_mask"].sum())
        return made


class Turns(TrainerCallback):
    """Lets each step after the first wait until it is asked for."""

    def __init__(self, parent: Parent) -> None:
        self.parent, self.rounds = parent, parent.rounds()
        self.trainer: Trainer | None = None
        self.began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        assert self.trainer is not None
        if state.global_step == 1:
            self.parent.ready("trl", "transformers", "accelerate", "torch")
        if state.global_step >= 1 and next(self.rounds, None) is None:
            os._exit(0)  # the benchmark has ended
        self.trainer.sampling_seconds, self.trainer.tokens = 0.0, 0
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        assert self.trainer is not None
        seconds, sampling, tokens = time.perf_counter() - self.began, self.trainer.sampling_seconds, self.trainer.tokens
        ordered = self.parent.job["problems"] * self.parent.job["samples"] * self.parent.job["new"]
        if tokens != ordered:
            raise RuntimeError(f"{tokens} tokens were made, {ordered} were ordered.")
        if state.global_step > 1:  # it counts the step that ends here
            self.parent.say(
                {
                    "rate": tokens / seconds,
                    "sampling_rate": tokens / sampling,
                    "training_rate": tokens / (seconds - sampling),
                    "seconds": seconds,
                    "sampling_seconds": sampling,
                    "training_seconds": seconds - sampling,
                }
            )


def main() -> None:
    parent = Parent()
    job = parent.job
    torch.set_num_threads(job["threads"])
    completions = job["problems"] * job["samples"]
    micro = math.gcd(16, completions)  # the step's completions in equal parts
    questions = [text for asked in job["questions"] for text in asked]
    turns = Turns(parent)
    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(
            output_dir=str(Path(scratch)),
            use_cpu=job["device"] == "cpu",
            model_init_kwargs={"dtype": "float32"},
            bf16=job["dtype"] == "bfloat16",
            learning_rate=job["learning_rate"],
            lr_scheduler_type="constant",
            beta=0.0,
            temperature=1.0,
            num_generations=job["samples"],
            max_completion_length=job["new"],
            generation_kwargs={"min_new_tokens": job["new"]},  # so no sample ends early
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=completions // micro,
            steps_per_generation=completions // micro,
            gradient_checkpointing=False,
            max_steps=len(job["questions"]),
            shuffle_dataset=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        turns.trainer = Trainer(
            model=job["model"],
            reward_funcs=digits,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in questions]),
            processing_class=AutoTokenizer.from_pretrained(job["model"], padding_side="left"),
            callbacks=[turns],
        )
        turns.trainer.train()


if __name__ == "__main__":
    main()
