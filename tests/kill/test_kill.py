"""kill -9 at chosen and at random moments of every kind of stage, then the same command: the outcome is that of a run left alone.

Compared are the weights of every stage and checkpoint, optimizer states, events without times, rollouts and samples, and every
number of the results. One folder is killed again and again, since each attempt costs seconds for torch's import.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import trilaw

pytestmark = pytest.mark.kill

RECIPE = """
version = 1
name = "toy"
seed = 3
[tasks.calc]
kind = "calculator"
document_steps = [1, 3]
train_steps = [1, 2]
test_steps = [1, 2]
hard_steps = [3, 3]
[[stages]]
name = "base"
kind = "pretrain"
task = "calc"
hidden = 16
layers = 1
heads = 2
row_tokens = 64
rows_per_step = 4
tokens = 6144          # 24 steps
valid_documents = 8
evaluate_every = 5
save_every = 5
log_every = 1
[[stages]]
name = "taught"
kind = "sft"
base = "base"
task = "calc"
examples = 64
valid_examples = 8
epochs = 3
batch_examples = 8     # 24 or 25 steps
save_every = 4
[[stages]]
name = "zero"
kind = "grpo"
base = "taught"
task = "calc"
steps = 9
problems = 4
samples = 4
max_tokens = 24
reward = "random"      # a model of this size is never right, and without reward there is no gradient to get wrong
save_every = 3
keep_every = 2         # so most kept models stand between two checkpoints
log_samples_every = 2
[stages.optimizer]
learning_rate = 1e-3
[[stages]]
name = "exam"
kind = "eval"
models = ["base", "zero"]
task = "calc"
splits = ["test", "hard"]
limit = 24
samples = 4
max_tokens = 32
[[stages]]
name = "points"
kind = "eval"
models = ["zero@*"]
task = "calc"
limit = 12
samples = 4
max_tokens = 16
for_laws = true
[[stages]]
name = "laws"
kind = "laws"
bootstraps = 20
"""

# Which stage is at work, what is called for the how-manieth time in this attempt, and whether death comes before or after it.
MOMENTS = [
    ("base", "os:replace", 2, "before"),  # recipe.toml stands, resolved.json does not
    ("base", "trilaw.core.events:EventLog.append", 7, "after"),  # past the first checkpoint
    ("base", "trilaw.core.rundir:_fsync", 4, "before"),  # inside the save of a checkpoint
    ("base", "trilaw.training.loop:Loop.finish", 1, "after"),  # the model stands, done.json does not
    ("taught", "trilaw.training.optim:Optimizer.step", 6, "after"),  # weights changed, nothing logged
    ("taught", "trilaw.training.checkpoint:write", 2, "after"),  # the checkpoint just got its name
    ("zero", "trilaw.engine.engine:Engine.step", 5, "before"),  # inside a rollout, no checkpoint yet
    ("zero", "trilaw.engine.engine:Engine.load_weights", 4, "after"),  # between the update and its log
    ("zero", "trilaw.training.checkpoint:write", 1, "before"),
    ("zero", "trilaw.training.loop:Loop._store_model", 2, "before"),  # the first kept model stands, the second does not
    ("zero", "trilaw.training.loop:Loop._store_model", 2, "after"),  # both stand, and one is of a step that is lost
    ("zero", "trilaw.training.loop:Loop._store_model", 3, "after"),  # all kept, the last model too, done.json not
    ("exam", "trilaw.evals.store:Store.add", 30, "after"),
    ("exam", "trilaw.evals.store:Store.finish", 2, "before"),
    ("points", "trilaw.evals.store:Store.finish", 5, "after"),  # four of the exam, and the first kept model's
    ("points", "trilaw.evals.store:Store.add", 60, "after"),  # inside the third kept model
    ("laws", "trilaw.laws.findings:find", 1, "after"),
    ("laws", "os:replace", 2, "before"),  # laws.json is written and has no name yet
    ("laws", "os:replace", 2, "after"),  # it stands, done.json does not
    (None, "trilaw.reports.html:build", 1, "before"),  # every stage is done, the report is not
]
RANDOM_KILLS = 4


def command(*start: str, recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    source = str(Path(trilaw.__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    words = [sys.executable, *start, "run", str(recipe), "--out", str(out)]
    with (out.parent / f"{out.name}.log").open("ab") as log:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=log)


def finish(recipe: Path, out: Path) -> None:
    status = command("-m", "trilaw", recipe=recipe, out=out).wait(timeout=120)
    assert status == 0, (out.parent / f"{out.name}.log").read_text()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "toy.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def straight(recipe: Path) -> dict[str, Any]:
    """The outcome of a run that is left alone."""
    out = recipe.parent / "straight"
    finish(recipe, out)
    outcome = outcome_of(out)
    weights = {name: value for name, value in outcome.items() if name.endswith("model/model.safetensors")}
    assert len(set(weights.values())) == 3, "each stage has learned something, or the comparison says nothing"
    kept = {name: value for name, value in outcome.items() if "/kept/" in name and name.endswith(".safetensors")}
    assert len(set(kept.values())) == 4, "the models kept on the way differ"
    assert json.loads((out / "stages/laws/laws.json").read_text())["version"] == 1
    return outcome


def outcome_of(run: Path) -> dict[str, Any]:
    """What has to be the same, by file."""
    outcome: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":
            outcome[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".jsonl":
            outcome[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name in ("done.json", "laws.json"):
            outcome[name] = timeless(json.loads(path.read_text()))
    return outcome


def timeless(value: Any) -> Any:
    """Without what the clock says, and without what a sample's prompt shared with its neighbours in the batch."""
    if isinstance(value, dict):
        kept = {
            k: v for k, v in value.items() if not k.startswith(("seconds", "eta")) and not k.endswith("_per_second")
        }
        if "usage" in kept or kept.get("kind") == "eval":
            kept.pop("flops", None)
        if "completion_tokens" in kept:
            kept.pop("flops"), kept.pop("cached_tokens")
        return {k: timeless(v) for k, v in kept.items()}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def at_work(run: Path) -> str | None:
    """The first stage that is not done."""
    names = ("base", "taught", "zero", "exam", "points", "laws")
    return next((name for name in names if not (run / "stages" / name / "done.json").exists()), None)


