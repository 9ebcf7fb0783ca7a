"""Run the default recipe: three models pre-trained from nothing, reinforcement learning on the largest, an exam, a report.

    python examples/01_run_recipe.py          # minutes on two CPU cores, in runs/tiny
    python examples/01_run_recipe.py --toy    # seconds, in runs/toy: models too small and too briefly trained to learn anything

Stop it with Ctrl-C and run it again: it goes on where it stopped. The next examples take up the models that it makes.
"""

import sys

import trilaw

TOY = [
    *(f"stages.{stage}.{key}" for stage in ("small", "medium", "base") for key in ("hidden=16", "heads=2", "layers=1")),
    *(f"stages.{stage}.tokens=8192" for stage in ("small", "medium", "base")),
    *("stages.zero.steps=2", "stages.zero.problems=4", "stages.zero.samples=4", "stages.zero.max_tokens=16"),
    *("stages.exam.limit=8", "stages.exam.samples=2", "stages.exam.max_tokens=16"),
]


def main() -> None:
    toy = "--toy" in sys.argv
    summary = trilaw.run("tiny", "runs/toy" if toy else "runs/tiny", overrides=TOY if toy else ())

    for row in summary.evaluations:
        if row.metric == "pass@1":
            e = row.estimate
            print(f"{row.stage:<6} {row.split:<7} {row.metric}  {e.value:.3f}  [{e.low:.3f}, {e.high:.3f}]")
    print(f"model   {summary.model}")
    print(f"report  {summary.report}")


if __name__ == "__main__":
    main()
