"""Training: measured by others beside planned, with our error on every row.

`calibration()` is what the shares of assumptions.toml were chosen on; its errors are residuals of a fit, no test. `rows()` is other models, other sizes
or other systems; no number was chosen on any of them. But the form of the model, and which rows calibrate, were settled with all rows in sight, so
errors on runs that nobody here has seen will be somewhat larger. An error above 15 % says why. The measurements stand in validation_train.toml.

A measurement is timed in the layout that it was made in. Where its source does not say what was recomputed, the least that fits by our own count
is taken, as a search would. Memory is held to published figures by `memory_rows`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from typing import Any

from trilaw.core.numbers import Attention, FeedForward, Layer, Numbers
from trilaw.planner.hardware import chip
from trilaw.planner.layout import Layout, split
from trilaw.planner.memory import GIB, PRECISIONS, precision, training_memory
from trilaw.planner.models import model
from trilaw.planner.sheet import Sheet
from trilaw.planner.train import cost_of_hours, plan_train
from trilaw.planner.train_search import Run
from trilaw.planner.validation_row import ValidationRow as ValidationRow

GIVEN = "nothing: arithmetic on published hours or on a published utilisation"
V3 = "arXiv 2412.19437, table 1"
INSIGHTS = "arXiv 2505.09343, table 4"
LLAMA3 = "huggingface.co/meta-llama/Llama-3.1-405B (hours); arXiv 2407.21783, sections 3.3.2 and 3.3.4 (TFLOP/s, above 90 % effective)"
R1 = "arXiv 2501.12948v2, section B.4.4 and table 7"
COUNTS = "nothing: counts of the model's configuration"
FLOPS = "arXiv 2505.09343, table 2"
CACHE = "arXiv 2505.09343, table 1"
MEMORY = (
    "arXiv 2205.05198, figure 1, as read into github.com/calculon-ai/calculon at caa4b11 (calculon/llm/validation.py)"
)


def _gpt(name: str, h: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, gated: bool, tied: bool) -> Numbers:
    layer = Layer(Attention("full", heads, kv, h // heads, h // heads), FeedForward("dense", ffn, gated))
    return Numbers(name, "", h, vocab, tied, 1 << 20, (layer,) * layers)


@lru_cache(maxsize=1)
def shapes() -> Mapping[str, Numbers]:
    """Models of these rows that the catalogue does not have. Sizes: the sources of the rows."""
    experts = Layer(Attention("full", 48, 8, 128, 128), FeedForward("moe", 32768, True, 8, 2), 4)
    found = (
        _gpt("mpt-125m", 768, 12, 12, 12, 3072, 50368, False, True),
        _gpt("mpt-760m", 1536, 24, 12, 12, 6144, 50368, False, True),
        _gpt("mpt-1b", 2048, 24, 16, 16, 8192, 50368, False, True),
        _gpt("mpt-3b", 2560, 32, 20, 20, 10240, 50368, False, True),
        _gpt("mpt-7b", 4096, 32, 32, 32, 16384, 50368, False, True),
        _gpt("mpt-13b", 5120, 40, 40, 40, 20480, 50368, False, True),
        _gpt("mpt-30b", 7168, 48, 56, 56, 28672, 50368, False, True),
        _gpt("mpt-70b", 8192, 80, 64, 64, 32768, 50368, False, True),
        _gpt("nemotron-4-340b", 18432, 96, 96, 8, 73728, 256_000, False, False),
        _gpt("llama-2-13b", 5120, 40, 40, 40, 13824, 32_000, True, False),
        _gpt("llama-2-70b", 8192, 80, 64, 8, 28672, 32_000, True, False),
        Numbers("grok-1", "", 6144, 131_072, True, 8192, (experts,) * 64),
    )
    return {numbers.name: numbers for numbers in found}


def _numbers(name: str) -> Numbers:
    return shapes()[name] if name in shapes() else model(name)


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    text = resources.files("trilaw.planner").joinpath("validation_train.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def predict(row: Mapping[str, Any], assume: Mapping[str, float] | None = None) -> float:
    """What the planner says of a row of validation_train.toml, in its unit. `assume` overrides on top of the row's own assumptions."""
    numbers, context, sequences = _numbers(row["model"]), int(row["context"]), int(row["sequences"])
    fields = dict(row["layout"])
    least = fields.get("recompute") == "least"
    layout = Layout(**(fields | ({"recompute": "none"} if least else {})))
    run = Run(
        numbers,
        chip(row.get("chip", "h100")),
        precision(row.get("precision", "bf16-mixed")),
        Sheet(overrides=dict(row.get("assume", {})) | dict(assume or {})),
        context=context,
        mtp=bool(row.get("mtp", False)),
    )
    if least:
        layout, _ = run.least(layout, sequences)
    seconds = run.plan(layout, sequences).step.seconds
    rate = sequences * context / seconds / layout.chips
    if row["unit"] == "s/step":
        return seconds
    if row["unit"] == "tokens/s/chip":
        return rate
    if row["unit"] == "TFLOP/s/chip":
        return rate * numbers.flops_per_token(context, training=True) / 1e12
    if row["unit"] == "chip-hours":
        return float(row["tokens"]) / rate / 3600
    raise ValueError(f"validation_train.toml: the unit {row['unit']!r} of '{row['what']}' is unknown.")


