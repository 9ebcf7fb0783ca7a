"""A task of your own: two functions, `problems` and `verify`. This file is the task, and a program that measures a model on it.

    python examples/03_own_task.py          # with smollm2-135m, fetched on first use
    python examples/03_own_task.py --toy    # with a model of a few thousand weights, made on the spot

The command line and recipes take the file as well: `trilaw tasks check examples/03_own_task.py`,
`trilaw eval smollm2-135m --task examples/03_own_task.py`, and in a recipe `task = "examples/03_own_task.py"`.
"""

import sys
from collections.abc import Iterator
from typing import Any

import trilaw

PROMPT = "Put these numbers in ascending order: {}.\nEnd with 'Answer: ' and the numbers, separated by spaces."


def problems(split: str, seed: int, limit: int | None) -> Iterator[dict[str, str]]:
    """Even numbers to train on, odd ones to test on; the walk meets each number once."""
    pool = range(100_000 + (split == "test"), 1_000_000, 2)
    for i in range(limit or 200):
        digits = str(pool[(seed + 7919 * i) % len(pool)])
        yield {"id": digits, "prompt": PROMPT.format(", ".join(digits)), "answer": " ".join(sorted(digits))}


def verify(problem: trilaw.Problem, text: str) -> trilaw.Score:
    """All in order is 1; otherwise a part of one half for each number in its place, and nothing for more or fewer numbers."""
    said, right = (trilaw.marked(text) or "").split(), problem.answer.split()
    if len(said) != len(right):
        return trilaw.Score(0.0, detail="there is no answer of that many numbers")
    share = sum(a == b for a, b in zip(said, right, strict=True)) / len(right)
    return trilaw.Score(1.0 if share == 1 else share / 2, " ".join(said))


def main() -> None:
    task = trilaw.task("custom", python=__file__)
    print("complaints about the verifier:", task.validate() or "none")

    model: trilaw.Model
    if "--toy" in sys.argv:  # bytes are its tokens, so it can be asked anything; it learns from this very file
        size: dict[str, Any] = {"hidden": 16, "layers": 1, "heads": 2, "tokens": 2048}
        model = trilaw.load(trilaw.pretrain(data=__file__, out="runs/toy-bytes", **size).folder)
    else:
        model = trilaw.load("smollm2-135m")
    result = trilaw.evaluate(model, task, limit=24, samples=4, max_tokens=48, temperature=0.7)
    for row in result.evaluations:
        print(f"{row.metric:<12} {row.estimate.value:.3f}  [{row.estimate.low:.3f}, {row.estimate.high:.3f}]")


if __name__ == "__main__":
    main()
