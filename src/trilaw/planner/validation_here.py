"""Trilaw's own work on one machine: what benchmarks/plan_here.py measures, planned on the chip that the machine is. No torch.

The work: SmolLM2-135M's forward and backward pass with its memory and its sampling; pre-training, sampling and a GRPO step of the largest model of
the recipe `tiny`. Everything is float32. Nothing here was used to choose an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trilaw.core.numbers import Numbers
from trilaw.planner.models import model
from trilaw.planner.rl import plan_rl
from trilaw.planner.serve import plan_serve
from trilaw.planner.train import TrainPlan, plan_train
from trilaw.planner.validation_row import ValidationRow

if TYPE_CHECKING:
    from trilaw.planner.hardware import Chip

CALIBRATED_ON = "published runs on GPUs, as above; nothing on this machine"
SMALL = "smollm2-135m"
TINY = {
    "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 352, "vocab_size": 40,
    "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip
# rows x tokens of a training step; sequences, prompt tokens and new tokens of sampling; problems, samples and the longest of GRPO
SMALL_TRAIN, TINY_TRAIN = (1, 256), (8, 128)
SMALL_SAMPLE, TINY_SAMPLE = (64, 60, 60), (512, 16, 64)
GRPO = (32, 16, 72)


def planned(here: Chip, *, grpo_prompt: float, grpo_response: float) -> dict[str, float]:
    """What the planner says of each piece of work, by its key, in the unit of the measurement (tokens/s, GB, s).

    `grpo_prompt` and `grpo_response` are the mean tokens of the step that was measured: a policy's lengths are no matter of planning.
    """
    small, tiny = model(SMALL), Numbers.from_config(TINY, name="tiny")
    step = _train(small, here, *SMALL_TRAIN)
    passes = step.step_seconds - step.step_parts["optimizer"]  # forward and backward alone are measured
    memory = step.memory.total - step.memory.moments - step.memory.master
    batch, prompt, new = SMALL_SAMPLE
    sampling = plan_serve(small, here, 1, prompt=prompt, response=new, context=prompt + new / 2, concurrency=batch)
    batch, prompt, new = TINY_SAMPLE
    tiny_sampling = plan_serve(tiny, here, 1, prompt=prompt, response=new, concurrency=batch)
    problems, samples, longest = GRPO
    grpo = plan_rl(
        tiny, here, 1, problems=problems, samples=samples, prompt=round(grpo_prompt), response=round(grpo_response),
        longest=longest, steps=1, score_passes=0,
    )  # fmt: skip
    return {
        "train-135m": SMALL_TRAIN[1] / passes,
        "train-135m-memory": memory / 1e9,
        "sample-135m": sampling.decode_tokens_per_second,
        "train-tiny": _train(tiny, here, *TINY_TRAIN).tokens_per_second,
        "sample-tiny": tiny_sampling.decode_tokens_per_second,
        "grpo-tiny": grpo.cycle_seconds,
    }


def _train(numbers: Numbers, here: Chip, rows: int, context: int) -> TrainPlan:
    return plan_train(numbers, here, 1, tokens=1e6, context=context, batch_tokens=rows * context, precision="fp32")


def rows(data: Mapping[str, Any], here: Chip) -> list[ValidationRow]:
    """Measured (a table as docs/planner_measured.toml is) beside planned."""
    step = data["grpo-tiny"]
    return [
        ValidationRow(
            what=data[key]["what"],
            measured=float(data[key]["measured"]),
            predicted=value,
            unit=data[key]["unit"],
            source=f"measured {data['date']} on {data['machine']}",
            calibrated_on=CALIBRATED_ON,
            why=data[key]["why"],
        )
        for key, value in planned(here, grpo_prompt=step["prompt"], grpo_response=step["response"]).items()
    ]
