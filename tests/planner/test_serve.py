from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.errors import RequestError
from trilaw.planner.economics import economics
from trilaw.planner.hardware import chip
from trilaw.planner.models import model
from trilaw.planner.roofline import Pass, expert_all_to_all, expert_decode_bound
from trilaw.planner.serve import plan_serve
from trilaw.planner.serve_layout import DEPLOYMENTS, ServeLayout, candidates, redundant_experts
from trilaw.planner.sheet import assumptions

LLAMA = model("llama-3.1-8b")
V3 = model("deepseek-v3")
H100 = chip("h100")
IDEAL = {
    "serve_matmul_bf16": 1.0,
    "serve_matmul_low": 1.0,
    "serve_bandwidth": 1.0,
    "serve_launch": 0.0,
    "serve_memory_use": 1.0,
    "serve_cache_slack": 0.0,
}


# The published bounds


def test_the_all_to_all_of_the_insights_paper():
    # arXiv 2505.09343: (1 + 2) B x 32 tokens x 9 experts x 7,000 / 50 GB/s
    assert expert_all_to_all(32, 9, 7000, 50e9) == pytest.approx(120.96e-6, rel=1e-12)
    assert expert_decode_bound(1, 32, 9, 7000, 50e9) == pytest.approx(241.92e-6, rel=1e-12)
    assert expert_decode_bound(61, 32, 9, 7000, 50e9) == pytest.approx(14.76e-3, abs=5e-6)
    assert 1 / expert_decode_bound(61, 32, 9, 7000, 50e9) == pytest.approx(67.8, abs=0.1)
    # the NVL72's 900 GB/s
    assert expert_all_to_all(32, 9, 7000, 900e9) == pytest.approx(6.72e-6, rel=1e-12)
    assert expert_decode_bound(61, 32, 9, 7000, 900e9) == pytest.approx(0.82e-3, abs=1e-6)
    assert expert_all_to_all(32, 9, 7168, 50e9) == pytest.approx(120.96e-6 * 7168 / 7000)


def test_the_all_to_all_of_the_plan_is_the_papers():
    # 64 tokens a chip of FP8 weights over the network: the plan's link time is the bound with the model's own hidden size and layers.
    layout = ServeLayout(tensor=1, expert=256, redundant=0)
    plan = plan_serve(
        V3, chip("h800"), 256, prompt=1, response=2, context=2, concurrency=64 * 256, weight_bits=8, layout=layout
    )
    # 8 of the paper's 9 experts are routed (the shared one is on every chip here), 255 of 256 of them elsewhere, 58 layers have experts
    assert plan.decode.expert_link == pytest.approx(
        expert_decode_bound(58, 32, 8 * 255 / 256, 7168, 40e9), rel=1e-12
    )  # 40 GB/s: what an adapter of 50 reaches


@pytest.mark.parametrize("argument", ["tokens", "experts", "hidden", "bandwidth"])
def test_an_all_to_all_of_nothing_is_refused(argument):
    arguments = {"tokens": 32, "experts": 9, "hidden": 7000, "bandwidth": 50e9} | {argument: 0}
    with pytest.raises(RequestError, match=f"{argument} is 0, an all-to-all needs a positive number"):
        expert_all_to_all(**arguments)


def test_the_published_deployments():
    by_name = {x.name: x for x in DEPLOYMENTS}
    assert {name: x.layout.chips for name, x in by_name.items()} == {
        "v3-prefill": 32, "v3-decode": 320, "production-prefill": 32, "production-decode": 144,
    }  # fmt: skip
    for deployment in DEPLOYMENTS:
        layout = deployment.layout
        assert layout.experts_per_chip(256) == deployment.routed  # 9 = 8 + 1, 1 with 64 redundant or shared, 9, 2
        assert layout.redundant == redundant_experts(256, layout.expert, domain=8)
    assert (by_name["v3-prefill"].layout.groups, by_name["v3-decode"].layout.groups) == (8, 80)
    assert 32 * 9 == 144 * 2 == 256 + 32
    assert redundant_experts(256, 8, domain=8) == 0
    assert redundant_experts(256, 72, domain=8) == 32  # SGLang's 288 slots


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 512), st.integers(1, 300), st.sampled_from([1, 8, 72]))
def test_redundant_experts_fill_every_chip_equally(experts, chips, domain):
    copies = redundant_experts(experts, chips, domain)
    assert (experts + copies) % chips == 0
    least = experts // 8 if chips > domain else 0
    assert least <= copies < least + chips


