"""`trilaw.evaluate`: a model on a task, from names to numbers with intervals."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from trilaw.api.options import SamplingOptions, merged
from trilaw.core.config import TaskSpec, parse
from trilaw.core.errors import RequestError, nearest
from trilaw.core.intervals import paired_difference
from trilaw.core.protocols import Progress, Task
from trilaw.core.seeds import derive
from trilaw.core.types import Estimate, SamplingParams

if TYPE_CHECKING:
    from trilaw.api.load import Model
    from trilaw.evals.run import EvalResult
    from trilaw.model.loading import Loaded

_BLOCKS, _BLOCK_BYTES = 64, 65_536


def evaluate(
    model: str | Path | Loaded | Model,
    task: str | Mapping[str, Any] | TaskSpec | Task,
    *,
    split: str = "test",
    limit: int | None = None,
    samples: int = 1,
    params: SamplingParams | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    stores: str | Path | None = None,
    logprobs: bool = False,
    quantization: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Unpack[SamplingOptions],
) -> EvalResult:
    """Draw `samples` completions for each of `limit` problems of a split, verify them, and estimate.

    model: whatever `trilaw.load` takes, or what it gave. task: a kind ("gsm8k"), a table with `kind` and options, a TaskSpec,
    or any object that meets the Task protocol. params: how to draw; its fields may also stand as keywords. limit None: the whole split, for an endless task as many problems as it gives by itself. store: where the samples are
    kept (a folder or a .jsonl file); samples that lie there are not drawn again. stores: instead of `store`, a folder in which the
    evaluation has a store of its own, named by model, task, split and a digest of all settings. Neither: samples are not kept.
    quantization: "int8" samples with 8-bit matrix products, and is one of the settings of a store.

    Raises RequestError, ConfigError, ModelError, SourceError, TaskError or RunError with a sentence; Stopped if `should_stop` said so.

        result = trilaw.evaluate("runs/tiny", "calculator", limit=64, samples=4, max_tokens=140)
        print(result["pass@1"].value, result["pass@1"].low, result["pass@1"].high)
    """
    # in here: torch
    from trilaw.engine.engine import Engine
    from trilaw.evals.run import evaluate as run
    from trilaw.model.loading import load
    from trilaw.tasks.registry import build

    if isinstance(task, Mapping):
        task = parse(TaskSpec, task, "trilaw.evaluate: task")
    built = build(task) if isinstance(task, str | TaskSpec) else task
    loaded = load(model) if isinstance(model, str | Path) else model
    params = merged(params, options)
    settings = {
        "model": str(model) if isinstance(model, str | Path) else loaded.path.name,
        "weights": fingerprint(loaded.path),
    }
    if quantization is not None:
        settings["quantization"] = quantization
    if isinstance(task, TaskSpec) and task.options:
        settings["options"] = json.dumps(task.options, sort_keys=True, default=str)
    if store is None and stores is not None:
        everything = {**settings, "params": repr(params), "seed": seed}
        store = Path(stores) / store_name(settings["model"], built.name, split, everything)
    return run(
        built,
        Engine(
            loaded.model, loaded.tokenizer, quantization=quantization, consume=isinstance(model, str | Path)
        ),  # ours alone
        split=split,
        limit=limit,
        samples=samples,
        params=params,
        seed=seed,
        store=None if store is None else Path(store),
        settings=settings,
        logprobs=logprobs,
        arch=loaded.arch,
        progress=progress,
        should_stop=should_stop,
    )


def compare(new: EvalResult, old: EvalResult, metric: str = "pass@1") -> Estimate:
    """By how much `new` exceeds `old`: the mean difference over the problems that both answered, with its 95% interval.

    An interval above 0 is a gain. Pairing takes the difficulty of the problems out of the difference, so this sees smaller gains than
    a look at two intervals. Raises RequestError when the two answered other problems or lack the metric.

        base, zero = (trilaw.evaluate(f"runs/tiny#{name}", "calculator", samples=4) for name in ("base", "zero"))
        gain = trilaw.compare(zero, base)
        print(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    """
    for result in (new, old):
        if metric not in result.values:
            raise RequestError(f"One of the results has no '{metric}'{nearest(metric, result.values)}.")
    if new.problems != old.problems:
        raise RequestError(
            "The two results are of different problems: evaluate both with the same task, split and limit."
        )
    values = (new.values[metric], old.values[metric])
    return paired_difference(*values, bounds=(0.0, max(1.0, *values[0], *values[1])))


def store_name(model: str, task: str, split: str, settings: Mapping[str, Any]) -> str:
    """`smollm2-135m-gsm8k-test-1f0c9a2b`: readable, and different for different settings."""
    digest = derive(json.dumps(settings, sort_keys=True)) % 2**32
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-.")[-60:] for word in (Path(model).name, task, split)]
    return "-".join([*words, f"{digest:08x}"])


def fingerprint(path: Path) -> str:
    """Sixteen hex digits of the weights in a model folder or file, from sizes and 64 spread blocks: a new training changes it.

    It tells versions of a model apart; it does not protect against someone who wants to deceive.
    """
    digest = hashlib.blake2b(digest_size=8)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''}:{size};".encode())
        with file.open("rb") as stream:
            for block in range(_BLOCKS):
                stream.seek(block * size // _BLOCKS)
                digest.update(stream.read(min(_BLOCK_BYTES, size // _BLOCKS + 1)))
    return digest.hexdigest()
