from __future__ import annotations

import json

import pytest

from trilaw.planner.sheet import assumptions
from trilaw.planner.validation_row import ValidationRow
from trilaw.planner.validation_serve import CALIBRATED_ON, calibration, rows, spread

CALIBRATION = calibration()
ROWS = rows()


def find(part: str) -> ValidationRow:
    (row,) = [row for row in ROWS if part in row.what]
    return row


def test_the_error_is_relative_to_what_was_measured():
    assert ValidationRow("x", 100.0, 115.0, "s", "", "").error == pytest.approx(0.15)


def test_the_shares_describe_what_they_were_calibrated_on():
    assert len(CALIBRATION) == 16
    assert all(row.calibrated_on == "itself" for row in CALIBRATION)
    assert spread(CALIBRATION[:12]) < 0.17  # TensorRT-LLM
    assert spread(CALIBRATION[12:]) < 0.07  # SGLang


def test_no_row_was_calibrated_on():
    assert not {row.what for row in ROWS} & {row.what for row in CALIBRATION}
    assert not {row.source for row in ROWS} & {"itself"}
    assert all(row.calibrated_on == CALIBRATED_ON for row in ROWS)
    assert all("H100" not in row.what for row in ROWS)


def test_an_error_above_15_percent_says_why_and_others_do_not():
    for row in ROWS:
        assert bool(row.why) == (abs(row.error) > 0.15), row.what
        assert row.source
        assert row.unit


@pytest.mark.parametrize(
    "shape", ["batch 256, 128/128", "batch 32, 128/2048", "batch 32, 2048/128", "batch 16, 2048/2048"]
)
def test_throughput_on_a100_is_nearer_than_the_peer(shape):
    row = find(shape)
    assert abs(row.error) < 0.16
    assert abs(row.error) < row.peer_errors["LLM-Viewer"] / 2
    assert find("batch 256, 128/128").peer_errors["LLM-Viewer"] == pytest.approx(0.67, abs=0.01)


def test_deepseek_in_production_and_at_full_load():
    assert find("production decode").measured == 14_800
    assert abs(find("production decode").error) < 0.1
    assert abs(find("profile, decode").error) < 0.1
    assert abs(find("profile, prefill").error) < 0.1
    assert 0.3 < find("production prefill").error < 0.7  # a day's mean against a full machine, as the row says


def test_the_published_points_of_inferencex_are_there():
    measured = {row.measured for row in ROWS if "DeepSeek-R1 FP8 8k/1k" in row.what}
    assert measured == {5_857, 5_220, 725, 406}


def test_the_cpus_bounds():
    assert abs(find("bound of a single stream").error) < 0.03
    assert find("floor counted by hand").measured == 1_000
    assert (find("vLLM 0.32.0, 128").measured, find("transformers").measured) == (555, 250)


def test_launching_explains_the_fast_b200_row():
    from trilaw.planner.validation_serve import _r1

    plan = _r1("b200", 40, target_latency=1 / 42, apart=True, assume={"serve_launch": 5e-5})
    assert plan.tokens_per_second_per_chip == pytest.approx(5_276, abs=30)
    assert plan.concurrency == pytest.approx(558, abs=5)


def test_the_table_of_assumptions_is_whole():
    mine = [x for x in assumptions().values() if x.name.split("_")[0] in ("serve", "rl", "datacentre")]
    assert len(mine) >= 24
    for one in mine:
        assert one.low <= one.value <= one.high, one.name
        assert one.unit
        assert len(one.source) > 10, one.name
        assert one.about


def test_rows_are_plain():
    assert json.loads(json.dumps([row.to_json() for row in ROWS], allow_nan=False))[0]["error"] == ROWS[0].error