# The roofline


def a_pass(**changes: float) -> Pass:
    fields = dict.fromkeys((f.name for f in dataclasses.fields(Pass)), 0.0) | {"balance": 1.0}
    return Pass(**(fields | changes))


def test_a_pass_adds_kinds_of_work_and_takes_the_slower_resource_of_each():
    p = a_pass(matmul_compute=3.0, matmul_memory=1.0, attention_compute=1.0, attention_memory=2.0)
    assert (p.seconds, p.binds) == (5.0, "compute")
    assert a_pass(matmul_compute=1.0, matmul_memory=3.0, attention_memory=1.0).binds == "memory"
    assert a_pass(matmul_compute=1.0, tensor_link=3.0).binds == "link"
    assert a_pass(matmul_compute=1.0, launch=3.0).binds == "launch"


def test_overlap_hides_the_shorter_part_and_imbalance_stretches():
    assert a_pass(matmul_compute=4.0, expert_link=3.0, hidden=1.0).seconds == 4.0
    assert a_pass(matmul_compute=4.0, expert_link=3.0, hidden=0.5).seconds == 5.5
    assert a_pass(matmul_compute=4.0, tensor_link=3.0, hidden=1.0).seconds == 7.0  # all-reduces cannot be hidden
    assert a_pass(matmul_compute=4.0, launch=1.0, balance=0.5).seconds == 9.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=7, max_size=7), st.floats(0, 1), st.floats(0.1, 1))
def test_a_pass_is_never_shorter_than_a_part(parts, hidden, balance):
    p = Pass(*parts, hidden, balance)
    longest = max(*parts)
    assert p.seconds >= longest * (1 - 1e-12)
    assert p.seconds <= (sum(parts)) / balance * (1 + 1e-12)


# A dense model against arithmetic done here


def test_a_step_of_a_dense_model_by_hand():
    batch, prompt, response = 40, 1000, 500
    plan = plan_serve(LLAMA, H100, 1, prompt=prompt, response=response, concurrency=batch, assume=IDEAL)
    hidden, ffn, layers, heads, kv, dim, vocab = 4096, 14336, 32, 32, 8, 128, 128256
    layer = hidden * (heads + 2 * kv) * dim + heads * dim * hidden + 3 * hidden * ffn
    weights = layers * (layer + 2 * hidden) + hidden + vocab * hidden  # read: without the embedding table
    context = prompt + response / 2
    peak, bandwidth = H100.rate("bf16"), H100.memory_bandwidth.value
    products = max(2 * batch * (layers * layer + vocab * hidden) / peak, 2 * weights / bandwidth)
    attention = max(
        4 * batch * (context + 1) * heads * dim * layers / peak, batch * context * 2 * layers * kv * dim * 2 / bandwidth
    )
    assert plan.decode.seconds == pytest.approx(products + attention, rel=1e-9)
    assert plan.decode_tokens_per_second == pytest.approx(batch / (products + attention), rel=1e-9)
    read = 2 * layers * layer + 4 * (prompt + 1) / 2 * heads * dim * layers  # FLOPs of a prompt token
    assert plan.prefill_tokens_per_second == pytest.approx(peak / read, rel=1e-6)
    # steady state: a request takes its prompt's time and its share of the steps
    a_request = prompt * read / peak + response * plan.decode.seconds / batch
    assert plan.requests_per_second == pytest.approx(1 / a_request, rel=1e-6)
    assert plan.output_tokens_per_second == pytest.approx(response / a_request, rel=1e-6)
    assert plan.seconds_per_output_token == pytest.approx(batch * a_request / response, rel=1e-6)
    assert plan.weights_bytes == 2 * LLAMA.parameters()
    assert plan.cache_bytes == 131_072 * context
    assert plan.binds == "memory"


