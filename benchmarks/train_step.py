"""A training step side by side: Trilaw, transformers with torch's fused AdamW, and the matrix products under both.

The work: 16 x 256 tokens of running text (GSM8K's questions, or arithmetic), forward, backward and one step of AdamW, other text in
every round. Weights and moments are float32; `--dtype bfloat16` multiplies under autocast, for both. The ceiling is the products of
forward and backward of the same shapes.

    python benchmarks/train_step.py [--dtype bfloat16] [--questions FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import environments
import interleave
import workload
from interleave import Peer

NAMES = ("trilaw", "transformers", "ceiling")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    workload.add_options(parser)
    parser.add_argument("--batch", type=int, default=16, help="rows a step (default: %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens a row (default: %(default)s)")
    parser.add_argument("--peers", default=",".join(NAMES), help="(default: %(default)s)")
    interleave.add_options(parser)
    options = parser.parse_args()
    chosen = interleave.choose(parser, options.peers, NAMES)
    with tempfile.TemporaryDirectory() as folder:
        material = workload.prepare(options, Path(folder))
        turns = 1 + options.rounds * options.tries  # the first is the warm-up's
        rows = workload.text_rows(material, options.questions, turns * options.batch, options.length)
        job = material.job(rows=[rows[i * options.batch : (i + 1) * options.batch] for i in range(turns)])
        known = [
            Peer("trilaw", "train_trilaw.py", job),
            Peer("transformers", "train_transformers.py", job, environments.for_transformers()),
            *(Peer(f"ceiling-{d}", "train_ceiling.py", job | {"dtype": d}) for d in material.ceilings()),
        ]
        work = workload.described(options, material, "batch", "length")
        interleave.run("train", [p for p in known if p.name.partition("-")[0] in chosen], options, work)


if __name__ == "__main__":
    main()