def _read(kind: str, assume: Mapping[str, float] | None) -> list[ValidationRow]:
    table = _table()
    return [
        ValidationRow(
            what=row["what"],
            measured=float(row["measured"]),
            predicted=predict(row, assume),
            unit=row["unit"],
            source=table["sources"][row["source"]],
            calibrated_on="itself" if kind == "calibration" else table["calibrated"][row["set"]],
            peer_errors=row.get("peers", {}),
            why=row.get("why", ""),
        )
        for row in table[kind]
    ]


def calibration(assume: Mapping[str, float] | None = None) -> list[ValidationRow]:
    """The rows that the assumed shares were chosen on. Their errors are residuals of a fit, no test."""
    return _read("calibration", assume)


def rows() -> list[ValidationRow]:
    """Every published measurement of training that the planner is held to."""
    return [*_read("test", None), *_given(), *counts(), *memory_rows()]


def _given() -> list[ValidationRow]:
    """What follows from published hours or utilisations: a test of the arithmetic of hours and money, not of the step's model."""
    v3, h800 = model("deepseek-v3"), chip("h800")
    plan = plan_train(
        v3, h800, 2048, tokens=14.8e12, context=4096, batch_tokens=15360 * 4096, precision="fp8-v3", price_per_hour=2.0,
        assume={"mfu": 0.3894, "train_node_limit": 4}, layout=V3_LAYOUT,
    )  # fmt: skip
    extension = sum(
        plan_train(
            v3, h800, 2048, tokens=1000 * sequences * context, context=context, batch_tokens=sequences * context,
            precision="fp8-v3", assume={"mfu": 0.3894}, layout=replace(V3_LAYOUT, dp=dp, cp=128 // dp, recompute="full"),
        ).gpu_hours
        for sequences, context, dp in ((1920, 32768, 32), (480, 131072, 8))
    )  # fmt: skip
    total = cost_of_hours(h800, plan.gpu_hours + 119e3 + 5e3, price_per_hour=2.0)
    llama, h100 = model("llama-3.1-405b"), chip("h100")
    job = plan_train(
        llama, h100, 16384, tokens=15.6e12, context=8192, batch_tokens=2048 * 8192,
        assume={"mfu": 400e12 / h100.rate("bf16"), "train_goodput": 0.9},
    )  # fmt: skip
    zero, r1 = 512 * 198.0, 512 * 80.0
    r1_total = cost_of_hours(h800, zero + r1 + 5e3, price_per_hour=2.0)

    def row(what: str, measured: float, predicted: float, unit: str, source: str, why: str = "") -> ValidationRow:
        return ValidationRow(what, measured, predicted, unit, source, GIVEN, {}, why)

    return [
        row("DeepSeek-V3, 14.8T tokens at 38.94 % MFU", 2_664e3, plan.gpu_hours, "chip-hours", V3),
        row("DeepSeek-V3, a day at 38.94 % MFU", 272.8, plan.tokens_per_day / 1e9, "10^9 tokens/day", INSIGHTS),
        row("DeepSeek-V3, 38.94 % MFU", 385.0, plan.tflops_per_chip, "TFLOP/s/chip", INSIGHTS),
        row("DeepSeek-V3, a trillion tokens on 2,048 H800", 3.7, plan.days / 14.8, "days", V3),
        row(
            "DeepSeek-V3, context extension at 38.94 % MFU", 119e3, extension, "chip-hours", V3,
            "neither its layout nor its utilisation is published; 480 sequences of 131,072 tokens are few for 2,048 chips and"
            " a pipeline of 16 stages, so the utilisation was likely lower than that of pre-training",
        ),
        row("DeepSeek-V3, all of its training at $2", 5.576e6, total.usd or 0.0, "$", V3),
        row("Llama 3.1 405B, 15.6T tokens at 400 TFLOP/s, 90 % of the time", 30.84e6, job.gpu_hours, "chip-hours", LLAMA3),
        row("DeepSeek-R1-Zero, 512 H800 for 198 hours", 101e3, zero, "chip-hours", R1),
        row("DeepSeek-R1, 512 H800 for 80 hours", 41e3, r1, "chip-hours", R1),
        row("DeepSeek-R1, all of its training at $2", 294e3, r1_total.usd or 0.0, "$", R1),
    ]  # fmt: skip


# published GFLOP of a training token at 4,096 tokens; bytes of cache of a token in 16 bits
_FLOPS = {"deepseek-v3": 250, "deepseek-v2": 155, "llama-3.1-405b": 2448, "qwen2.5-72b": 394}
_CACHE = {"deepseek-v3": 70_272, "qwen2.5-72b": 327_680, "llama-3.1-405b": 516_096}


def counts() -> list[ValidationRow]:
    """What core.numbers counts beside what was published of the same models."""
    unknown = "no convention gives 394: the layers' weights alone make 421 (core/numbers.py)"
    flops = [
        ValidationRow(
            f"{name}, a training token at 4,096", published, model(name).flops_per_token(4096, training=True) / 1e9,
            "GFLOP", FLOPS, COUNTS, {}, unknown if name == "qwen2.5-72b" else "",
        )
        for name, published in _FLOPS.items()
    ]  # fmt: skip
    cache = [
        ValidationRow(f"{name}, cache of a token", published, model(name).kv_bytes_per_token(), "B", CACHE, COUNTS)
        for name, published in _CACHE.items()
    ]
    return [*flops, *cache]


V3_LAYOUT = Layout(pp=16, dp=128, ep=64, schedule="dualpipe", recompute="pointwise")

# GiB, each with calculon's error: weights and optimizer; activations; those with sequence parallelism and selective recompute
_MEMORY = (
    ("megatron-22b", Layout(tp=8, micro_batch=4), 4, (45.5625, 59.25, 9.5625), (-0.108, 0.003, 0.087)),
    (
        "megatron-175b", Layout(tp=8, pp=8, interleave=3, schedule="interleaved"), 64,
        (45.5625, 66.84375, 12.3515625), (-0.102, 0.001, 0.028),
    ),
    (
        "megatron-530b", Layout(tp=8, pp=35, interleave=3, schedule="interleaved"), 280,
        (31.640625, 114.0234375, 23.076171875), (-0.074, 0.001, 0.021),
    ),
    ("megatron-1t", Layout(tp=8, pp=64), 512, (32.958984375, 131.25, 26.5625), (-0.056, 0.002, 0.023)),
)  # fmt: skip


def memory_rows() -> list[ValidationRow]:
    """GiB on a chip of the first stage, as figure 1 of arXiv 2205.05198 counts them: embedding and head are not in it."""
    policy, found = PRECISIONS["bf16-mixed"], []
    for name, layout, sequences, published, peers in _MEMORY:
        bare = replace(model(name), vocab=0, positions=0, final_norms=0)
        base = replace(layout, zero=0, flash=False)
        chosen = (base, replace(base, sequence_parallel=False), replace(base, recompute="selective"))
        words = (
            "weights and optimizer",
            "activations, tensor parallelism",
            "activations, sequence parallelism, selective",
        )
        for index, (what, how, measured, peer) in enumerate(zip(words, chosen, published, peers)):
            memory = training_memory(
                bare, split(bare, layout.pp), how, policy, context=2048,
                micro_batches=layout.micro_batches(sequences), dropout=True, stage=0,
            )  # fmt: skip
            found.append(
                ValidationRow(
                    what=f"{name}, {what}",
                    measured=measured,
                    predicted=(memory.activations if index else memory.states) / GIB,
                    unit="GiB/chip",
                    source=MEMORY,
                    calibrated_on="nothing: formulas",
                    peer_errors={"calculon": peer},
                )
            )
    return found