def test_tensor_parallelism_cuts_work_and_pays_for_links():
    one = plan_serve(LLAMA, H100, 1, prompt=1000, response=500, concurrency=40, assume=IDEAL)
    four = plan_serve(
        LLAMA, H100, 4, prompt=1000, response=500, concurrency=40, assume=IDEAL, layout=ServeLayout(tensor=4)
    )
    assert four.decode.compute == pytest.approx(one.decode.compute / 4)
    # two all-reduces a layer, each value of 2 bytes twice around the ring less a chip's own part
    link = H100.scale_up_effective.value if H100.scale_up_effective else H100.need("scale_up_bandwidth") * 0.8
    assert four.decode.tensor_link == pytest.approx(32 * 2 * 2 * 3 / 4 * 40 * 4096 * 2 / link)
    assert four.weights_bytes == one.weights_bytes / 4
    assert four.memory_bytes == pytest.approx(one.memory_bytes / 4)


def test_key_value_heads_bound_how_far_a_cache_is_cut():
    narrow = plan_serve(model("qwen2.5-0.5b"), H100, 2, prompt=100, response=100, concurrency=8, layout=ServeLayout(2))
    assert narrow.memory_bytes - narrow.weights_bytes == pytest.approx(8 * narrow.cache_bytes / 2)  # 2 key-value heads
    latent = plan_serve(
        V3, chip("h200"), 8, prompt=100, response=100, concurrency=8, weight_bits=8, layout=ServeLayout(8, 8)
    )
    assert latent.memory_bytes - latent.weights_bytes == pytest.approx(
        8 * latent.cache_bytes
    )  # each chip holds the latent
    assert (
        plan_serve(V3, chip("h200"), 8, prompt=100, response=2, weight_bits=8, assume=IDEAL).cache_bytes == 70_272 * 101
    )


def test_the_largest_batch_fits_and_one_more_does_not():
    plan = plan_serve(LLAMA, H100, 1, prompt=1000, response=500, assume={"serve_memory_use": 0.9})
    room = 0.9 * H100.memory_bytes.value
    assert plan.memory_bytes <= room < plan.memory_bytes + plan.cache_bytes
    more = int(plan.batch) + 1
    with pytest.raises(RequestError, match=rf"{more} sequences do not fit at once on 1 H100 SXM; {plan.batch:g} do\."):
        plan_serve(LLAMA, H100, 1, prompt=1000, response=500, concurrency=more)


def test_a_latency_is_kept_by_the_largest_batch_that_keeps_it():
    target = 0.012
    layout = ServeLayout(tensor=1)
    plan = plan_serve(LLAMA, H100, 1, prompt=1000, response=500, target_latency=target, layout=layout)
    latency = {
        batch: plan_serve(
            LLAMA, H100, 1, prompt=1000, response=500, concurrency=batch, layout=layout
        ).seconds_per_output_token
        for batch in range(1, 200)
    }
    assert plan.batch == max(batch for batch, seconds in latency.items() if seconds <= target)
    assert all(a < b for a, b in itertools.pairwise(latency.values()))


def test_the_search_finds_the_best_of_all_layouts():
    options = {"prompt": 1000, "response": 2000, "weight_bits": 8, "target_latency": 0.05}
    best = plan_serve(V3, H100, 64, **options)
    rates = []
    for layout in candidates(V3, 64, 8):
        try:
            rates.append(plan_serve(V3, H100, 64, layout=layout, **options).requests_per_second)
        except RequestError:
            continue
    assert len(rates) > 5
    assert best.requests_per_second == max(rates)


# A group of samples, cached prompts, drafts


