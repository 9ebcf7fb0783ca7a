"""Layouts: what divides, how a pipeline is split and filled (against a simulated schedule), and what a search finds (against brute force)."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.shapes import gpt, llama, moe

from trilaw.core.errors import RequestError
from trilaw.core.numbers import Numbers
from trilaw.planner.hardware import chip
from trilaw.planner.layout import Layout, candidates, check, divisors, on_chips, split
from trilaw.planner.memory import GIB, PRECISIONS
from trilaw.planner.models import model
from trilaw.planner.sheet import Sheet
from trilaw.planner.train_search import RECOMPUTE, Run, search, smallest_count, whole_sequences


def play_1f1b(stages: int, micro_batches: int, forward: int, backward: int) -> tuple[int, list[int]]:
    """A pipeline played event by event: its duration, and the most micro-batches each stage holds between forward and backward."""
    orders = []
    for stage in range(stages):
        warm = min(stages - 1 - stage, micro_batches)
        steady = [x for i in range(micro_batches - warm) for x in (("F", warm + i), ("B", i))]
        orders.append([("F", i) for i in range(warm)] + steady + [("B", micro_batches - warm + i) for i in range(warm)])
    done: dict[tuple[str, int, int], int] = {}
    clock, held, most, position = [0] * stages, [0] * stages, [0] * stages, [0] * stages
    while any(position[s] < len(orders[s]) for s in range(stages)):
        for s in range(stages):
            if position[s] == len(orders[s]):
                continue
            kind, i = orders[s][position[s]]
            before = s - 1 if kind == "F" else s + 1
            ready = 0 if before in (-1, stages) else done.get((kind, before, i))
            if ready is None:
                continue
            clock[s] = max(clock[s], ready) + (forward if kind == "F" else backward)
            done[kind, s, i] = clock[s]
            held[s] += 1 if kind == "F" else -1
            most[s] = max(most[s], held[s])
            position[s] += 1
    return max(clock), most


@settings(max_examples=40, deadline=None)
@given(p=st.integers(2, 6), m=st.integers(1, 12))
def test_1f1b_holds_and_waits_as_a_played_pipeline_does(p: int, m: int) -> None:
    duration, most = play_1f1b(p, m, 1, 2)
    layout = Layout(pp=p)
    assert [layout.in_flight(stage, m) for stage in range(p)] == most
    assert duration == (m + p - 1) * 3  # m x (F + B) and a bubble of (p - 1) (F + B)


def test_in_flight_of_other_schedules() -> None:
    v3 = Layout(pp=8, interleave=3, schedule="interleaved")
    assert v3.in_flight(0, 64) == pytest.approx(8 * (1 + 7 / (8 * 3)))  # arXiv 2205.05198, section 4.2.3
    assert Layout(pp=8, schedule="gpipe").in_flight(3, 64) == 64
    assert Layout(pp=8, schedule="zb1p").in_flight(7, 64) == 8
    assert Layout(pp=8, schedule="dualpipe").in_flight(7, 64) == 9
    assert Layout(pp=8, schedule="dualpipe").in_flight(7, 2) == 2


@settings(max_examples=60, deadline=None)
@given(layers=st.integers(1, 40), pp=st.integers(1, 12), vocab=st.sampled_from((0, 1000, 100_000)))
def test_a_split_keeps_every_layer_and_is_even(layers: int, pp: int, vocab: int) -> None:
    numbers = llama(layers=layers, vocab=vocab)
    if pp > layers:
        with pytest.raises(RequestError, match=f"has {layers} layers, too few for {pp} pipeline stages"):
            split(numbers, pp)
        return
    stages = split(numbers, pp)
    counts = [stage.count for stage in stages]
    assert len(stages) == pp
    assert sum(counts) == layers
    assert max(counts[:-1], default=0) - min(counts[:-1], default=0) <= 1
    assert [stage.embedding for stage in stages] == [True] + [False] * (pp - 1)
    assert [stage.heads for stage in stages] == [0] * (pp - 1) + [1]
    # no other number of layers on the last stage makes the slowest one faster
    work, head = numbers.layers[0].products(numbers.hidden), numbers.hidden * numbers.vocab

    def slowest(last: int) -> float:
        return max(-(-(layers - last) // max(pp - 1, 1)) * work, last * work + head)

    options = [n for n in range(layers + 1) if layers - n >= pp - 1] if pp > 1 else [layers]
    assert slowest(counts[-1]) == min(slowest(n) for n in options)


def test_v3_puts_its_head_and_its_module_on_a_light_last_stage() -> None:
    stages = split(model("deepseek-v3"), 16, mtp=True)
    assert sum(stage.count for stage in stages) == 62  # 61 layers and the block of the module
    assert stages[-1].heads == 2
    # two heads of 0.93B and the module's 0.7B weigh more than four layers of 0.58B, so no layer stands beside them
    assert [stage.count for stage in stages] == [4] * 14 + [5, 1]


def test_equal_stages_are_one_object_and_dualpipe_pairs_mirror_images() -> None:
    stages = split(llama(layers=16), 8)
    assert len({id(stage) for stage in stages[1:-1]}) == 1
    paired = on_chips(stages, Layout(pp=8, schedule="dualpipe"))
    assert paired[0] is paired[7]
    assert paired[0].embedding
    assert paired[0].heads == 1
    assert sum(stage.dense for stage in paired) == 2 * sum(stage.dense for stage in stages)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tp": 3, "dp": 1}, r"8 attention heads of llama do not divide over tp = 3"),
    ({"tp": 0}, r"'tp' must be a whole number of at least 1, it is 0"),
    ({"dp": 2.0}, r"'dp' must be a whole number of at least 1, it is 2.0"),
    ({"micro_batch": True}, r"'micro_batch' must be a whole number of at least 1, it is True"),
    ({"zero": 4}, r"'zero' is 0, 1, 2 or 3, it is 4"),
    ({"recompute": "all"}, r"'recompute' cannot be 'all'"),
    ({"schedule": "1F1B"}, r"'schedule' cannot be '1F1B'"),
    ({"interleave": 2, "pp": 2}, r"'1f1b' does not go with interleave = 2"),
    ({"schedule": "interleaved", "pp": 2}, r"'interleaved' does not go with interleave = 1"),
    ({"schedule": "dualpipe", "pp": 3}, r"'dualpipe' needs an even number of stages, it is 3"),
    ({"schedule": "gpipe"}, r"'gpipe' needs a pipeline of at least 2 stages"),
    ({"pp": 5}, r"llama has 4 layers, too few for 5 pipeline chunks"),
    ({"ep": 2, "dp": 2}, r"llama has no experts to spread over ep = 2"),
    ({"cp": 3}, r"A context of 1024 tokens does not divide over 3 chips"),
    ({"dp": 3}, r"A batch of 64 sequences does not divide over dp = 3 pipelines in micro-batches of 1"),
    ({"dp": 2, "micro_batch": 3}, r"A batch of 64 sequences .* in micro-batches of 3"),
    ({"cp": 2, "flash": False}, r"with flash attention only"),
    ({"pp": 2, "schedule": "dualpipe", "dp": 64}, r"'dualpipe' starts half of the micro-batches at each end, and 1 are odd"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), BAD)
def test_what_does_not_divide_is_refused_in_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    layout = Layout(**fields)
    count = layout.chips if all(isinstance(x, int) for x in fields.values() if not isinstance(x, str)) else 2
    with pytest.raises(RequestError, match=sentence):
        check(layout, llama(), int(count), context=1024, sequences=64)


def test_more_that_does_not_divide() -> None:
    with pytest.raises(
        RequestError, match=r"has 8 chips \(tp x cp x pp x dp\), the plan has 16: change 'dp' or the count"
    ):
        check(Layout(dp=8), llama(), 16, context=1024, sequences=64)
    with pytest.raises(RequestError, match=r"16 experts of moe do not divide over ep = 3"):
        check(Layout(dp=3, ep=3), moe(), 3, context=1024, sequences=63)
    with pytest.raises(RequestError, match=r"ep = 4 does not divide the 2 chips of a stage"):
        check(Layout(dp=2, ep=4), moe(), 2, context=1024, sequences=64)
    with pytest.raises(RequestError, match=r"Experts with tensor parallelism need sequence_parallel"):
        check(Layout(tp=2, sequence_parallel=False), moe(), 2, context=1024, sequences=64)
    with pytest.raises(RequestError, match=r"3 key-value heads of llama and tp = 2 do not divide either way"):
        check(Layout(tp=2), llama(hidden=384, heads=6, kv_heads=3), 2, context=1024, sequences=64)
    with pytest.raises(RequestError, match=r"feed-forward width 1537 of llama does not divide over tp = 2"):
        check(Layout(tp=2), llama(ffn=1537), 2, context=1024, sequences=64)


def test_key_value_heads_may_be_copied() -> None:
    check(Layout(tp=8), llama(), 8, context=1024, sequences=64)  # 2 key-value heads on 8 chips


def test_a_layout_in_words() -> None:
    assert str(Layout(tp=8, pp=16, dp=64, interleave=7, schedule="interleaved")) == (
        "TP8 PP16 DP64 ZeRO-1 micro-batch 1 interleaved x7"
    )
    assert str(Layout()) == "one chip micro-batch 1"
    assert "without flash attention" in str(Layout(flash=False))
    assert Layout(tp=2).to_json()["tp"] == 2


@pytest.mark.parametrize("numbers", [llama(), moe(), gpt(layers=6)])
def test_candidates_are_all_ways_to_divide_the_chips_and_nothing_else(numbers: Numbers) -> None:
    count, sequences, context = 24, 48, 4096
    found = list(candidates(numbers, count, 8, context=context, sequences=sequences))
    for layout in found:
        check(layout, numbers, count, context=context, sequences=sequences)
    brute = set()
    for tp, pp, dp, ep in itertools.product(range(1, 9), range(1, 25), range(1, 25), range(1, 17)):
        if tp * pp * dp != count:
            continue
        try:
            check(Layout(tp=tp, pp=pp, dp=dp, ep=ep), numbers, count, context=context, sequences=sequences)
        except RequestError:
            continue
        brute.add((tp, pp, dp, ep))
    assert {(x.tp, x.pp, x.dp, x.ep) for x in found} == brute
    assert len(found) == len(set(found))


def test_interleaving_is_also_tried_where_layers_do_not_divide() -> None:
    """Llama 3.1 405B has 126 layers; Meta trained it over 16 stages with 16 micro-batches, interleaved (arXiv 2407.21783, table 4)."""
    best = search(model("llama-3.1-405b"), chip("h100"), 16_384, batch_tokens=2048 * 8192, context=8192, keep=1)[0]
    assert (best.layout.pp, best.layout.schedule, best.layout.interleave) == (16, "interleaved", 7)
    even = [x for x in candidates(gpt(layers=12), 4, 8, context=2048, sequences=8) if x.pp == 2 and x.interleave > 1]
    assert {x.interleave for x in even} == {3, 6}, "6 and 3 chunks a stage divide 12 layers; 4 and 5 do not"


def test_divisors() -> None:
    assert divisors(36) == [d for d in range(1, 37) if 36 % d == 0]
    assert divisors(1) == [1]


def test_a_search_finds_the_fastest_that_fits() -> None:
    numbers, part = model("llama-3.1-8b"), chip("h100")
    plans = search(numbers, part, 8, batch_tokens=64 * 8192, context=8192, keep=10_000)
    run = Run(numbers, part, PRECISIONS["bf16-mixed"], Sheet(), context=8192)
    times = []
    for layout in candidates(numbers, 8, 8, context=8192, sequences=64):
        for recompute in RECOMPUTE:  # not only the least that fits
            plan = run.plan(replace(layout, recompute=recompute), 64)
            if plan.memory.total <= run.capacity:
                times.append(plan.step.seconds)
    assert plans[0].step.seconds == pytest.approx(min(times))
    assert [plan.step.seconds for plan in plans] == sorted(plan.step.seconds for plan in plans)
    assert all(plan.memory.total <= run.capacity for plan in plans)


@pytest.mark.parametrize(
    ("name", "part", "precision", "batch", "context"),
    [
        ("deepseek-v3", "h800", "fp8-v3", 15360 * 4096, 4096),
        ("qwen3-235b-a22b", "h100", "bf16-mixed", 4096 * 4096, 4096),
        ("llama-3.1-405b", "h100", "bf16-mixed", 2048 * 8192, 8192),
        ("llama-3.1-405b", "gb200", "bf16-mixed", 128 * 131072, 131072),
    ],
)
def test_2048_chips_are_searched_in_seconds(name: str, part: str, precision: str, batch: int, context: int) -> None:
    start = time.process_time()
    plans = search(model(name), chip(part), 2048, batch_tokens=batch, context=context, precision=precision)
    assert time.process_time() - start < 5
    assert plans[0].layout.chips == 2048


def test_a_model_that_does_not_fit_says_how_many_chips_would_do() -> None:
    with pytest.raises(
        RequestError, match=r"does not fit on 8 H100 SXM at 4096 tokens: the least that any layout needs is"
    ) as caught:
        search(model("llama-3.1-405b"), chip("h100"), 8, batch_tokens=256 * 4096)
    needed = int(str(caught.value).split(";")[1].split()[0].replace(",", ""))
    numbers, part = model("llama-3.1-405b"), chip("h100")
    assert search(numbers, part, needed, batch_tokens=needed * 4096)
    run = Run(numbers, part, PRECISIONS["bf16-mixed"], Sheet(), context=4096)
    assert smallest_count(run) == needed
    for fewer in (needed // 2, needed * 2 // 3):
        with pytest.raises(RequestError, match="does not fit"):
            search(numbers, part, fewer, batch_tokens=fewer * 8 * 4096)
    assert numbers.parameters() * 18 < needed * run.capacity  # no layout can do with less than all states together


def test_a_batch_that_divides_over_nothing_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"No layout spreads llama-3.1-8b and .* 1 sequences evenly over 37 chips: .* multiple of 37"
    ):
        search(
            model("llama-3.1-8b"), chip("h100"), 37, batch_tokens=8192, context=8192
        )  # 37 stages are more than its layers


def test_a_chip_without_a_network_is_refused_beyond_its_domain() -> None:
    lone = replace(chip("h100"), scale_out_bandwidth=None, scale_out_effective=None)
    with pytest.raises(RequestError, match=r"16 H100 SXM must talk over a network, and no source gives"):
        search(model("llama-3.1-8b"), lone, 16, batch_tokens=64 * 4096)
    assert search(model("llama-3.1-8b"), lone, 8, batch_tokens=64 * 4096)


def test_batches_are_whole_sequences() -> None:
    assert whole_sequences(8 * 4096, 4096) == 8
    with pytest.raises(RequestError, match=r"10,000 tokens is no whole number of sequences of 4096: take 8,192"):
        whole_sequences(10_000, 4096)
    with pytest.raises(RequestError, match=r"take 4,096"):
        whole_sequences(100, 4096)


def test_long_contexts_are_split_over_chips() -> None:
    plans = search(model("llama-3.1-8b"), chip("h100"), 64, batch_tokens=8 * 131072, context=131072, keep=1000)
    assert any(plan.layout.cp > 1 for plan in plans)
    assert plans[0].memory.total / GIB < 74.5
