"""R1's order on a real open model, stage by stage: a cold start on worked solutions, then reinforcement learning on answers.

    python examples/07_cold_start.py          # smollm2-135m on short arithmetic; an hour or two on a CPU
    python examples/07_cold_start.py --toy    # a model of a few thousand weights, made on the spot; seconds

The same as a recipe, in one file: src/trilaw/pipeline/recipes/smollm2-arithmetic.toml.
"""

import sys
from typing import Any

import trilaw


def main() -> None:
    toy = "--toy" in sys.argv
    task = {"kind": "arithmetic", "train_steps": [2, 3], "test_steps": [2, 2]}
    home = "runs/toy-cold" if toy else "runs/cold"
    start = "smollm2-135m"
    teaching: dict[str, Any] = {"examples": 1024, "batch_examples": 16}
    practice: dict[str, Any] = {"steps": 20, "problems": 8, "samples": 8, "max_tokens": 96}
    exam: dict[str, Any] = {"limit": 64, "samples": 4, "max_tokens": 128}
    if toy:
        tiny: dict[str, Any] = {"hidden": 16, "layers": 1, "heads": 2, "max_positions": 512, "tokens": 2048}
        start = str(trilaw.pretrain(data=__file__, out=f"{home}/start", **tiny).folder)
        teaching = {"examples": 8, "batch_examples": 4}
        practice = {"steps": 1, "problems": 2, "samples": 2, "max_tokens": 16}
        exam = {"limit": 4, "samples": 2, "max_tokens": 16}

    taught = trilaw.sft(base=start, task=task, out=f"{home}/taught", optimizer={"learning_rate": 1e-4}, **teaching)
    zero = trilaw.grpo(
        base=taught.folder, task=task, out=f"{home}/practised", optimizer={"learning_rate": 1e-5}, **practice
    )

    for name in (start, taught.folder, zero.folder):
        result = trilaw.evaluate(name, task, **exam)
        right, length = result["pass@1"], result["mean_tokens"]
        print(f"{name!s:<24} pass@1 {right.value:.3f} [{right.low:.3f}, {right.high:.3f}]  {length.value:.0f} tokens")


if __name__ == "__main__":
    main()