def test_samples_of_a_prompt_share_its_cache_and_its_pass():
    alone = plan_serve(LLAMA, H100, 1, prompt=2000, response=500, concurrency=64)
    group = plan_serve(LLAMA, H100, 1, prompt=2000, response=500, samples=16, concurrency=64)
    slack = 1 + assumptions()["serve_cache_slack"].value
    assert alone.cache_bytes == pytest.approx(131_072 * 2250 * slack)
    assert group.cache_bytes == pytest.approx(131_072 * (2000 / 16 + 250) * slack)
    assert group.output_tokens_per_second > alone.output_tokens_per_second
    assert group.input_tokens_per_second / group.output_tokens_per_second == pytest.approx(2000 / 16 / 500)
    # by default the cache is read by each sample; cascade attention reads the prompt's once
    assert group.decode.attention_memory == alone.decode.attention_memory
    once = plan_serve(
        LLAMA, H100, 1, prompt=2000, response=500, samples=16, concurrency=64, assume={"serve_prompt_reread": 0.0}
    )
    assert once.decode.attention_memory == pytest.approx(alone.decode.attention_memory * (2000 / 16 + 250) / 2250)


def test_cached_prompts_are_not_computed_again():
    plain = plan_serve(LLAMA, H100, 1, prompt=4000, response=100, concurrency=8)
    warm = plan_serve(LLAMA, H100, 1, prompt=4000, response=100, cached=0.75, concurrency=8)
    assert warm.seconds_to_first_token < plain.seconds_to_first_token / 3
    # the last quarter attends to more than the mean of the whole
    assert warm.prefill.attention_compute == pytest.approx(plain.prefill.attention_compute * 1.75, rel=1e-3)
    assert warm.requests_per_second > plain.requests_per_second


def test_drafted_tokens_cost_computing_and_save_reading():
    off = plan_serve(
        V3, chip("h200"), 8, prompt=1000, response=1000, concurrency=16, weight_bits=8, layout=ServeLayout(1, 8)
    )
    on = plan_serve(
        V3,
        chip("h200"),
        8,
        prompt=1000,
        response=1000,
        concurrency=16,
        weight_bits=8,
        layout=ServeLayout(1, 8),
        assume={"serve_draft_accept": 0.85},
    )
    assert on.decode.matmul_compute == pytest.approx(2 * off.decode.matmul_compute)
    assert on.decode.attention_memory == off.decode.attention_memory
    assert on.weights_bytes - off.weights_bytes == V3.parameters(mtp=True) - V3.parameters()
    assert off.seconds_per_output_token * 0.5 < on.seconds_per_output_token < off.seconds_per_output_token / 1.3


def test_experts_are_read_as_far_as_tokens_touch_them():
    one = plan_serve(
        V3,
        chip("h200"),
        8,
        prompt=100,
        response=100,
        concurrency=1,
        weight_bits=8,
        layout=ServeLayout(8, 8),
        assume=IDEAL,
    )
    many = plan_serve(
        V3,
        chip("h200"),
        8,
        prompt=100,
        response=100,
        concurrency=999,
        weight_bits=8,
        layout=ServeLayout(8, 8),
        assume=IDEAL,
    )
    rest = V3.parameters() - V3.expert_parameters() - 129_280 * 7168
    bandwidth = chip("h200").memory_bandwidth.value
    assert one.decode.matmul_memory == pytest.approx((rest + V3.expert_parameters() * 8 / 256) / 8 / bandwidth)
    assert many.decode.matmul_memory == pytest.approx((rest + V3.expert_parameters()) / 8 / bandwidth)


