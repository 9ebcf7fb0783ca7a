"""Ask a model, look at what it says and how sure it was, and let the task's verifier judge.

    python examples/02_sample.py          # the models of 01_run_recipe.py
    python examples/02_sample.py --toy    # those of 01_run_recipe.py --toy

Before and after reinforcement learning: the first model blurts, the second one works step by step.
"""

import sys
from math import exp

import trilaw


def main() -> None:
    run = "runs/toy" if "--toy" in sys.argv else "runs/tiny"
    task = trilaw.task("calculator")
    problem = task.problems("test", limit=1)[0]
    print(f"asked: {problem.messages[-1]['content']}   right: {problem.answer}")

    for stage in ("base", "zero"):
        model = trilaw.load(f"{run}#{stage}")
        print(f"\n{stage}: {model.arch.parameters():,} weights")
        for sample in model.sample(problem, n=4, temperature=0.8, max_tokens=60, seed=1):
            likelihood = exp(sum(sample.logprobs))
            verdict = task.verify(problem, sample.text)
            print(f"  {'right' if verdict.value else 'wrong'}  p = {likelihood:.1e}  {sample.text!r}")

    question = task.problems("hard", limit=1)[0].messages[-1]["content"]
    print(f"\n{question}? ", end="")
    for piece in trilaw.solve(model, question, temperature=0, max_tokens=60):  # piece by piece, as it comes
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
