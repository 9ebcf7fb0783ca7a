"""Measure two models on the same problems: what reinforcement learning gained, and what more samples at test time would add.

    python examples/04_evaluate.py          # the models of 01_run_recipe.py
    python examples/04_evaluate.py --toy    # those of 01_run_recipe.py --toy

pass@k needs someone who can tell the right sample from the others; maj@k, a vote, does not. All samples are kept: run it again and
nothing is drawn anew.
"""

import sys

import trilaw


def main() -> None:
    toy = "--toy" in sys.argv
    run = "runs/toy" if toy else "runs/tiny"
    results = {
        stage: trilaw.evaluate(
            f"{run}#{stage}",
            "calculator",
            split="hard",
            limit=8 if toy else 128,
            samples=16,
            max_tokens=16 if toy else 140,
            store=f"{run}/example/{stage}.jsonl",
        )
        for stage in ("base", "zero")
    }
    base, zero = results["base"], results["zero"]

    print("metric       base   zero   gain, with its 95% interval")
    for metric in ("pass@1", "maj@4", "maj@16", "pass@4", "pass@16"):
        gain = trilaw.compare(zero, base, metric)
        verdict = "gain" if gain.low > 0 else "loss" if gain.high < 0 else "no clear difference"
        values = f"{base[metric].value:.3f}  {zero[metric].value:.3f}"
        print(f"{metric:<10}  {values}  {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]  {verdict}")
    for stage, result in results.items():
        print(f"{stage}: {result.tokens:,} tokens, {result.flops:.1e} FLOPs, samples in {result.path}")


if __name__ == "__main__":
    main()