def test_reading_and_writing_apart():
    options = {"prompt": 4000, "response": 500, "weight_bits": 8, "layout": ServeLayout(1, 16, 32)}
    together = plan_serve(V3, H100, 96, concurrency=600, **options)
    apart = plan_serve(V3, H100, 96, concurrency=600, apart=True, **options)
    assert (together.replicas, together.decode_replicas) == (6, 6)
    assert apart.replicas == 6
    assert 1 <= apart.decode_replicas <= 5
    assert apart.seconds_per_output_token == pytest.approx(apart.decode.seconds)
    assert together.seconds_per_output_token > together.decode.seconds
    # neither side can do more than it does
    assert apart.requests_per_second <= apart.concurrency / apart.decode.seconds / 500 * (1 + 1e-9)
    read = apart.prefill_tokens_per_second * (6 - apart.decode_replicas) / 6 / 4000
    assert apart.requests_per_second <= read * (1 + 1e-9)


# Money and energy


def test_money_and_energy_add_up():
    plan = plan_serve(LLAMA, H100, 2, prompt=1000, response=500, concurrency=64, price_per_hour=3.0)
    an_hour = 3600 * (
        plan.input_tokens_per_second * plan.usd_per_million_input + plan.output_tokens_per_second * plan.usd_per_million_output
    ) / 1e6  # fmt: skip
    assert an_hour == pytest.approx(2 * 3.0, rel=1e-9)  # reading and writing together take exactly the rent
    everything = plan.input_tokens_per_second + plan.output_tokens_per_second
    assert plan.usd_per_million == pytest.approx(6.0 / 3600 / everything * 1e6)
    assert plan.usd(1e6, 0) == plan.usd_per_million_input
    assert plan.usd(0, 2e6) == pytest.approx(2 * plan.usd_per_million_output)
    watts = H100.need("all_in_watts")
    assert plan.kwh_per_million_output == pytest.approx(watts * plan.chip_seconds_per_output_token * 1e6 / 3.6e6)
    assert plan.tokens_per_second_per_chip == pytest.approx(everything / 2)


def test_a_chip_that_nobody_prices_costs_no_made_up_sum():
    plan = plan_serve(LLAMA, chip("h20"), 1, prompt=100, response=100)
    assert plan.price_per_hour is None
    assert plan.usd_per_million is None
    assert plan.usd(1, 1) is None
    assert plan_serve(LLAMA, chip("h800"), 1, prompt=100, response=100).price_per_hour == 2.0


def test_a_plan_shows_its_work():
    plan = plan_serve(LLAMA, H100, 1, prompt=100, response=100, assume={"serve_bandwidth": 0.6})
    data = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert data["sheet"]["lines"]
    used = {a["name"]: a for a in data["sheet"]["assumptions"]}
    assert used["serve_bandwidth"]["source"] == "given by you"
    assert {"serve_matmul_bf16", "serve_launch", "serve_memory_use"} <= set(used)
    assert data["layout"] == "TP1"
    assert data["gpu_hours"] * 3600 * plan.requests_per_second == pytest.approx(1)
    assert data["usd"] == pytest.approx(data["gpu_hours"] * 2.95)
    assert data["energy_kwh"] == pytest.approx(data["gpu_hours"] * 1.275)  # kW of an H100 with its share of a DGX
    flops = LLAMA.forward_flops(100, None, 0) + 100 * LLAMA.decode_flops(150)
    assert data["mfu"] == pytest.approx(flops / (data["gpu_hours"] * 3600 * 989.4e12))
    for kernel in data["roofline"]["kernels"]:
        roof = min(data["roofline"]["memory_bytes_per_second"] * kernel["flops_per_byte"], 1e15)
        assert kernel["flops_per_second"] <= roof * (1 + 1e-12)
    for key in ("usd_per_million", "seconds_to_first_token", "memory_bytes", "decode_binds", "kwh_per_million_output"):
        assert key in data


def test_eight_bits_run_as_what_the_chip_has():
    def products(name: str, bits: int) -> float:
        return plan_serve(
            LLAMA, chip(name), 1, prompt=100, response=10, weight_bits=bits, assume=IDEAL, concurrency=1
        ).prefill.matmul_compute

    assert products("h100", 16) / products("h100", 8) == pytest.approx(1979 / 989.4, rel=1e-3)
    assert products("a100-80gb", 16) / products("a100-80gb", 8) == pytest.approx(2.0, rel=1e-3)  # INT8
    assert products("h100", 4) == products("h100", 16)  # no FP4: widened


