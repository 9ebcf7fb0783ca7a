"""Rollouts side by side: Trilaw's engine and transformers' `generate` on one model, and the matrix products that both rest on.

The work: 8 GSM8K test questions by the model's chat template x 16 samples x 128 new tokens, temperature 1, end tokens ignored, float32
for both. Each peer is a process of its own that loads, warms up on one question and then waits; rounds go in turn (Trilaw,
transformers, products, Trilaw, ...), each with questions of its own, the same for both. Time is the whole call, prompts included.
A round counts only if other processes took less than `--disturbed` of the cores meanwhile (/proc/stat less the peer's own time).

"ceiling" is the rate at which the same process multiplies matrices of the shapes of one decoding step, in tokens a second: a bound that
no sampler in this number format can pass, as attention, sampling and prompts come on top.

    python benchmarks/rollout.py [--model smollm2-135m] [--rounds 3] [--problems 8] [--samples 16] [--new 128] [--questions FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PEERS = ("trilaw", "transformers", "ceiling")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--disturbed", type=float, default=0.04, help="share of the cores that others may take in a round"
    )
    parser.add_argument(
        "--questions", type=Path, help="GSM8K's test.jsonl; without it the questions are arithmetic of like length"
    )
    parser.add_argument(
        "--out", type=Path, help="the JSON file to write; by default benchmarks/results/<date>-rollout.json"
    )
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        serve(options)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    peers = {name: start(name) for name in PEERS}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS}
    try:
        for turn in range(options.rounds):
            for name, process in peers.items():
                result = ask(process, turn)
                rounds[name].append(result)
                print(
                    f"round {turn + 1} {name:13} {result['rate']:8.1f} tokens/s, others {result['others']:.1%}",
                    flush=True,
                )
    finally:
        for process in peers.values():
            process.kill()
            process.wait()
    report: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": options.threads,
            "python": platform.python_version(),
        },
        "work": {key: getattr(options, key) for key in ("model", "problems", "samples", "new", "rounds")},
        "questions": options.questions.name if options.questions else "arithmetic",
        "rounds": rounds,
    }
    medians: dict[str, float] = {}
    for name in PEERS:
        quiet = [r["rate"] for r in rounds[name] if r["others"] < options.disturbed]
        report[name] = {"n": len(quiet), "thrown_away": options.rounds - len(quiet)}
        if quiet:
            medians[name] = statistics.median(quiet)
            report[name] |= {"median": medians[name], "low": min(quiet), "high": max(quiet)}
    if {"trilaw", "transformers"} <= medians.keys():
        report["trilaw_over_transformers"] = medians["trilaw"] / medians["transformers"]
    if {"trilaw", "ceiling"} <= medians.keys():
        report["trilaw_over_ceiling"] = medians["trilaw"] / medians["ceiling"]
    out = options.out or RESULTS / f"{report['date']}-rollout.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=2))
    if len(medians) < len(PEERS):
        sys.exit("Some peer has no quiet round: end other work on this machine and run again, or raise --disturbed.")


def start(name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--peer", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer(process)  # it has loaded and warmed up
    return process


def ask(process: subprocess.Popen[str], turn: int) -> dict[str, float]:
    assert process.stdin is not None
    before, clock = busy_seconds(), time.perf_counter()
    process.stdin.write(f"{turn}\n")
    process.stdin.flush()
    result = answer(process)
    wall = time.perf_counter() - clock
    others = max(0.0, busy_seconds() - before - result.pop("cpu")) / (wall * (os.cpu_count() or 1))
    return {**result, "others": others}


def answer(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            result: dict[str, float] = json.loads(line)
            return result
    raise SystemExit("A peer ended before it answered; its error stands above.")


def busy_seconds() -> float:
    """Processor time that all processes of this machine have used (user, nice, system, interrupts), in seconds."""
    numbers = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, numbers[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def serve(options: argparse.Namespace) -> None:
    """One peer: answer each line on standard input, the number of a round, with its seconds and rate."""
    import torch

    torch.set_num_threads(options.threads)
    roll = {"trilaw": trilaw_peer, "transformers": transformers_peer, "ceiling": ceiling_peer}[options.peer](options)
    roll(questions(options, -1)[:1], 4)
    print("{}", flush=True)
    for line in sys.stdin:
        asked = questions(options, int(line))
        cpu, clock = time.process_time(), time.perf_counter()
        tokens = roll(asked, options.new)
        seconds = time.perf_counter() - clock
        print(json.dumps({"seconds": seconds, "rate": tokens / seconds, "cpu": time.process_time() - cpu}), flush=True)


def questions(options: argparse.Namespace, turn: int) -> list[str]:
    first, count = (turn + 1) * options.problems, options.problems
    if options.questions:
        lines = options.questions.read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["question"] for line in lines[first : first + count]]
    sum_of = "Anna buys {} pens at {} cents each, and {} books at {} dollars each. She pays with a note of {} dollars. "
    return [
        sum_of.format(3 + i, 20 + i, 2 + i % 5, 5 + i % 7, 50 + i) * (1 + i % 2) + "How much money does she get back?"
        for i in range(first, first + count)
    ]


def trilaw_peer(options: argparse.Namespace) -> Callable[[list[str], int], int]:
    import torch

    from trilaw.core.protocols import collect
    from trilaw.core.seeds import derive
    from trilaw.core.types import Message, Request, SamplingParams
    from trilaw.engine import Engine
    from trilaw.model.loading import load

    loaded = load(options.model, dtype=torch.float32)
    engine = Engine(loaded.model, loaded.tokenizer)

    def roll(asked: list[str], new: int) -> int:
        params = SamplingParams(max_tokens=new, ignore_eos=True)
        requests = [
            Request(f"{p}/{i}", (Message(role="user", content=question),), params, derive(p, i))
            for p, question in enumerate(asked)
            for i in range(options.samples)
        ]
        return sum(len(sample.tokens) for sample in collect(engine, requests))

    return roll


def transformers_peer(options: argparse.Namespace) -> Callable[[list[str], int], int]:
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    from trilaw.model import hf
    from trilaw.model.loading import load

    loaded = load(options.model, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        hf.save_folder(loaded.model, folder, tokenizer=loaded.tokenizer)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def roll(asked: list[str], new: int) -> int:
        prompts = [loaded.tokenizer.encode_chat([{"role": "user", "content": question}]) for question in asked]
        T = max(map(len, prompts))
        tokens_PT = torch.tensor([[loaded.tokenizer.pad_id] * (T - len(p)) + p for p in prompts])
        mask_PT = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts])
        with torch.inference_mode():
            out = model.generate(
                tokens_PT,
                attention_mask=mask_PT,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=options.samples,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=loaded.tokenizer.pad_id,
            )
        return int(out[:, T:].numel())

    return roll


def ceiling_peer(options: argparse.Namespace) -> Callable[[list[str], int], int]:
    import torch
    import torch.nn.functional as F

    from trilaw.model.layers import Linear
    from trilaw.model.loading import load

    model = load(options.model, dtype=torch.float32).model
    weights = [m.weight for m in model.modules() if isinstance(m, Linear)]
    weights = weights if weights[-1] is model.head_weight else [*weights, model.head_weight]
    rows = options.problems * options.samples
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in weights}

    def roll(asked: list[str], new: int) -> int:
        steps = max(1, new // 8)
        with torch.inference_mode():
            for _ in range(steps):
                for weight in weights:
                    F.linear(inputs[weight.shape[1]], weight)
        return steps * rows

    return roll


if __name__ == "__main__":
    main()
