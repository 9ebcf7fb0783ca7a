"""A GRPO step side by side: Trilaw, TRL's GRPOTrainer without vLLM, and the matrix products under both.

The work: 8 prompts x 8 samples x 128 new tokens, end tokens ignored, the share of digits as reward, no pull to a reference, learning rate
1e-6, one optimizer step; other questions in every round. Sampling (with rewards) and training (up to weights that can be sampled from) are
told apart. Weights and moments are float32; `--dtype bfloat16` multiplies in bfloat16, for both. TRL trains in micro-batches of 16.

    python benchmarks/grpo_step.py [--dtype bfloat16] [--weights int8] [--questions FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import environments
import interleave
import workload
from interleave import Peer

NAMES = ("trilaw", "trl", "ceiling")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    workload.add_options(parser)
    parser.add_argument("--problems", type=int, default=8, help="prompts a step (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="of each prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=128, help="new tokens a sample (default: %(default)s)")
    parser.add_argument(
        "--weights", choices=("float32", "bfloat16", "int8"), help="what Trilaw samples from (default: as --dtype)"
    )
    parser.add_argument("--peers", default=",".join(NAMES), help="(default: %(default)s)")
    interleave.add_options(parser)
    options = parser.parse_args()
    chosen = interleave.choose(parser, options.peers, NAMES)
    with tempfile.TemporaryDirectory() as folder:
        material = workload.prepare(options, Path(folder))
        asked = [
            workload.questions(options.questions, turn * options.problems, options.problems)
            for turn in range(1 + options.rounds * options.tries)  # the first is the warm-up's
        ]
        weights = options.weights or material.dtype
        job = material.job(
            weights=weights,
            questions=asked,
            prompts=[workload.prompts(material.tokenizer, some) for some in asked],
            problems=options.problems,
            samples=options.samples,
            new=options.new,
            learning_rate=1e-6,
        )
        known = [
            Peer("trilaw", "grpo_trilaw.py", job),
            Peer("trl", "grpo_trl.py", job, environments.TRL),
            *(Peer(f"ceiling-{d}", "grpo_ceiling.py", job | {"dtype": d}) for d in material.ceilings()),
        ]
        work = workload.described(options, material, "problems", "samples", "new") | {"weights": weights}
        name = "grpo" if weights == material.dtype else f"grpo-{weights}"
        interleave.run(name, [p for p in known if p.name.partition("-")[0] in chosen], options, work)


if __name__ == "__main__":
    main()
