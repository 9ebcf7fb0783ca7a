"""Plans of training: published hours and money, arithmetic identities, and every refusal."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.shapes import llama, moe

from trilaw.core.errors import RequestError
from trilaw.core.numbers import causal_pairs
from trilaw.planner.hardware import chip
from trilaw.planner.layout import Layout, on_chips, split
from trilaw.planner.memory import PRECISIONS, training_memory
from trilaw.planner.models import model
from trilaw.planner.sheet import Sheet, assumptions
from trilaw.planner.train import TrainPlan, cost_of_hours, default_batch, plan_train
from trilaw.planner.train_kernels import Speeds, layer_work, product_flops
from trilaw.planner.train_time import Step, step_time

H100 = chip("h100")


def plan(**options: Any) -> TrainPlan:
    return plan_train(
        model("llama-3.1-8b"), H100, 64, **({"tokens": 1e12, "context": 8192, "batch_tokens": 512 * 8192} | options)
    )


# ---- published ---------------------------------------------------------------------------------------------------------------


def test_v3_from_its_utilisation() -> None:
    v3 = plan_train(
        model("deepseek-v3"), chip("h800"), 2048, tokens=14.8e12, batch_tokens=15360 * 4096, precision="fp8-v3",
        assume={"mfu": 0.3894},
    )  # fmt: skip
    assert v3.gpu_hours == pytest.approx(2_664e3, rel=0.01)  # arXiv 2412.19437, table 1
    assert v3.gpu_hours / 14.8 == pytest.approx(180e3, rel=0.01)
    assert v3.days / 14.8 == pytest.approx(3.7, rel=0.01)
    assert v3.tokens_per_day == pytest.approx(272.8e9, rel=0.01)  # arXiv 2505.09343, table 4
    assert v3.step_seconds == pytest.approx(19.926, rel=0.01)
    assert v3.tflops_per_chip == pytest.approx(385, rel=0.005)
    assert v3.usd == pytest.approx(5.328e6, rel=0.01)  # at $2 an hour, the table's price of an H800
    assert v3.binds == "the given mfu"
    assert v3.step_parts == {}
    all_of_it = cost_of_hours(chip("h800"), 2_664e3 + 119e3 + 5e3)
    assert all_of_it.usd == pytest.approx(5.576e6, rel=0.001)


def test_v3_without_its_utilisation_within_10_percent() -> None:
    v3 = plan_train(
        model("deepseek-v3"), chip("h800"), 2048, tokens=14.8e12, batch_tokens=15360 * 4096, precision="fp8-v3",
        layout=Layout(pp=16, dp=128, ep=64, schedule="dualpipe", recompute="pointwise"),
        assume={"train_node_limit": 4, "train_goodput": 1.0},
    )  # fmt: skip
    assert v3.gpu_hours == pytest.approx(2_664e3, rel=0.10)
    assert v3.gpu_hours_low < 2_664e3 < v3.gpu_hours_high
    assert v3.mfu == pytest.approx(0.3894, rel=0.10)


def test_r1_from_its_hours() -> None:
    zero, r1 = 512 * 198, 512 * 80
    assert zero == pytest.approx(101e3, rel=0.01)  # arXiv 2501.12948v2, table 7
    assert r1 == pytest.approx(41e3, rel=0.01)
    cost = cost_of_hours(chip("h800"), zero + 5_000 + r1, price_per_hour=2.0)
    assert cost.gpu_hours == pytest.approx(147e3, rel=0.005)
    assert cost.usd == pytest.approx(294e3, rel=0.005)
    assert set(cost.to_json()) == {"gpu_hours", "price_per_hour", "usd", "energy_kwh", "sheet"}


def test_llama_65b_from_its_rate() -> None:
    rate = 380 * 6 * 65.2e9 / 312e12  # by 6 N D, on 2,048 A100
    numbers = model("llama-65b")
    mfu = 380 * numbers.flops_per_token(2048, training=True) / 312e12
    found = plan_train(
        numbers, chip("a100"), 2048, tokens=1.4e12, context=2048, batch_tokens=2048 * 2048, assume={"mfu": mfu}
    )
    assert found.gpu_hours == pytest.approx(1_022_362, rel=0.002)
    assert rate < mfu < 1.05 * rate
    assert found.days == pytest.approx(21, abs=0.3)  # "approximately 21 days"


def test_olmo_3_energy_from_its_hours() -> None:
    # 146 MWh in 234k hours is what train_power was taken from, on the chip alone: 624 of 700 W
    alone = replace(H100, all_in_watts=None)
    assert cost_of_hours(alone, 234e3).energy_kwh == pytest.approx(146e3, rel=0.02)
    assert cost_of_hours(H100, 234e3).energy_kwh == pytest.approx(234e3 * 1.275 * 0.9, rel=1e-9)


# ---- identities --------------------------------------------------------------------------------------------------------------


def test_hours_money_energy_and_mfu_are_one_arithmetic() -> None:
    found = plan(price_per_hour=3.0)
    assert sum(found.step_parts.values()) == pytest.approx(found.step_seconds)
    assert sum(found.exposed_seconds.values()) == pytest.approx(found.step_parts["communication"])
    assert found.tokens_per_second == pytest.approx(512 * 8192 / found.step_seconds)
    assert found.seconds == pytest.approx(1e12 / found.tokens_per_second / 0.95)
    assert found.gpu_hours == pytest.approx(found.seconds * 64 / 3600)
    assert found.hours * 3600 == found.days * 86400 == found.seconds
    assert found.usd == pytest.approx(found.gpu_hours * 3.0)
    assert found.energy_kwh == pytest.approx(found.gpu_hours * 1.275 * 0.9)
    flops = model("llama-3.1-8b").flops_per_token(8192, training=True)
    assert found.mfu == pytest.approx(flops * found.tokens_per_second / (64 * 989.4e12))
    assert found.flops == pytest.approx(flops * 1e12)
    assert found.steps == pytest.approx(1e12 / (512 * 8192))
    assert found.gpu_hours_low < found.gpu_hours < found.gpu_hours_high
    assert found.memory.total <= found.memory_capacity == 81_559 * 2**20 * 0.88
    assert 0.3 < found.mfu < 0.6


def test_the_sheet_shows_every_number_and_every_assumption() -> None:
    found = plan()
    names = {line.name for line in found.sheet.lines}
    assert {"model FLOPs", "step", "throughput", "MFU", "time", "chip-hours", "cost", "energy", "price"} <= names
    assert {f"step, {part}" for part in found.step_parts} <= names
    assert {f"memory, {part}" for part in found.memory.parts()} <= names
    used = found.sheet.used
    assert {"train_matmul", "train_attention", "train_goodput", "train_power", "train_memory_use"} <= set(used)
    assert all(assumption.source and assumption.low <= assumption.high for assumption in used.values())
    for line in found.sheet.lines:
        assert line.formula
        assert math.isfinite(line.value)


def test_json_has_stable_keys() -> None:
    plain = json.loads(json.dumps(plan().to_json()))
    assert {
        "model", "chip", "count", "tokens", "context", "batch_tokens", "precision", "layout", "steps", "step_seconds", "step_parts", "flows", "exposed_seconds",
        "mfu", "tflops_per_chip", "tokens_per_second", "tokens_per_second_per_chip", "tokens_per_day", "flops", "memory_bytes", "memory_parts", "memory_capacity",
        "seconds", "hours", "days", "gpu_hours", "gpu_hours_low", "gpu_hours_high", "price_per_hour", "usd", "energy_kwh", "binds", "busiest_link",
        "other_layouts", "recompute_choices", "sheet",
    } == set(plain)  # fmt: skip
    assert plain["layout"]["words"] == str(plan().layout)
    assert plain["memory_bytes"] == plain["memory_parts"]["total"] == pytest.approx(plan().memory.total)
    assert len(plain["other_layouts"]) == 9


def test_assumptions_of_training_are_documented() -> None:
    mine = {name: a for name, a in assumptions().items() if name.startswith("train_") or name == "mfu"}
    assert len(mine) == 18
    for assumption in mine.values():
        assert assumption.source
        assert assumption.about
        assert assumption.unit
        if assumption.name != "mfu":
            assert assumption.low <= assumption.value <= assumption.high


def test_a_given_mfu_is_of_the_whole_job_unless_lost_time_is_given_too() -> None:
    assert plan(assume={"mfu": 0.4}).mfu == pytest.approx(0.4)
    whole = plan(assume={"mfu": 0.4}).gpu_hours
    assert plan(assume={"mfu": 0.4, "train_goodput": 0.8}).gpu_hours == pytest.approx(whole / 0.8)
    assert plan(assume={"mfu": 0.4}).gpu_hours_low == whole
    assert plan(assume={"mfu": 0.2}).gpu_hours == pytest.approx(2 * whole)


def test_a_given_share_has_no_range() -> None:
    found = plan(assume={"train_matmul": 0.6})
    assert found.gpu_hours_low == found.gpu_hours == found.gpu_hours_high
    assert found.gpu_hours < plan(layout=found.layout).gpu_hours


def test_a_layout_of_the_callers_is_taken() -> None:
    found = plan(layout=Layout(dp=64, zero=3, recompute="full"))
    assert found.layout == Layout(dp=64, zero=3, recompute="full")
    assert found.others == ()
    assert found.gpu_hours > plan().gpu_hours


def test_without_a_price_there_is_no_money() -> None:
    found = plan_train(model("smollm2-135m"), chip("ascend 910b"), 8, tokens=1e9, context=2048, batch_tokens=64 * 2048)
    assert found.usd is None
    assert found.price_per_hour is None
    assert found.energy_kwh is not None


def test_the_default_batch_is_deepseeks_law_and_divides() -> None:
    found = plan_train(model("llama-3.1-8b"), H100, 48, tokens=1e12, context=8192)
    law = 0.2920 * found.flops**0.3271
    assert found.batch_tokens == pytest.approx(law, rel=0.5)
    assert found.batch_tokens % (8192 * 48) == 0
    assert default_batch(1e15, 4096, 2048) == 2048  # at least a sequence for each chip
    assert default_batch(1e24, 4096, 12) % 3 == 0


def test_modules_that_predict_more_tokens_cost_time_but_no_model_flops() -> None:
    options: dict[str, Any] = {"tokens": 1e12, "batch_tokens": 15360 * 4096, "precision": "fp8-v3"}
    layout = Layout(pp=16, dp=128, ep=64, schedule="dualpipe", recompute="pointwise")
    with_it, without = (
        plan_train(model("deepseek-v3"), chip("h800"), 2048, layout=layout, mtp=mtp, **options) for mtp in (None, False)
    )
    assert with_it.flops == without.flops
    assert 1.02 < with_it.gpu_hours / without.gpu_hours < 1.15


# ---- the step ----------------------------------------------------------------------------------------------------------------


def speeds(policy: str = "bf16-mixed", **assume: float) -> Speeds:
    return Speeds.of(H100, PRECISIONS[policy], Sheet(overrides=assume))


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(("llama-3.1-8b", "deepseek-v3", "qwen3-30b-a3b", "gemma-3-4b", "gpt-oss-20b")),
    tp=st.sampled_from((1, 2, 4, 8)), full=st.booleans(),
)  # fmt: skip
def test_products_are_the_counted_flops(name: str, tp: int, full: bool) -> None:
    numbers = model(name)
    layout = Layout(tp=tp, recompute="full" if full else "none")
    total = sum(sum(product_flops(layer, numbers.hidden, layout)) * tp for layer in numbers.layers)
    head = 6 * numbers.hidden * numbers.vocab
    attention = sum(layer.attention.pair_flops() for layer in numbers.layers) * 3  # of one pair
    counted = numbers.flops_per_token(1, training=True)
    assert total * (6 / 8 if full else 1) + head + attention == pytest.approx(counted)


def test_attention_by_hand() -> None:
    numbers, layout = llama(), Layout()
    work = layer_work(numbers.layers[0], 512, layout, 4096, PRECISIONS["bf16-mixed"], speeds())
    pairs = causal_pairs(4096) / 4096
    assert work.attention == pytest.approx(3.5 * 4 * 512 * pairs / (989.4e12 * 0.5))
    full_square = layer_work(
        numbers.layers[0], 512, replace(layout, flash=False), 4096, PRECISIONS["bf16-mixed"], speeds()
    )
    assert full_square.attention == pytest.approx(3 * 4 * 512 * 4096 / (989.4e12 * 0.57))
    assert full_square.pointwise - work.pointwise == pytest.approx(3 * 4 * 2 * 8 * 4096 / (3.35e12 * 0.8))


@pytest.mark.parametrize(
    ("fields", "fill"),
    [
        ({"schedule": "1f1b"}, 3.0),
        ({"schedule": "gpipe"}, 3.0),
        ({"schedule": "interleaved", "interleave": 2}, 1.5),
        ({"schedule": "zb1p"}, 1.0),
        ({"schedule": "dualpipe"}, 2 / 3),
    ],
)
def test_the_bubble_of_each_schedule(fields: dict[str, Any], fill: float) -> None:
    # 4 equal stages, F = 1, B = 2, W = 1 in units of F: (p-1)(F+B) = 9 of 3; zb1p (p-1)(F+B-2W) = 3; dualpipe (p/2-1)(F&B+B-3W) = 2
    numbers, layout = llama(layers=8, vocab=0), Layout(pp=4, dp=2, **fields)
    quiet = replace(
        speeds(train_launch=0), exposed_tensor=0.0, exposed_expert=0.0, exposed_other=0.0, beside_dualpipe=1.0
    )
    stages = on_chips(split(numbers, 4), layout)
    policy = PRECISIONS["bf16-mixed"]
    memory = training_memory(numbers, stages, layout, policy, context=2048, micro_batches=16)
    step = step_time(numbers, stages, layout, policy, quiet, memory=memory, context=2048, micro_batches=16)
    one = (step.products + step.attention + step.pointwise) / 16  # F + B of a stage
    assert step.bubble == pytest.approx(fill * one)
    assert step.communication == 0


def test_what_cannot_be_hidden_is_exposed() -> None:
    numbers, layout, policy = llama(), Layout(dp=64, zero=3), PRECISIONS["bf16-mixed"]
    stages = split(numbers, 1)
    memory = training_memory(numbers, stages, layout, policy, context=64, micro_batches=1)
    step = step_time(
        numbers, stages, layout, policy, speeds(train_launch=0), memory=memory, context=64, micro_batches=1
    )
    flow = step.flows[0]
    computing = step.products + step.attention + step.pointwise
    assert step.communication == pytest.approx(flow.seconds - computing)
    assert step.binds == f"data traffic, {flow.link} link"
    assert step.busiest_link == flow.link


def one_chip(context: int, layers: int = 6, **fields: Any) -> Step:
    """A step of four micro-batches of a small model without a head on one chip."""
    numbers, layout, policy = llama(layers=layers, vocab=0), Layout(**fields), PRECISIONS["bf16-mixed"]
    stages = split(numbers, 1)
    memory = training_memory(numbers, stages, layout, policy, context=context, micro_batches=4)
    return step_time(numbers, stages, layout, policy, speeds(), memory=memory, context=context, micro_batches=4)


def busy(step: Step) -> float:
    return step.products + step.attention + step.pointwise


@pytest.mark.parametrize(("recompute", "launches"), [("none", 1), ("pointwise", 1), ("full", 4 / 3)])
def test_a_layer_takes_its_work_or_its_launches_whichever_is_longer(recompute: str, launches: float) -> None:
    once = assumptions()["train_launch"].value
    short, long = one_chip(64, recompute=recompute), one_chip(65_536, recompute=recompute)
    assert busy(short) < 4 * 6 * once
    assert short.launch + busy(short) == pytest.approx(4 * 6 * once * launches)
    assert short.binds == "launch"
    assert busy(long) > 4 * 6 * once * launches
    assert long.launch == 0
    assert one_chip(64, layers=12, recompute=recompute).launch == pytest.approx(2 * short.launch)


def tiny_on_many(context: int = 4096, layout: Layout | None = None, **assume: float) -> TrainPlan:
    """SmolLM2-135M with one sequence for each of 2,048 chips."""
    return plan_train(
        model("smollm2-135m"), H100, 2048, tokens=2e12, context=context, batch_tokens=2048 * context, layout=layout,
        assume=assume,
    )  # fmt: skip


def test_a_tiny_model_on_many_chips_is_not_as_fast_as_its_flops() -> None:
    found, free = tiny_on_many(), tiny_on_many(train_launch=0)
    assert found.step_parts["launch"] > 0.1 * found.step_parts["products"]
    assert found.gpu_hours > 1.05 * free.gpu_hours
    assert free.step_parts["launch"] == 0
    explained = {line.name: line for line in found.sheet.lines}["step, launch"]
    assert explained.value == found.step_parts["launch"]
    assert "train_launch" in explained.formula
    assert found.sheet.used["train_launch"].source
    layers = len(model("smollm2-135m").layers)  # a micro-batch takes each layer's launches at least
    assert found.step_seconds > layers * found.sheet.used["train_launch"].value


def test_launching_binds_where_sequences_are_short() -> None:
    found = tiny_on_many(512, Layout(dp=2048))
    assert found.binds == "launch"
    assert found.step_parts["launch"] > found.step_parts["products"]
    assert found.gpu_hours > 2 * tiny_on_many(512, Layout(dp=2048), train_launch=0).gpu_hours


def test_a_search_takes_larger_micro_batches_where_launching_binds() -> None:
    options: dict[str, Any] = {"tokens": 1e11, "context": 2048, "batch_tokens": 512 * 2048}
    found = plan_train(model("smollm2-135m"), H100, 8, **options)
    assert found.layout.micro_batch > 1
    alone = plan_train(model("smollm2-135m"), H100, 8, layout=replace(found.layout, micro_batch=1), **options)
    assert alone.step_parts["launch"] > 0
    assert found.step_seconds < alone.step_seconds


def test_the_choices_of_recomputation_trade_memory_for_time() -> None:
    none, pointwise, full = found = plan().recompute
    assert [x.layout.recompute for x in found] == ["none", "pointwise", "full"]
    assert none.memory.activations > pointwise.memory.activations > full.memory.activations
    assert none.step.seconds < pointwise.step.seconds < full.step.seconds
    chosen = plan()
    assert chosen.layout in [x.layout for x in found]
    scores = plan(layout=Layout(tp=8, dp=8, flash=False, recompute="full")).recompute
    assert [x.layout.recompute for x in scores] == ["none", "selective", "pointwise", "full"]
    rows = plan().to_json()["recompute_choices"]
    assert [row["fits"] for row in rows] == [x.memory.total <= chosen.memory_capacity for x in found]


def test_dualpipe_hides_expert_traffic() -> None:
    numbers, policy = moe(hidden=4096, width=2048, layers=8), PRECISIONS["bf16-mixed"]
    exposed = {}
    for schedule in ("1f1b", "dualpipe"):
        layout = Layout(pp=2, dp=16, ep=16, schedule=schedule)  # type: ignore[arg-type]
        stages = on_chips(split(numbers, 2), layout)
        memory = training_memory(numbers, stages, layout, policy, context=4096, micro_batches=8)
        step = step_time(numbers, stages, layout, policy, speeds(), memory=memory, context=4096, micro_batches=8)
        exposed[schedule] = dict(step.exposed)["expert"]
    assert exposed["dualpipe"] < exposed["1f1b"]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(
        ("train_matmul", "train_attention", "train_bandwidth", "train_exposed_tensor", "train_exposed_other")
    )
)
def test_a_better_share_never_makes_a_step_longer(name: str) -> None:
    layout = Layout(tp=4, dp=16)
    low, high = assumptions()[name].low, assumptions()[name].high
    times = [plan(layout=layout, assume={name: value}).step_seconds for value in (low, high)]
    assert (times[0] <= times[1]) if "exposed" in name else (times[0] >= times[1])


def test_twice_the_chips_take_at_least_half_the_time() -> None:
    one, two = (
        plan_train(model("llama-3.1-8b"), H100, n, tokens=1e12, context=8192, batch_tokens=1024 * 8192)
        for n in (64, 128)
    )
    assert one.seconds / 2 <= two.seconds < one.seconds


# ---- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tokens": 0}, r"tokens is 0, it must be a positive number"),
        ({"tokens": -1e12}, r"tokens is -1e\+12, it must be a positive number"),
        ({"tokens": math.inf}, r"tokens is inf, it must be a positive number"),
        ({"tokens": math.nan}, r"tokens is nan"),
        ({"tokens": 1e20}, r"tokens is 1e\+20: there is no such amount of text"),
        ({"tokens": 100}, r"tokens is 100, less than one sequence of 8192"),
        ({"context": 0}, r"context is 0, it must be a whole number of at least 1"),
        ({"context": 4096.5}, r"context is 4096.5, it must be a whole number"),
        ({"context": 1 << 20}, r"llama-3.1-8b takes 131072 tokens of context, not 1048576"),
        ({"batch_tokens": -1}, r"batch_tokens is -1, it must be a positive number"),
        ({"batch_tokens": 100_000}, r"100,000 tokens is no whole number of sequences of 8192"),
        ({"precision": "fp4"}, r"There is no precision 'fp4'"),
        ({"price_per_hour": -2.0}, r"price_per_hour is -2, it must be a positive number"),
        ({"mtp": True}, r"llama-3.1-8b has no multi-token-prediction module to train"),
        ({"assume": {"mfuu": 0.4}}, r"'mfuu' is no assumption of the planner \(did you mean 'mfu'\?\)"),
        ({"assume": {"mfu": 1.5}}, r"'mfu' is 1.5, it is a share of the peak"),
        ({"assume": {"train_matmul": 0.0}}, r"'train_matmul' is 0, it is a share: above 0, at most 1"),
        ({"assume": {"train_goodput": 2.0}}, r"'train_goodput' is 2, it is a share"),
        ({"assume": {"train_exposed_tensor": 1.1}}, r"'train_exposed_tensor' is 1.1, it is a share: at least 0, at most 1"),
        ({"assume": {"train_memory_use": 0.0}}, r"'train_memory_use' is 0, it is a share"),
        ({"layout": Layout(dp=32)}, r"has 32 chips .*, the plan has 64"),
        ({"layout": Layout(dp=64, micro_batch=7)}, r"A batch of 512 sequences does not divide over dp = 64"),
        ({"layout": Layout(dp=64, zero=0)}, r"needs \d+\.\d GiB of a chip's 70.1 GiB \(activations .*\): recompute or shard more; .* chips would do"),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        plan(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, -8, 1.5, True])
def test_a_count_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(RequestError, match=r"count is .*, it must be a whole number of at least 1"):
        plan_train(model("llama-3.1-8b"), H100, count, tokens=1e12)


def test_absurd_counts_and_hours_are_refused() -> None:
    with pytest.raises(RequestError, match=r"count is 100,000,000: no cluster has so many chips"):
        plan_train(model("llama-3.1-8b"), H100, 100_000_000, tokens=1e12)
    for hours in (0.0, -1.0, math.inf):
        with pytest.raises(RequestError, match="gpu_hours is"):
            cost_of_hours(H100, hours)


def test_a_format_that_the_chip_lacks_is_refused() -> None:
    with pytest.raises(RequestError, match=r"A100 80GB SXM has no speed in 'fp8'"):
        plan_train(model("llama-3.1-8b"), chip("a100"), 8, tokens=1e12, precision="fp8-mixed")
