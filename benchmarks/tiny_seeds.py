"""What the default recipe and its control reach over several seeds: the numbers of docs/results.md.

    python benchmarks/tiny_seeds.py --seeds 0 1 2 --jobs 1

Runs `trilaw run tiny` and `trilaw run tiny-random-reward` for each seed (runs that are done are not repeated), then writes
benchmarks/results/<date>-tiny-seeds.json and prints a table. A seed changes corpus, weights, problems and samples of training; the
problems of the exam are the same. Means over seeds come with a t interval, which is wide for three seeds: that is the truth of it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
T_95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}  # by degrees of freedom


def run(recipe: str, seed: int, folder: Path, threads: int) -> dict:
    out = folder / f"{recipe}-{seed}"
    command = [sys.executable, "-m", "trilaw", "run", recipe, "--seed", str(seed), "--out", str(out)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads((out / "report.json").read_text())


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % t interval over seeds."""
    if len(values) < 2:
        return values[0], math.nan
    return statistics.fmean(values), T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def table(reports: dict[tuple[str, int], dict], seeds: list[int]) -> list[str]:
    """One line a (model, split, metric) with the value of each seed, its interval over problems, and the mean over seeds."""
    lines = ["| model | split | metric | " + " | ".join(f"seed {s}" for s in seeds) + " | mean over seeds |"]
    lines.append("|---" * (len(seeds) + 4) + "|")
    for recipe in ("tiny", "tiny-random-reward"):
        keys = [(e["stage"], e["split"], e["metric"]) for e in reports[recipe, seeds[0]]["evaluations"]]
        for stage, split, metric in keys:
            if metric not in ("pass@1", "maj@16", "pass@16", "mean_tokens") or (recipe, stage) == (
                "tiny-random-reward",
                "base",
            ):
                continue
            cells, values = [], []
            for seed in seeds:
                (row,) = [
                    e
                    for e in reports[recipe, seed]["evaluations"]
                    if (e["stage"], e["split"], e["metric"]) == (stage, split, metric)
                ]
                digits = 1 if metric == "mean_tokens" else 3
                values.append(row["value"])
                cells.append(f"{row['value']:.{digits}f} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]")
            mean, half = mean_interval(values)
            lines.append(f"| {stage} | {split} | {metric} | " + " | ".join(cells) + f" | {mean:.3f} ± {half:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, sharing the cores")
    parser.add_argument("--threads", type=int, default=0, help="of each run; 0: the cores divided by the jobs")
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"))
    args = parser.parse_args()
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
    orders = [(recipe, seed) for seed in args.seeds for recipe in ("tiny", "tiny-random-reward")]
    with ThreadPoolExecutor(args.jobs) as pool:
        found = pool.map(lambda order: run(*order, args.folder, threads), orders)
        reports = dict(zip(orders, found, strict=True))
    date = datetime.date.today().isoformat()
    RESULTS.mkdir(exist_ok=True)
    result = {
        "date": date,
        "jobs": args.jobs,
        "threads": threads,
        "machine": reports[orders[0]]["machine"],
        "runs": [
            {
                "recipe": recipe,
                "seed": seed,
                "totals": r["totals"],
                "stages": r["stages"],
                "evaluations": r["evaluations"],
            }
            for (recipe, seed), r in reports.items()
        ],
    }
    (RESULTS / f"{date}-tiny-seeds.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(reports, args.seeds)))
    for (recipe, seed), report in reports.items():
        print(f"{recipe}, seed {seed}: {report['totals']['seconds']:.0f} s of work")


if __name__ == "__main__":
    main()
