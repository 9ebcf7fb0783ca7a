from __future__ import annotations

import json
import math

import pytest

from trilaw.core.errors import RequestError
from trilaw.planner.hardware import chip
from trilaw.planner.models import model
from trilaw.planner.r1_zero import LONGEST, r1_zero
from trilaw.planner.rl import plan_rl
from trilaw.planner.serve import plan_serve
from trilaw.planner.serve_layout import ServeLayout

SMALL = model("qwen2.5-7b")
V3 = model("deepseek-v3")
H100, H800 = chip("h100"), chip("h800")
RUN = {"problems": 32, "samples": 16, "prompt": 200, "response": 1000, "steps": 100}


def test_a_cycle_by_hand():
    layout = ServeLayout(tensor=1)
    plan = plan_rl(SMALL, H100, 8, longest=1000, layout=layout, **RUN)
    serve = plan_serve(SMALL, H100, 8, prompt=200, response=1000, samples=16, concurrency=512, layout=layout)
    assert plan.writing_seconds == pytest.approx(512 * 1000 / serve.output_tokens_per_second)
    assert plan.tail_seconds == 0.0  # all responses equally long
    tokens = 512 * 1200
    forward = SMALL.flops_per_token(1200, training=False)
    rate = 8 * H100.rate("bf16") * 0.3
    assert plan.score_seconds == pytest.approx(2 * tokens * forward / rate)
    assert plan.update_seconds == pytest.approx(tokens * SMALL.flops_per_token(1200, training=True) / rate)
    assert plan.cycle_seconds == pytest.approx(
        plan.writing_seconds + plan.score_seconds + plan.update_seconds + plan.sync_seconds
    )
    assert plan.hours == pytest.approx(100 * plan.cycle_seconds / 3600)
    assert plan.gpu_hours == pytest.approx(8 * plan.hours)
    assert plan.usd == pytest.approx(plan.gpu_hours * 2.95)
    assert plan.energy_kwh == pytest.approx(plan.gpu_hours * H100.need("all_in_watts") / 1000)
    assert plan.rollout_tokens == 100 * 512 * 1000
    assert plan.memory_bytes == SMALL.parameters() * 14 / 8
    assert (plan.rollout_chips, plan.train_chips, plan.concurrency) == (8, 8, 512)


def test_the_last_responses_keep_the_chips_waiting():
    even = plan_rl(SMALL, H100, 8, longest=1000, layout=ServeLayout(1), **RUN)
    long = plan_rl(SMALL, H100, 8, longest=9000, layout=ServeLayout(1), **RUN)
    assert long.writing_seconds == even.writing_seconds
    alone = plan_serve(SMALL, H100, 1, prompt=200, response=9000, context=200 + 5000, samples=16, concurrency=1)
    assert long.tail_seconds == pytest.approx(8000 * alone.decode.seconds)
    assert long.binds == "tail"
    assert long.idle_share > even.idle_share
    assumed = plan_rl(SMALL, H100, 8, layout=ServeLayout(1), **RUN)
    assert assumed.longest == 3000
    assert plan_rl(SMALL, H100, 8, **RUN | {"response": 60_000}).longest == SMALL.max_positions - 200


def test_more_updates_of_a_rollout_share_its_tail():
    one = plan_rl(SMALL, H100, 8, longest=9000, layout=ServeLayout(1), **RUN)
    four = plan_rl(SMALL, H100, 8, longest=9000, layout=ServeLayout(1), rollout_steps=4, **RUN)
    assert four.tail_seconds == one.tail_seconds
    assert four.update_seconds == pytest.approx(4 * one.update_seconds)
    assert four.step_seconds == pytest.approx(four.cycle_seconds / 4)
    assert four.hours < one.hours
    uneven = plan_rl(SMALL, H100, 8, layout=ServeLayout(1), rollout_steps=3, **RUN)
    assert uneven.seconds == pytest.approx(34 * uneven.cycle_seconds)  # 100 updates take 34 rollouts of 3


def test_the_split_is_the_best_of_all():
    plan = plan_rl(SMALL, H100, 16, longest=4000, placement="split", layout=ServeLayout(1), **RUN)
    assert plan.rollout_chips + plan.train_chips == 16

    def cycle(writers: int) -> float:
        serve = plan_serve(
            SMALL, H100, writers, prompt=200, response=1000, samples=16, concurrency=512, layout=ServeLayout(1)
        )
        writing = 512 * 1000 / serve.output_tokens_per_second
        learn = (plan.score_seconds + plan.update_seconds) * plan.train_chips / (16 - writers)
        return max(writing + plan.tail_seconds, learn) + plan.sync_seconds

    fits = [w for w in range(1, 16) if SMALL.parameters() * 14 / (16 - w) <= 0.9 * 81_559 * 2**20]
    assert plan.cycle_seconds == pytest.approx(min(cycle(w) for w in fits))
    assert cycle(plan.rollout_chips) == pytest.approx(plan.cycle_seconds)
    busy = plan.rollout_chips * plan.writing_seconds + plan.train_chips * (plan.score_seconds + plan.update_seconds)
    assert plan.idle_share == pytest.approx(1 - busy / (16 * plan.cycle_seconds))


