"""One stage of reinforcement learning, from a model of another run, with its learning curve.

    python examples/05_train_grpo.py          # from the base model of 01_run_recipe.py
    python examples/05_train_grpo.py --toy    # from that of 01_run_recipe.py --toy

The keywords are the fields of GrpoConfig: see docs/recipes.md. Other than in the recipe, problems start at three key presses and advantages
are leave-one-out. Run it again and it goes on where it stopped, or says what it found.
"""

import json
import sys
from typing import Any

import trilaw


def main() -> None:
    toy = "--toy" in sys.argv
    size: dict[str, Any] = (
        {"steps": 2, "problems": 4, "samples": 4, "max_tokens": 16} if toy else {"steps": 30, "max_tokens": 72}
    )
    summary = trilaw.grpo(
        base="runs/toy#base" if toy else "runs/tiny#base",
        task={"kind": "calculator", "train_steps": [3, 6]},
        out="runs/toy-grpo" if toy else "runs/grpo",
        baseline="leave_one_out",
        optimizer={"learning_rate": 5e-4},
        **size,
    )

    print("step  reward  tokens  entropy  works step by step")
    for line in (summary.folder / "events.jsonl").read_text().splitlines():
        row = json.loads(line)
        worked = 1 - row["task/direct"]
        print(f"{row['step']:>4}  {row['reward']:.3f}  {row['length']:>6.1f}  {row['entropy']:>7.2f}  {worked:>8.1%}")
    print(f"model   {summary.model}")
    print(f"report  {summary.report}")


if __name__ == "__main__":
    main()