# Properties


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.integers(1, 4000),
    response=st.integers(1, 4000),
    samples=st.integers(1, 64),
    cached=st.floats(0, 0.95),
    count=st.sampled_from([1, 2, 8]),
)
def test_every_plan_is_finite_and_consistent(prompt, response, samples, cached, count):
    plan = plan_serve(LLAMA, H100, count, prompt=prompt, response=response, samples=samples, cached=cached)
    numbers = [v for v in plan.to_json().values() if isinstance(v, float)]
    assert all(math.isfinite(v) and v >= 0 for v in numbers)
    assert plan.memory_bytes <= 0.9 * H100.memory_bytes.value
    assert plan.replicas * plan.layout.chips + plan.idle_chips == count
    assert plan.output_tokens_per_second <= plan.decode_tokens_per_second * (1 + 1e-9)
    ratio = plan.input_tokens_per_second / plan.output_tokens_per_second
    assert ratio == pytest.approx(prompt / (samples * response))


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(sorted(assumptions())), batch=st.integers(1, 64))
def test_a_better_chip_is_never_slower(name, batch):
    shares = ("serve_matmul_bf16", "serve_bandwidth", "serve_link")
    if name not in shares:
        name = shares[batch % 3]
    slow, fast = (
        plan_serve(
            LLAMA, H100, 2, prompt=500, response=500, concurrency=batch, layout=ServeLayout(2), assume={name: share}
        ).seconds_per_output_token
        for share in (0.4, 0.9)
    )
    assert fast <= slow


# What is refused, in one sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": 0}, "prompt is 0, it must be a whole number of at least 1."),
        ({"response": 2.5}, "response is 2.5, it must be a whole number of at least 1."),
        ({"samples": -1}, "samples is -1, it must be a whole number of at least 1."),
        ({"count": True}, "count is True, it must be a whole number of at least 1."),
        ({"cached": 1.0}, "cached is 1, it is the share of prompt tokens read before: at least 0 and below 1."),
        ({"target_latency": -0.1}, "target_latency is -0.1, it must be a positive number."),
        ({"concurrency": math.nan}, "concurrency is nan, it must be a positive number."),
        ({"price_per_hour": 0.0}, "price_per_hour is 0, it must be a positive number."),
        ({"context": math.inf}, "context is inf, it must be a positive number."),
        ({"weight_bits": 12}, "weight_bits is 12, it must be 16, 8 or 4."),
        ({"kv_bits": 12}, "kv_bits is 12, it must be 16, 8 or 4."),
        ({"prompt": 131_000}, "llama-3.1-8b takes 131072 tokens of context at most, a prompt of 131000 and a response of 100"),
        ({"assume": {"serve_bandwith": 1}}, "'serve_bandwith' is no assumption of the planner (did you mean 'serve_bandwidth'?)."),
        ({"assume": {"serve_bandwidth": 1.5}}, "The assumption 'serve_bandwidth' is 1.5, it is a share"),
        ({"assume": {"serve_draft_accept": 0.5}}, "llama-3.1-8b has no multi-token-prediction module"),
        ({"assume": {"serve_draft_accept": 1.5}}, "'serve_draft_accept' is 1.5, it is a share and must be at most 1."),
        ({"assume": {"serve_prompt_reread": 1.5}}, "'serve_prompt_reread' is 1.5, it is a share and must be at most 1."),
        ({"layout": ServeLayout(tensor=2)}, "The layout TP2 needs 2 chips, there are 1."),
        ({"layout": ServeLayout(tensor=1, expert=8), "count": 8}, "but llama-3.1-8b is a dense model: use expert=1."),
        ({"layout": ServeLayout(tensor=0)}, "has a degree below 1."),
        ({"apart": True}, "To read and write apart takes two replicas of llama-3.1-8b, 2 H100 SXM at least; there are 1."),
        ({"target_latency": 1e-5}, "No layout of 1 H100 SXM gives llama-3.1-8b's tokens every 1e-05 s; the least, for a sequence alone, is"),
    ],
)  # fmt: skip
def test_bad_requests(changes, sentence):
    arguments = {"count": 1, "prompt": 100, "response": 100} | changes
    count = arguments.pop("count")
    with pytest.raises(RequestError) as error:
        plan_serve(LLAMA, H100, count, **arguments)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (ServeLayout(1, 24, 0), "256 experts and 0 copies do not divide over 24 chips; 8 copies would."),
        (ServeLayout(3, 8, 0), "8 chips cannot be cut into groups of 3."),
        (ServeLayout(8, 8, 0), "V3 does not fit in the layout"),
    ],
)
def test_layouts_that_do_not_hold(layout, sentence):
    with pytest.raises(RequestError) as error:
        plan_serve(V3, H100, 32, prompt=100, response=100, weight_bits=8, layout=layout)
    assert sentence.replace("V3", V3.name) in str(error.value)