@pytest.mark.parametrize("placement", ["colocated", "split"])
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_shares_and_times_are_consistent(placement, passes):
    plan = plan_rl(SMALL, H100, 16, placement=placement, score_passes=passes, **RUN)
    assert 0 <= plan.idle_share < 1
    assert (plan.score_seconds == 0) == (passes == 0)
    data = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    for key in ("gpu_hours", "usd", "memory_bytes", "seconds", "energy_kwh", "idle_share", "binds"):
        assert key in data
    assert all(math.isfinite(v) for v in data.values() if isinstance(v, float))
    assert {"rl_update_mfu", "rl_state_bytes", "serve_bandwidth"} <= {a["name"] for a in data["sheet"]["assumptions"]}


def test_r1_zero_has_the_published_order():
    assert 10_400 / 16 == 650  # rollouts
    assert pytest.approx(68.5, abs=0.05) == 198 * 3600 / 10_400  # seconds of an update
    assert round((8200 * 32_768 + 2200 * 65_536) / 10_400) == LONGEST
    zero = r1_zero(V3, H800)
    assert zero.published_hours == 198
    assert (zero.plan.count, zero.plan.steps, zero.plan.rollout_steps) == (512, 10_400, 16)
    assert 198 / 3 < zero.plan.hours < 198 * 3
    assert zero.error == pytest.approx(zero.plan.hours / 198 - 1)
    assert "mean response, which is not published, drives the difference" in zero.why
    assert zero.response_that_fits is not None
    again = r1_zero(V3, H800, assume={"rl_r1_zero_response": zero.response_that_fits})
    assert again.plan.hours == pytest.approx(198, rel=0.01)
    assert f"{zero.response_that_fits:,}" in zero.why
    assert {"rl_r1_zero_response", "rl_r1_zero_prompt"} <= set(zero.plan.sheet.used)
    json.dumps(zero.to_json(), allow_nan=False)


def test_a_run_without_a_matching_length_says_so():
    zero = r1_zero(V3, H800, steps=100)
    assert zero.response_that_fits is None
    assert "no mean below the limit makes them equal" in zero.why


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"samples": 1},
            "A group needs at least 2 samples: the mean of a single one is itself, so nothing is learned.",
        ),
        ({"problems": 0}, "problems is 0, it must be a whole number of at least 1."),
        ({"steps": 1.5}, "steps is 1.5, it must be a whole number of at least 1."),
        ({"rollout_steps": 0}, "rollout_steps is 0, it must be a whole number of at least 1."),
        ({"score_passes": -1}, "score_passes is -1, it must be a whole number of at least 0."),
        ({"longest": 999}, "The longest response is 999 tokens, it cannot be shorter than the mean of 1000."),
        ({"placement": "splt"}, "The placement 'splt' is unknown (did you mean 'split'?)."),
        ({"price_per_hour": -2.0}, "price_per_hour is -2, it must be a positive number."),
        ({"prompt": 0}, "prompt is 0, it must be a whole number of at least 1."),
        ({"response": 200_000}, "tokens of context at most"),
        ({"assume": {"rl_update_mfu": 1.2}}, "The assumption 'rl_update_mfu' is 1.2, it is a share"),
        ({"assume": {"rl_mfu": 0.2}}, "'rl_mfu' is no assumption of the planner"),
        ({"layout": ServeLayout(16)}, "The layout TP16 needs 16 chips, there are 8."),
    ],
)
def test_bad_requests(changes, sentence):
    with pytest.raises(RequestError) as error:
        plan_rl(SMALL, H100, 8, **RUN | changes)
    assert sentence in str(error.value)


@pytest.mark.parametrize("placement", ["colocated", "split"])
def test_a_run_that_does_not_fit_says_where_it_would(placement):
    with pytest.raises(
        RequestError, match=rf"on 64 H800 SXM, {placement}: writing needs \d+ of them and updating 123"
    ) as error:
        plan_rl(V3, H800, 64, placement=placement, weight_bits=8, **RUN)
    least = int(str(error.value).split("so ")[1].split(" ")[0])
    assert plan_rl(V3, H800, least, placement=placement, weight_bits=8, **RUN).hours > 0
    with pytest.raises(RequestError, match="cannot be trained"):
        plan_rl(V3, H800, least - 1, placement=placement, weight_bits=8, **RUN)
