"""How fast the engine samples from a tiny model, where Python and small kernels cost more than arithmetic.

A random Llama with 816 thousand weights (128 wide, 4 layers, 4 heads, vocabulary 40); all requests at once, 8 prompt tokens in groups
of 16 samples, temperature 1, a fixed number of new tokens, prompts included in the time: tokens a second and milliseconds a step.

    python benchmarks/engine_tiny.py [--batch 512] [--new 48] [--rounds 3]
"""

from __future__ import annotations

import argparse

import interleave
from interleave import Peer

SIZES = ("batch", "group", "prompt", "new", "rounds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512, help="requests, all running at once (default: %(default)s)")
    parser.add_argument("--group", type=int, default=16, help="requests with an equal prompt (default: %(default)s)")
    parser.add_argument("--prompt", type=int, default=8, help="prompt tokens (default: %(default)s)")
    parser.add_argument("--new", type=int, default=48, help="new tokens a request (default: %(default)s)")
    interleave.add_options(parser)
    options = parser.parse_args()
    work = {name: getattr(options, name) for name in SIZES}
    interleave.run("engine-tiny", [Peer("trilaw", "tiny_trilaw.py", work)], options, work)


if __name__ == "__main__":
    main()