def test_a_model_that_does_not_fit_says_on_how_many_chips_it_would():
    with pytest.raises(RequestError, match=r"does not fit on 4 H100 SXM: the smallest number .* is (\d+)\.") as error:
        plan_serve(V3, H100, 4, prompt=100, response=100, weight_bits=8)
    least = int(str(error.value).rsplit(" ", 1)[1].rstrip("."))
    assert plan_serve(V3, H100, least, prompt=100, response=100, weight_bits=8).replicas == 1
    with pytest.raises(RequestError, match="does not fit"):
        plan_serve(V3, H100, least - 1, prompt=100, response=100, weight_bits=8)
    with pytest.raises(
        RequestError, match=r"fits on no number of RTX 4090: .* \(no source gives a network beyond 8 of them\)"
    ):
        plan_serve(V3, chip("4090"), 8, prompt=100, response=100, weight_bits=8)


def test_more_chips_than_links_reach_are_no_use_but_no_error():
    plan = plan_serve(LLAMA, chip("cpu"), 4, prompt=10, response=10)  # four machines without a network: four replicas
    assert (plan.replicas, plan.layout.chips) == (4, 1)


# DeepSeek's day


def test_the_published_day():
    day = economics()
    assert day.usd_cost == pytest.approx(87_072, abs=0.5)  # exactly
    assert day.usd_revenue == pytest.approx(562_100, abs=0.5)  # 342 x 0.14 + 266 x 0.55 + 168 x 2.19
    assert day.published == {"cost": 87_072, "revenue": 562_027, "margin": 5.45}
    assert day.margin == pytest.approx(5.455, abs=1e-3)
    assert (day.published["revenue"] - day.usd_cost) / day.usd_cost == pytest.approx(5.45, abs=5e-3)
    assert "562,027" in day.note
    assert "562,100 (+0.013 %)" in day.note
    # the published speeds account for the nodes: 73.7k input (hits counted) and 14.8k output tokens/s
    node_seconds = 608e9 / 73.7e3 + 168e9 / 14.8e3
    assert node_seconds == pytest.approx(226.75 * 86_400, rel=2e-3)
    json.dumps(day.to_json(), allow_nan=False)


def test_a_day_of_ones_own():
    day = economics(nodes=1, price_per_hour=1, hit_tokens=0, miss_tokens=0, output_tokens=1e9, usd_output=0.384)
    assert day.usd_cost == 192
    assert day.margin == pytest.approx(1.0)
    assert "562,027" not in day.note
    for changes, sentence in (
        ({"node": 3}, "'node' is no quantity of a fleet's day (did you mean 'nodes'?)."),
        ({"nodes": -3}, "nodes is -3, it must be a finite number of at least 0."),
        ({"nodes": 0}, "at least one node and a price above 0"),
    ):
        with pytest.raises(RequestError) as error:
            economics(**changes)
        assert sentence in str(error.value)
