"""The planner against this machine: Trilaw's own training, sampling and GRPO step, measured and planned.

    python benchmarks/plan_here.py [--hardware CHIP] [--threads N] [--tokens N] [--steps N] [--repeats N] [--json] [--write]

Models have random weights (times do not depend on them); but GRPO, whose lengths do, goes on from a short pre-training. Each piece of work runs in a
process of its own, so that memory is its own; times are the best of `--repeats` after a warm-up, of training stages the median of their steps.
Without `--hardware` the machine is measured as a chip first (`trilaw plan calibrate`). `--write` puts the measurements into
docs/planner_measured.toml, from where scripts/docs_planner.py takes them; it needs a chip of the table. Leave the machine idle meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilaw.planner.validation_here import GRPO, SMALL, SMALL_SAMPLE, SMALL_TRAIN, TINY, TINY_SAMPLE, planned

if TYPE_CHECKING:
    from trilaw.engine import Engine
    from trilaw.model.llama import CausalLM

MEASURED = Path(__file__).parent.parent / "docs" / "planner_measured.toml"
KEYS = ("train-135m", "train-135m-memory", "sample-135m", "train-tiny", "sample-tiny", "grpo-tiny")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--hardware", help="a chip's name or .toml file; by default this machine, measured for 10 seconds"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=400_000, help="of the pre-training that GRPO goes on from")
    parser.add_argument("--steps", type=int, default=7, help="of GRPO")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"put the measurements into {MEASURED.name}")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        import torch

        torch.set_num_threads(options.threads)
        print(json.dumps(PARTS[options.part](options)))
        return
    if options.write and (not options.hardware or options.hardware.endswith(".toml")):
        parser.error("--write needs --hardware with a name of `trilaw plan hardware`")
    found: dict[str, float] = {}
    for part in PARTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    report(options, found)


def report(options: argparse.Namespace, found: dict[str, float]) -> None:
    """Measured beside planned."""
    from trilaw.planner.hardware import chip

    if options.hardware:
        here = chip(options.hardware)
    else:
        from trilaw.planner.calibrate import calibrate

        here = calibrate(10.0)
    plans = planned(here, grpo_prompt=found["grpo-prompt"], grpo_response=found["grpo-response"])
    if options.json:
        rows = {
            key: {"measured": found[key], "planned": plans[key], "error": plans[key] / found[key] - 1} for key in KEYS
        }
        print(json.dumps({"chip": here.to_json(), "threads": options.threads, "rows": rows, "found": found}, indent=2))
    else:
        print(f"{here.name}, {options.threads} threads")
        print(f"{'':20}{'measured':>12}{'planned':>12}{'error':>9}")
        for key in KEYS:
            print(f"{key:20}{found[key]:12,.4g}{plans[key]:12,.4g}{100 * (plans[key] / found[key] - 1):+8.1f} %")
    if options.write:
        MEASURED.write_text(written(MEASURED.read_text(encoding="utf-8"), options, found), encoding="utf-8")
        print(f"Written: {MEASURED}; now python scripts/docs_planner.py", file=sys.stderr)


def written(text: str, options: argparse.Namespace, found: dict[str, float]) -> str:
    """The table with these measurements; what was measured, its unit and the reasons stay."""
    import torch

    machine = (
        f"{options.threads} threads of {platform.processor() or platform.machine()}, torch {torch.__version__}, float32"
    )
    top = {"chip": options.hardware, "date": datetime.date.today().isoformat(), "machine": machine}
    for key, value in top.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {json.dumps(value)}", text, count=1)
    values = {(key, "measured"): found[key] for key in KEYS}
    values |= {("grpo-tiny", "prompt"): found["grpo-prompt"], ("grpo-tiny", "response"): found["grpo-response"]}
    for (table, field), value in values.items():
        text = re.sub(rf"(?ms)^(\[{table}\]\n.*?^{field} = )[\d._]+", rf"\g<1>{float(f'{value:.3g}'):g}", text, count=1)
    return text


def best(work: Callable[[], object], repeats: int) -> float:
    """The shortest of some calls, in seconds, after one that only warms up."""
    work()
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took)


def resident() -> float:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _built(config: dict[str, Any]) -> CausalLM:
    from trilaw.core.arch import Arch
    from trilaw.model.registry import build

    return build(Arch.from_config(config), seed=0)


def _small() -> CausalLM:
    from importlib import resources

    return _built(json.loads(resources.files("trilaw.planner").joinpath("models", f"{SMALL}.json").read_text("utf-8")))


def train_small(options: argparse.Namespace) -> dict[str, float]:
    """Forward and backward, and the most memory that they held."""
    import torch

    from trilaw.training.logprobs import token_logprobs
    from trilaw.training.losses.cross_entropy import cross_entropy

    before, model = resident(), _small()
    tokens_BT = torch.randint(model.arch.vocab_size, SMALL_TRAIN, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        hidden_BTD = model.train()(tokens_BT)
        targets_N = tokens_BT[:, 1:].flatten()
        loss = cross_entropy(
            token_logprobs(hidden_BTD[:, :-1].flatten(0, 1), model.head_weight, targets_N), len(targets_N)
        )
        loss.backward()  # type: ignore[no-untyped-call]

    seconds = best(step, options.repeats)
    return {"train-135m": tokens_BT.numel() / seconds, "train-135m-memory": (resident() - before) / 1e9}


class _Numbers:
    """The least tokenizer that an engine takes: no text is made here."""

    bos_id, pad_id, eos_ids = None, 0, (0,)

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return ""


def _engine(model: CausalLM, batch: int) -> Engine:
    from trilaw.engine import Engine

    return Engine(model, _Numbers(model.arch.vocab_size), max_batch=batch)  # type: ignore[arg-type]


def decode(model: CausalLM, sizes: tuple[int, int, int], repeats: int) -> float:
    """Tokens a second of decoding: all new tokens but the first, in the time that they take beyond the prompts and the first."""
    from trilaw.core.seeds import derive, rng
    from trilaw.core.types import Request, SamplingParams

    batch, prompt, new = sizes
    engine, draw = _engine(model, batch), rng(0, "prompts")
    prompts = [tuple(draw.randrange(model.arch.vocab_size) for _ in range(prompt)) for _ in range(batch)]
    calls = iter(range(1 << 30))

    def sample(tokens: int) -> None:
        turn, params = next(calls), SamplingParams(max_tokens=tokens, ignore_eos=True)
        engine.submit([Request(f"{turn}-{i}", prompts[i], params, derive(0, turn, i)) for i in range(batch)])
        while engine.pending:
            engine.step()

    one, all_ = best(lambda: sample(1), repeats), best(lambda: sample(new), repeats)
    return batch * (new - 1) / (all_ - one)


def sample_small(options: argparse.Namespace) -> dict[str, float]:
    return {"sample-135m": decode(_small().eval(), SMALL_SAMPLE, options.repeats)}


def sample_tiny(options: argparse.Namespace) -> dict[str, float]:
    return {"sample-tiny": decode(_built(TINY).eval(), TINY_SAMPLE, options.repeats)}


def stages_tiny(options: argparse.Namespace) -> dict[str, float]:
    """Pre-training and GRPO as the recipe `tiny` has them, shorter."""
    import trilaw
    from trilaw.core.events import EventLog

    def rows(folder: Path) -> Sequence[dict[str, Any]]:
        return EventLog(folder / "events.jsonl").rows()

    problems, samples, longest = GRPO
    with tempfile.TemporaryDirectory() as there:
        base, zero = Path(there) / "base", Path(there) / "zero"
        trilaw.pretrain(task="calculator", out=base, tokens=options.tokens)
        trained = statistics.median(row["tokens_per_second"] for row in rows(base)[1:])
        trilaw.grpo(
            base=str(base), task="calculator", out=zero, steps=options.steps, problems=problems, samples=samples,
            max_tokens=longest, optimizer={"learning_rate": 5e-4},
        )  # fmt: skip
        steps = rows(zero)[1:]
        prompts = _prompt_tokens(base)
    return {
        "train-tiny": trained,
        "grpo-tiny": statistics.median(row["seconds_sampling"] + row["seconds_training"] for row in steps),
        "grpo-prompt": prompts,
        "grpo-response": statistics.mean(row["length"] for row in steps),
    }


def _prompt_tokens(base: Path) -> float:
    """Mean tokens of a problem of the task."""
    import trilaw

    loaded, task = trilaw.load(str(base)), trilaw.task("calculator")
    problems = list(task.problems("test"))[:64]
    return statistics.mean(len(loaded.tokenizer.encode_chat(problem.messages)) for problem in problems)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "train-small": train_small,
    "sample-small": sample_small,
    "stages-tiny": stages_tiny,
    "sample-tiny": sample_tiny,
}


if __name__ == "__main__":
    main()
