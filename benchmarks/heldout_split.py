"""Is the advice of `trilaw allocate` worth taking? Spend the advised split and its rivals, and compare: a table of docs/results.md.

    python benchmarks/heldout_split.py --seeds 0 1 2 --budget 8e12 --queries 1e4

For each seed: the default recipe is run and its laws are fitted (a finished run is taken as it is); `allocate` says how to split the budget for so
many questions answered by vote, and what each rival would reach. Then every split is bought: RL from that run's base, with a seed of its own
and as many steps as the FLOPs pay for, and as many samples a question. A longer base without RL is bought too, though no law may judge it. All
are asked the same fresh problems, which no training and no law has seen. Accuracy is the vote's (`maj@k`, exact over the samples drawn).
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import trilaw
from trilaw.core.types import Problem
from trilaw.laws.costs import Split

RESULTS = Path(__file__).parent / "results"
T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # by degrees of freedom
FRESH = 20_261_124  # seed of the held-out problems; laws and exams have those of seed 0


class Fresh:
    """The calculator with other held-out problems than those that the laws were fitted on."""

    def __init__(self, known: Sequence[Problem]) -> None:
        self.task = trilaw.task("calculator")
        self.name, self.splits, self.description = "calculator", self.task.splits, self.task.description
        self.verify, self.validate = self.task.verify, self.task.validate
        self.known = {problem.id for problem in known}

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> list[Problem]:
        found = self.task.problems(split, seed=FRESH, limit=2 * (limit or 256))
        return [problem for problem in found if problem.id not in self.known][:limit]


def check(seed: int, args: argparse.Namespace) -> list[dict]:
    """The splits of one seed, bought and measured."""
    run = args.folder / f"tiny-{seed}"
    trilaw.run("tiny", run, overrides=[f"seed={seed}"])
    plan = trilaw.allocate(run, args.budget, queries=args.queries, how="vote")
    known = trilaw.task("calculator").problems("test", limit=256)
    spent = [row["flops"] for row in map(json.loads, (run / "events.jsonl").open()) if row["stage"] == "zero"]
    start = plan.start
    arms = [("advised", plan.best, plan.accuracy, None)]
    arms += [(r.name, r.split, r.accuracy, r.behind) for r in plan.rivals]
    quo = next(rival for rival in plan.rivals if rival.name == "status quo")
    tokens = start.tokens + (args.budget - quo.cost) / (6 * start.parameters)  # one sample a question, like the start
    arms.append(("all into a longer base", Split(start.parameters, tokens, 0.0, 1.0), None, None))
    rows = []
    for name, split, predicted, behind in arms:
        model, flops = buy(name, split, start, run, seed, spent, args)
        samples = max(1, int(split.samples))
        result = trilaw.evaluate(
            model, Fresh(known), split="test", limit=args.problems, samples=samples, max_tokens=140, seed=seed
        )
        metric = "pass@1" if samples == 1 else f"maj@{samples}"
        rows.append(
            {
                "seed": seed,
                "arm": name,
                "split": {key: float(value) for key, value in asdict(split).items()},
                "samples": samples,
                "rl_flops": flops,
                "serving_tokens": result.tokens / args.problems,
                "accuracy": asdict(result[metric]),
                "values": list(map(float, result.values[metric])),
                "predicted": None if predicted is None else asdict(predicted),
                "predicted_advantage": None if behind is None else asdict(behind),
                "decided": plan.decided,
            }
        )
        print(f"seed {seed} {name}: {result[metric].value:.3f}", flush=True)
    return rows


def buy(
    name: str, split: Split, start: Split, run: Path, seed: int, spent: Sequence[float], args: argparse.Namespace
) -> tuple[str, float]:
    """Train what a split asks for. Returns the model's name and the FLOPs of RL that were spent.

    spent: FLOPs of the run's own RL after each of its steps, which says how many steps some FLOPs pay for.
    """
    out = args.folder / f"{name.replace(' ', '-')}-{seed}"
    if split.tokens > 1.01 * start.tokens or split.parameters != start.parameters:
        trilaw.pretrain(task="calculator", out=out, seed=seed, tokens=int(split.tokens))
        return str(out), 0.0
    steps = min(range(len(spent) + 1), key=lambda n: abs((spent[n - 1] if n else 0.0) - split.rl_flops))
    if not steps:
        return f"{run}#base", 0.0
    out = args.folder / f"{name.replace(' ', '-')}-{steps}-steps-{seed}"
    trilaw.grpo(
        base=f"{run}#base",
        task="calculator",
        out=out,
        seed=seed + 1000,
        steps=steps,
        problems=32,
        samples=16,
        max_tokens=72,
        optimizer={"learning_rate": 5e-4},
    )
    done = json.loads((out / "report.json").read_text())
    return str(out), float(sum(stage["flops"] for stage in done["stages"]))


def over_seeds(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    half = T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.3f} ± {half:.3f}"


def table(rows: Sequence[dict], seeds: Sequence[int]) -> list[str]:
    """A line a split: accuracy by seed, what the law had said, and what the advised one has over it."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    lines = [
        "| split | "
        + " | ".join(f"seed {s}: FLOPs of RL, samples; accuracy (predicted)" for s in seeds)
        + " | advised minus this |"
    ]
    lines.append("|---" * (len(seeds) + 2) + "|")
    found = {(row["arm"], row["seed"]): row for row in rows}
    for arm in arms:
        cells, gains = [], []
        for seed in seeds:
            row = found[arm, seed]
            told = row["predicted"]
            said = f" ({told['value']:.3f} [{told['low']:.3f}, {told['high']:.3f}])" if told else ""
            cells.append(f"{row['rl_flops']:.2g}, {row['samples']}; **{row['accuracy']['value']:.3f}**{said}")
            gains.append(found["advised", seed]["accuracy"]["value"] - row["accuracy"]["value"])
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {over_seeds(gains)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=8e12)
    parser.add_argument("--queries", type=float, default=1e4)
    parser.add_argument("--problems", type=int, default=1024, help="fresh problems that every split is asked")
    parser.add_argument("--folder", type=Path, default=Path("runs/heldout"))
    args = parser.parse_args()
    rows = [row for seed in args.seeds for row in check(seed, args)]
    date = datetime.date.today().isoformat()
    RESULTS.mkdir(exist_ok=True)
    kept = [{key: value for key, value in row.items() if key != "values"} for row in rows]
    settings = {"budget": args.budget, "queries": args.queries, "problems": args.problems, "seeds": args.seeds}
    (RESULTS / f"{date}-heldout-split.json").write_text(
        json.dumps({"date": date, **settings, "rows": kept}, indent=1) + "\n"
    )
    print("\n".join(table(rows, args.seeds)))


if __name__ == "__main__":
    main()