def assert_same(run: Path, straight: dict[str, Any]) -> None:
    outcome = outcome_of(run)
    assert list(outcome) == list(straight)
    for name, value in straight.items():
        assert outcome[name] == value, name
    assert not list(run.rglob(".tmp-*")), "nothing half written is left"
    assert (run / "report.html").is_file()


def test_killed_at_chosen_moments(recipe: Path, straight: dict[str, Any]) -> None:
    out = recipe.parent / "chosen"
    victim = str(Path(__file__).with_name("victim.py"))
    for stage, place, count, when in MOMENTS:
        status = command(victim, place, str(count), when, recipe=recipe, out=out).wait(timeout=120)
        moment = f"{when} call {count} of {place}"
        assert status == -signal.SIGKILL, f"{moment} did not come: {(recipe.parent / 'chosen.log').read_text()}"
        assert at_work(out) == stage, moment
    finish(recipe, out)
    assert_same(out, straight)
    outcomes = [attempt["outcome"] for attempt in json.loads((out / "manifest.json").read_text())["attempts"]]
    assert outcomes == [None] * (len(MOMENTS) - 2) + ["complete"], (
        "the first and the last kill fell outside of the stages"
    )


def test_killed_at_random_moments(recipe: Path, straight: dict[str, Any]) -> None:
    """From outside, a random while after a random amount of work, whatever the process is doing then."""
    out, draw, hits = recipe.parent / "random", random.Random(5), 0
    total = amount(recipe.parent / "straight")
    for goal in sorted(draw.randrange(total) for _ in range(RANDOM_KILLS)):
        process = command("-m", "trilaw", recipe=recipe, out=out)
        while process.poll() is None and amount(out) <= goal:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        process.kill()
        hits += process.wait(timeout=120) == -signal.SIGKILL
    assert hits, "at least one kill came before the end"
    finish(recipe, out)
    assert_same(out, straight)


def test_asked_to_stop(recipe: Path, straight: dict[str, Any]) -> None:
    """SIGTERM: the stage saves, one line says so, and the same command goes on."""
    out = recipe.parent / "asked"
    process = command("-m", "trilaw", recipe=recipe, out=out)
    while process.poll() is None and amount(out) < 5:
        time.sleep(0.002)
    process.terminate()
    assert process.wait(timeout=120) == 130
    last = (recipe.parent / "asked.log").read_text().splitlines()[-1]
    assert re.fullmatch(
        r"Stopped (at stage '\w+', step \d+ of \d+|before stage '\w+'); the same command goes on\.", last
    )
    finish(recipe, out)
    # the stop saved a checkpoint at a step of its own; all else is the same
    assert results(outcome_of(out)) == results(straight)


def results(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if "/checkpoints/" not in name}


def amount(run: Path) -> int:
    """A measure of how far a run is: lines of events and samples."""
    lines = 0
    for path in (run / "events.jsonl", *run.glob("stages/*/*.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # the process at work makes and replaces files
            lines += path.read_bytes().count(b"\n")
    return lines
