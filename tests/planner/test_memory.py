"""Memory of training against the closed formulas of arXiv 2205.05198, published GiB, the partition of ZeRO, and counts by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.shapes import gpt, llama, moe

from trilaw.core.errors import RequestError
from trilaw.core.numbers import Numbers
from trilaw.planner.layout import Layout, on_chips, split
from trilaw.planner.memory import GIB, PRECISIONS, Memory, layer_activations, precision, training_memory
from trilaw.planner.models import model

MIXED = PRECISIONS["bf16-mixed"]


def held(numbers: Numbers, layout: Layout, policy: str = "bf16-mixed", **options: Any) -> Memory:
    stages = on_chips(split(numbers, layout.pp, mtp=options.pop("mtp", False)), layout)
    return training_memory(
        numbers, stages, layout, precision(policy), **({"context": 256, "micro_batches": 64} | options)
    )


@settings(max_examples=60, deadline=None)
@given(
    heads=st.sampled_from((8, 16, 32)), width=st.sampled_from((64, 80, 128)), s=st.sampled_from((128, 512, 2048)),
    b=st.integers(1, 4), t=st.sampled_from((1, 2, 4, 8)),
)  # fmt: skip
def test_the_gpt_layer_is_the_published_equations(heads: int, width: int, s: int, b: int, t: int) -> None:
    h = heads * width
    layer = gpt(hidden=h, heads=heads).layers[0]

    def bytes_of(**fields: Any) -> float:
        layout = Layout(tp=t, micro_batch=b, flash=False, zero=0, **fields)
        return layer_activations(layer, h, layout, s, MIXED, dropout=True) * s * b

    sbh, scores = s * b * h, 5 * heads * s / h
    assert bytes_of(sequence_parallel=False) == pytest.approx(
        sbh * (10 + 24 / t + scores / t)
    )  # equation 2; 1 with t = 1
    assert bytes_of() == pytest.approx(sbh / t * (34 + scores))  # equation 4
    assert bytes_of(recompute="selective") == pytest.approx(34 * sbh / t)  # equation 6, a layer
    assert bytes_of(recompute="selective", sequence_parallel=False) == pytest.approx(sbh * (10 + 24 / t))
    assert bytes_of(recompute="full", sequence_parallel=False) == pytest.approx(2 * sbh)


@pytest.mark.parametrize(
    ("name", "states", "plain", "selective"),
    [
        ("megatron-22b", 45.56, 59.25, 9.56),
        ("megatron-175b", 45.56, 66.84, 12.35),
        ("megatron-530b", 31.64, 114.0, 23.08),
        ("megatron-1t", 32.96, 131.3, 26.56),
    ],
)
def test_figure_1_of_the_paper_within_3_percent(name: str, states: float, plain: float, selective: float) -> None:
    pipeline = {
        "megatron-22b": Layout(tp=8, micro_batch=4),
        "megatron-175b": Layout(tp=8, pp=8, interleave=3, schedule="interleaved"),
        "megatron-530b": Layout(tp=8, pp=35, interleave=3, schedule="interleaved"),
        "megatron-1t": Layout(tp=8, pp=64),
    }[name]
    numbers = replace(model(name), vocab=0, positions=0)  # the figure leaves embedding and head out
    base = replace(pipeline, zero=0, flash=False)
    options: dict[str, Any] = {"context": 2048, "micro_batches": 512, "dropout": True, "stage": 0}
    assert held(numbers, base, **options).states / GIB == pytest.approx(states, rel=0.03)
    without = held(numbers, replace(base, sequence_parallel=False), **options)
    assert without.activations / GIB == pytest.approx(plain, rel=0.03)
    with_both = held(numbers, replace(base, recompute="selective"), **options)
    assert with_both.activations / GIB == pytest.approx(selective, rel=0.03)


@pytest.mark.parametrize(
    ("name", "layout", "sequence", "selective", "both", "full"),
    [
        ("megatron-22b", Layout(tp=8, micro_batch=4), 66.84, 49.42, 16.18, 7.64),
        ("megatron-175b", Layout(tp=8, pp=8), 62.04, 56.53, 18.49, 8.71),
        ("megatron-530b", Layout(tp=8, pp=35), 58.31, 62.04, 20.27, 9.42),
        ("megatron-1t", Layout(tp=8, pp=64), 58.31, 62.04, 20.27, 9.42),
    ],
)
def test_figure_7_of_the_paper_in_percent_of_plain_tensor_parallelism(
    name: str, layout: Layout, sequence: float, selective: float, both: float, full: float
) -> None:
    numbers, base = model(name), replace(layout, zero=0, flash=False, sequence_parallel=False)

    def share(**fields: Any) -> float:
        options: dict[str, Any] = {"context": 2048, "micro_batches": 512, "dropout": True, "stage": 0}
        plain = held(numbers, base, **options).activations
        return 100 * held(numbers, replace(base, **fields), **options).activations / plain

    assert share(sequence_parallel=True) == pytest.approx(sequence, rel=0.01)
    assert share(recompute="selective") == pytest.approx(selective, rel=0.01)
    assert share(sequence_parallel=True, recompute="selective") == pytest.approx(both, rel=0.01)
    assert share(recompute="full") == pytest.approx(full, rel=0.015)  # the figure was read off


def test_a_gated_layer_with_grouped_queries_counted_by_hand() -> None:
    # h 512, 8 query heads and 2 key-value heads of 64, feed-forward 1536; BF16, flash attention, no tensor parallelism
    norms, inputs = 2 * 2 * 512, 2 * 2 * 512
    attention = 2 * (512 + 128 + 128) + 2 * 512 + 4 * 8  # q, k, v; the output projection's input; one FP32 a head
    feed_forward = 2 * (2 * 1536) + 2 * 1536
    kept = layer_activations(llama().layers[0], 512, Layout(), 4096, MIXED)
    assert kept == norms + inputs + attention + feed_forward
    pointwise = layer_activations(llama().layers[0], 512, Layout(recompute="pointwise"), 4096, MIXED)
    assert pointwise == norms + attention + 2 * (
        2 * 1536
    )  # norm outputs and the product of the gate are computed again


def test_an_expert_layer_counted_by_hand() -> None:
    layer = moe(shared=1).layers[0]
    dispatched, outputs, inner = 2 * 512 * 2, 2 * 512 * 2, 2 * 3 * 256 * 2
    dense = layer_activations(llama(ffn=0).layers[0], 512, Layout(), 4096, MIXED)
    assert layer_activations(layer, 512, Layout(), 4096, MIXED) == dense + dispatched + outputs + inner + 2 * 3 * 256


def test_latent_attention_recomputed_keeps_its_latents_only() -> None:
    layer = model("deepseek-v3").layers[-1]
    kept = {
        r: layer_activations(layer, 7168, Layout(recompute=r), 4096, PRECISIONS["fp8-v3"])
        for r in ("none", "pointwise")
    }
    # q 128 x 192, k 128 x 192, v 128 x 128 in BF16; both latents after their norms, norm outputs and products of gates in FP8, expert outputs in BF16
    expanded = 2 * 128 * (192 + 192 + 128)
    gates = 9 * 2048 * (2 * 2 + 1 - 2)  # SwiGLU's two inputs in FP8 instead of BF16, and its output no more
    assert kept["none"] - kept["pointwise"] == expanded + (1536 + 512) + 2 * 7168 + gates + 8 * 7168 * 2


@pytest.mark.parametrize(("name", "size"), [("bf16-mixed", 18), ("fp32", 16), ("pure-bf16", 8), ("fp8-mixed", 18)])
def test_bytes_a_parameter_without_sharding(name: str, size: float) -> None:
    numbers = llama()
    assert held(numbers, Layout(zero=0), name).states == size * numbers.parameters()
    assert PRECISIONS[name].state == size


def test_v3_states_by_hand() -> None:
    # FP8 weight 1 (tables 2), FP32 gradient 4, FP32 master 4, BF16 moments 4 (arXiv 2412.19437, section 3.3)
    numbers = llama()
    tables = numbers.embedding_parameters()
    assert held(numbers, Layout(zero=0), "fp8-v3").states == 13 * numbers.parameters() + tables


@settings(max_examples=40, deadline=None)
@given(dp=st.sampled_from((1, 2, 4, 16)), name=st.sampled_from(sorted(PRECISIONS)))
def test_zero_shards_what_its_stages_say(dp: int, name: str) -> None:
    numbers, policy = llama(), PRECISIONS[name]
    memory = [held(numbers, Layout(dp=dp, zero=zero), name) for zero in range(4)]
    assert memory[1].master + memory[1].moments == pytest.approx((memory[0].master + memory[0].moments) / dp)
    assert memory[2].gradients == pytest.approx(memory[0].gradients / dp)
    assert memory[3].weights == pytest.approx(memory[0].weights / dp)
    assert memory[3].states * dp == pytest.approx(memory[0].states)  # nothing is lost or doubled
    assert memory[1].weights == memory[0].weights
    assert memory[1].gradients == memory[0].gradients
    assert memory[0].states == pytest.approx(
        policy.state * numbers.parameters() + (policy.wide - policy.weight) * numbers.embedding_parameters()
    )


@settings(max_examples=40, deadline=None)
@given(
    tp=st.sampled_from((1, 2)), dp=st.sampled_from((1, 2, 4)), ep=st.sampled_from((1, 2, 4, 8)),
    pp=st.sampled_from((1, 2, 4)), zero=st.integers(0, 3),
)  # fmt: skip
def test_all_chips_together_hold_every_expert_once_per_replica(tp: int, dp: int, ep: int, pp: int, zero: int) -> None:
    if tp * dp % ep:
        return
    numbers, layout = moe(), Layout(tp=tp, dp=dp, ep=ep, pp=pp, zero=zero)
    stages = split(numbers, pp)
    weights = sum(held(numbers, layout, stage=i).weights * tp * dp for i in range(pp)) / 2  # BF16
    replicas = {0: dp, 3: 1}.get(zero, dp)
    experts = {0: tp * dp // ep, 3: 1}.get(zero, tp * dp // ep)
    rest = numbers.parameters() - numbers.expert_parameters()
    assert weights == pytest.approx(replicas * rest + experts * numbers.expert_parameters())
    assert sum(stage.dense + stage.routed + stage.tables for stage in stages) == numbers.parameters()


def test_a_tied_table_stands_on_both_ends_of_a_pipeline() -> None:
    numbers = gpt(vocab=1000)
    assert sum(stage.tables for stage in split(numbers, 4)) == 2 * 1000 * 1024
    assert sum(stage.tables for stage in split(numbers, 1)) == 1000 * 1024


def test_dualpipe_holds_two_stages_and_one_optimizer_of_both() -> None:
    numbers = llama(layers=8)
    one, two = held(numbers, Layout(pp=4), stage=1), held(numbers, Layout(pp=4, schedule="dualpipe"), stage=1)
    assert two.weights == 2 * one.weights
    assert two.gradients == 2 * one.gradients
    assert two.moments == one.moments
    assert two.activations == pytest.approx(
        one.activations / 3 * 5
    )  # p + 1 = 5 in flight, against p - 1 = 3 on stage 1


def test_v3_as_it_was_trained_fits_an_h800_and_without_recomputation_does_not() -> None:
    layout = Layout(pp=16, dp=128, ep=64, schedule="dualpipe", recompute="pointwise")
    options: dict[str, Any] = {"context": 4096, "micro_batches": 120, "mtp": True}
    assert 40 < held(model("deepseek-v3"), layout, "fp8-v3", **options).total / GIB < 74.5
    assert held(model("deepseek-v3"), replace(layout, recompute="none"), "fp8-v3", **options).total / GIB > 74.5


@settings(max_examples=40, deadline=None)
@given(
    tp=st.sampled_from((1, 2, 8)), pp=st.sampled_from((1, 2, 4)), flash=st.booleans(),
    name=st.sampled_from(("llama-3.1-8b", "deepseek-v3", "gpt-oss-20b", "gemma-3-4b")),
)  # fmt: skip
def test_more_recomputation_never_keeps_more(tp: int, pp: int, flash: bool, name: str) -> None:
    numbers = model(name)
    order = ("none", "selective", "pointwise", "full")
    kept = [
        held(numbers, Layout(tp=tp, pp=pp, flash=flash, recompute=r), context=4096).activations  # type: ignore[arg-type]
        for r in order
    ]
    assert kept == sorted(kept, reverse=True)
    assert all(value >= 0 for value in held(numbers, Layout(tp=tp, pp=pp), context=4096).parts().values())


def test_the_fullest_stage_is_the_one_reported() -> None:
    numbers, layout = llama(layers=8, vocab=200_000), Layout(pp=4, micro_batch=8)
    each = [held(numbers, layout, context=4096, stage=i) for i in range(4)]
    assert held(numbers, layout, context=4096) == max(each, key=lambda memory: memory.total)
    assert held(numbers, layout, context=4096).stage == 3  # its logits outweigh the first stage's micro-batches
    assert each[3].head == 4096 * 8 * (2 * 2 * 512 + 4 * 200_000)


def test_parts_add_up_and_have_stable_names() -> None:
    memory = held(llama(), Layout(dp=2, zero=3, recompute="full"))
    assert sum(memory.parts().values()) == pytest.approx(memory.total)
    assert set(memory.to_json()) == {
        "weights", "gradients", "master", "moments", "activations", "head", "workspace", "total", "stage",
    }  # fmt: skip
    assert memory.workspace > 0


def test_an_unknown_precision_names_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"no precision 'bf16-mix' \(did you mean 'bf16-mixed'\?\)"):
        precision("bf16-mix")
