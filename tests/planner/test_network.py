"""Traffic of a training step against simulated rings, enumerated draws of experts, and published figures."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.shapes import gpt, llama, moe

from trilaw.core.errors import RequestError
from trilaw.core.numbers import Numbers
from trilaw.planner.hardware import chip
from trilaw.planner.layout import Layout, on_chips, split
from trilaw.planner.memory import PRECISIONS
from trilaw.planner.models import model
from trilaw.planner.network import Flow, Links, domains_reached, traffic

LINKS = Links(scale_up=400e9, scale_out=50e9, domain=8, chip="Test")


def flows(
    numbers: Numbers, layout: Layout, *, links: Links = LINKS, policy: str = "bf16-mixed", **options: Any
) -> dict[str, Flow]:
    stage = on_chips(split(numbers, layout.pp), layout)[options.pop("stage", 0)]
    options = {"context": 1024, "micro_batches": 4} | options
    found = traffic(numbers, stage, layout, links, PRECISIONS[policy], **options)
    return {f"{flow.kind}{i}" if flow.kind == "data" else flow.kind: flow for i, flow in enumerate(found)}


def ring_bytes(group: int, size: int, collective: str) -> int:
    """What one rank receives, by playing a ring step by step with pieces of size / group."""
    rounds = (group - 1) * (2 if collective == "all-reduce" else 1)
    received = 0
    for _ in range(rounds):
        received += size // group
    return received


@pytest.mark.parametrize("group", [2, 4, 8])
def test_data_traffic_is_that_of_rings(group: int) -> None:
    numbers = llama(layers=1)
    size = numbers.parameters()
    moved = {
        0: ring_bytes(group, 4 * size * group, "all-reduce") / group,
        1: ring_bytes(group, (4 + 2) * size * group, "all-gather") / group,
        3: 4 * ring_bytes(group, (4 + 2 + 2) * size * group, "all-gather") / group,  # in each of 4 micro-batches
    }
    for zero, expected in moved.items():
        data = flows(numbers, Layout(dp=group, zero=zero))["data0"]
        assert data.bytes == pytest.approx(expected)
        assert data.link == "scale-up"
        assert data.seconds == pytest.approx(expected / 400e9)


def test_tensor_traffic_of_a_gpt_layer_by_hand() -> None:
    # 4 collectives of s b h x 2 bytes x (t-1)/t forward, 4 backward, 4 more where the layer is computed again
    numbers = gpt(layers=3)
    one = 1024 * 1024 * 2 * 7 / 8
    assert flows(numbers, Layout(tp=8))["tensor"].bytes == pytest.approx(4 * 3 * 8 * one)
    assert flows(numbers, Layout(tp=8, recompute="full"))["tensor"].bytes == pytest.approx(4 * 3 * 12 * one)
    experts_only = flows(moe(layers=3), Layout(tp=8))["tensor"].bytes
    assert experts_only == pytest.approx(4 * 3 * 4 * one / 2)  # half the width, and attention's half of the collectives


def test_pipeline_and_context_traffic_by_hand() -> None:
    numbers = llama(layers=8)
    assert flows(numbers, Layout(pp=4))["pipeline"].bytes == 4 * 2 * 1024 * 512 * 2
    assert (
        flows(numbers, Layout(pp=4, interleave=2, schedule="interleaved"))["pipeline"].bytes
        == 2 * 4 * 2 * 1024 * 512 * 2
    )
    # cp 4: 256 tokens here, keys and values of the 768 others, once forward, and twice (with gradients) backward
    assert flows(numbers, Layout(cp=4))["context"].bytes == 4 * 8 * 3 * 768 * (2 * 128) * 2


@settings(max_examples=30, deadline=None)
@given(nodes=st.integers(1, 4), active=st.integers(1, 4))
def test_domains_reached_is_the_mean_over_all_draws(nodes: int, active: int) -> None:
    draws = list(itertools.product(range(nodes), repeat=active))  # the token's own domain is number 0
    other = sum(len(set(draw) - {0}) for draw in draws) / len(draws)
    assert domains_reached(nodes * 8, 8, active, 0)[0] == pytest.approx(other)


def test_node_limited_routing_of_v3() -> None:
    free, _ = domains_reached(64, 8, 8, 0)
    limited, inside = domains_reached(64, 8, 8, 4)
    assert limited == 4 * 7 / 8 < free
    assert inside == 8 * 7 / 8
    assert domains_reached(8, 8, 8, 0) == (0.0, 7.0)  # one domain: nothing leaves it


def test_v3_expert_traffic_a_token_by_hand() -> None:
    numbers, layout = model("deepseek-v3"), Layout(pp=16, dp=128, ep=64)
    h800 = Links.of(chip("h800"), 0.8)
    options: dict[str, Any] = {"node_limit": 4, "context": 4096, "micro_batches": 1, "stage": 5}
    flow = flows(numbers, layout, links=h800, policy="fp8-v3", **options)["expert"]
    stage = split(numbers, 16)[5]
    expert_layers = sum(n for layer, n in stage.layers if layer.feed_forward.kind == "moe")
    # FP8 dispatch and BF16 combine of 7,168 numbers to 3.5 other nodes, forward and backward, at 40 GB/s
    assert flow.link == "scale-out"
    assert flow.bandwidth == 40e9
    assert flow.bytes == pytest.approx(4096 * expert_layers * 2 * 7168 * 3 * 3.5)


def test_a_collective_over_several_domains_uses_all_their_adapters() -> None:
    assert LINKS.carry(8, 1) == ("scale-up", 400e9)
    assert LINKS.carry(64, 1) == ("scale-up", 400e9)  # 8 adapters of 50 GB/s carry as much as the fast link
    assert LINKS.carry(64, 2) == ("scale-out", 200e9)  # 4 members in a domain
    assert LINKS.carry(64, 8) == ("scale-out", 50e9)
    assert Links(400e9, 100e9, 8).carry(64, 1) == ("scale-up", 400e9)


def test_links_of_a_chip_prefer_what_was_measured() -> None:
    h800, h100 = Links.of(chip("h800"), 0.5), Links.of(chip("h100"), 0.5)
    assert (h800.scale_up, h800.scale_out, h800.domain) == (160e9, 40e9, 8)
    assert (h100.scale_up, h100.scale_out) == (225e9, 40e9)


def test_without_a_network_more_than_a_domain_is_refused() -> None:
    with pytest.raises(RequestError, match=r"16 Lone chips must talk over a network, .*'scale_out_bandwidth'"):
        flows(llama(), Layout(dp=16), links=Links(400e9, 0.0, 8, "Lone"))


@settings(max_examples=40, deadline=None)
@given(
    tp=st.sampled_from((1, 2)), pp=st.sampled_from((1, 2)), dp=st.sampled_from((1, 2, 8)), ep=st.sampled_from((1, 2))
)
def test_splits_of_degree_one_send_nothing(tp: int, pp: int, dp: int, ep: int) -> None:
    if tp * dp % ep:
        return
    layout = Layout(tp=tp, pp=pp, dp=dp, ep=ep)
    found = {flow.kind for flow in traffic(
        moe(), split(moe(), pp)[0], layout, LINKS, PRECISIONS["bf16-mixed"], context=1024, micro_batches=4)}  # fmt: skip
    assert ("tensor" in found) == (tp > 1)
    assert ("pipeline" in found) == (pp > 1)
    assert ("expert" in found) == (ep > 1)
    assert ("data" in found) == (dp > 1 or tp > ep)
    assert "context" not in found
