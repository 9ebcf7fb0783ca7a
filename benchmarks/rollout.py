"""Rollouts side by side: Trilaw's engine, transformers' `generate`, vLLM's CPU build, llama.cpp, and the matrix products under them all.

The work: 8 GSM8K test questions by the model's chat template x 16 samples x 128 new tokens, temperature 1, end tokens ignored; other
questions in every round, the same token ids for everybody. `--single` is one greedy stream of one question instead. Time is the
whole call, prompts included. The frame is `interleave.py`: rounds in turn, disturbed ones thrown away and repeated.

`ceiling-float32` (and `ceiling-bfloat16` where such products are native) multiplies matrices of the shapes of one decoding step: a bound
that no sampler in this number format can pass, as attention, sampling and prompts come on top. `bandwidth`, with `--single`, reads all
weights once a token.

    python benchmarks/rollout.py [--single] [--peers trilaw,vllm | --all] [--weights int8] [--questions FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import environments
import interleave
import workload
from interleave import Peer

NAMES = ("trilaw", "transformers", "vllm", "llama.cpp", "ceiling")
DEFAULT = "trilaw,transformers,ceiling"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    workload.add_options(parser)
    parser.add_argument("--problems", type=int, default=8, help="prompts a round (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="of each prompt (default: %(default)s)")
    parser.add_argument("--new", type=int, default=128, help="new tokens a sample (default: %(default)s)")
    parser.add_argument("--single", action="store_true", help="one stream: one prompt a round, one sample, greedy")
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        help="how Trilaw holds its weights (default: as --dtype)",
    )
    parser.add_argument("--peers", default=DEFAULT, help=f"of {', '.join(NAMES)} (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="every peer")
    interleave.add_options(parser)
    options = parser.parse_args()
    chosen = interleave.choose(parser, ",".join(NAMES) if options.all else options.peers, NAMES)
    with tempfile.TemporaryDirectory() as folder:
        material = workload.prepare(options, Path(folder))
        weights = options.weights or material.dtype
        work = workload.described(options, material, "problems", "samples", "new") | {"weights": weights}
        name = "single" if options.single else "rollout"
        if options.single:
            work |= {"problems": 1, "samples": 1}
        suffix = "" if weights == material.dtype else f"-{weights}"
        interleave.run(name + suffix, peers(chosen, options, material, weights), options, work)


def peers(chosen: list[str], options: argparse.Namespace, material: workload.Material, weights: str) -> list[Peer]:
    count = 1 if options.single else options.problems
    prompts = [
        workload.prompts(material.tokenizer, workload.questions(options.questions, turn * options.problems, count))
        for turn in range(1 + options.rounds * options.tries)  # the first is the warm-up's
    ]
    job = material.job(
        prompts=prompts,
        samples=1 if options.single else options.samples,
        new=options.new,
        greedy=options.single,
        weights=weights,
    )
    made: dict[str, Callable[[], list[Peer]]] = {
        "trilaw": lambda: [Peer("trilaw", "rollout_trilaw.py", job)],
        "transformers": lambda: [Peer("transformers", "rollout_transformers.py", job, environments.for_transformers())],
        "vllm": lambda: [Peer("vllm", "rollout_vllm.py", job, environments.VLLM)],
        "llama.cpp": lambda: [Peer("llama.cpp", "rollout_llamacpp.py", job, environments.LLAMA_CPP)],
        "ceiling": lambda: [
            *(Peer(f"ceiling-{d}", "rollout_ceiling.py", job | {"dtype": d}) for d in material.ceilings()),
            *([Peer("bandwidth", "rollout_bandwidth.py", job)] if options.single else []),
        ],
    }
    return [peer for name in chosen for peer in made[name]()]


if __name__ == "__main__":
    main()
