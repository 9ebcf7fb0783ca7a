"""The planner's public functions: names in, plans out, what they fill in and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import trilaw
from trilaw.core.errors import ModelError, RequestError
from trilaw.planner.layout import Layout
from trilaw.planner.serve_layout import ServeLayout


def test_they_are_public_and_take_names() -> None:
    for name in ("plan_train", "plan_serve", "plan_rl"):
        assert name in trilaw.__all__
        assert callable(getattr(trilaw, name))
    plan = trilaw.plan_train("llama-3.1-8b", "h100", 64, tokens=1e12)
    assert plan.flops == pytest.approx(
        1e12 * 48.2e9, rel=0.01
    )  # 6 x 7.5e9 weights and causal attention at 4,096 tokens
    assert plan.gpu_hours * plan.mfu * 989.4e12 * 3600 * 0.95 == pytest.approx(plan.flops)


def test_a_given_utilisation_makes_published_hours() -> None:
    """arXiv 2412.19437: 2,664 thousand H800 hours; the utilisation is that of arXiv 2505.09343, table 4."""
    plan = trilaw.plan_train("deepseek-v3", "h800", 2048, tokens=14.8e12, batch=15360 * 4096, assume={"mfu": 0.3894})
    assert plan.gpu_hours == pytest.approx(2_664_000, rel=0.01)
    assert plan.usd == pytest.approx(5.328e6, rel=0.01)


def test_layouts_are_read() -> None:
    text = trilaw.plan_train("llama-3.1-8b", "h100", 64, layout="tp=8 pp=1,dp=8 recompute=full flash=true")
    same = trilaw.plan_train("llama-3.1-8b", "h100", 64, layout={"tp": 8, "dp": 8, "recompute": "full", "flash": True})
    assert text.layout == same.layout == Layout(tp=8, dp=8, recompute="full")
    served = trilaw.plan_serve("deepseek-v3", "h800", 64, layout="tensor=1 expert=32 redundant=32")
    assert served.layout == ServeLayout(1, 32, 32)
    assert trilaw.plan_rl("qwen2.5-7b", "h100", 8, layout={"tensor": 2}).layout == ServeLayout(2)
    for wrong, said in (
        ({"tp": 2.5}, "must be a whole number, it is 2.5"),
        ({"tp": True}, "must be a whole number"),
        ({"flash": "no"}, "must be true or false"),
        ("tensor=8", "has no 'tensor'"),
    ):
        with pytest.raises(RequestError, match=said):
            trilaw.plan_train("llama-3.1-8b", "h100", 64, layout=wrong)


def test_what_a_model_is_published_in_is_the_default() -> None:
    for name in ("deepseek-v3", "deepseek-ai/DeepSeek-R1"):
        assert trilaw.plan_train(name, "h800", 2048).precision == "fp8-v3"
        assert trilaw.plan_train(name, "a100", 2048).precision == "bf16-mixed", "the chip has no FP8"
        assert trilaw.plan_serve(name, "h100", 64).weight_bits == 8
    assert trilaw.plan_train("llama-3.1-8b", "h100", 8).precision == "bf16-mixed"
    assert trilaw.plan_serve("llama-3.1-8b", "h100", 8).weight_bits == 16
    assert (
        trilaw.plan_rl("deepseek-v3", "h800", 512).memory_bytes
        == trilaw.plan_rl("deepseek-v3", "h800", 512, weight_bits=8).memory_bytes
    )


def test_prices(tmp_path: Path) -> None:
    def asked(price: float | str | None) -> tuple[float | None, str]:
        plan = trilaw.plan_serve("llama-3.1-8b", "h100", 1, price=price)
        line = next(line for line in plan.sheet.lines if line.name == "price")
        return plan.price_per_hour, line.source or line.formula

    assert asked(2)[0] == asked("2")[0] == asked("$2.00/h")[0] == 2.0
    assert asked(2)[1] == "given by you"
    assert asked(None)[0] == 2.95
    assert asked("runpod") == (4.76, "RunPod, on demand (low: spot), by deploybase.ai, 2026-03-10")
    own = tmp_path / "mine.toml"
    own.write_text(
        'source = "our contract"\ndate = "2026-01"\n[[price]]\nchip = "h100"\nprovider = "us"\nprice = "$1.50/h"\n'
    )
    assert asked(str(own)) == (1.5, "our contract, 2026-01")
    for wrong in ("$2.00", "two", ".00/h", float("nan"), 0.0):
        with pytest.raises(RequestError):
            asked(wrong)
    assert trilaw.plan_serve("llama-3.1-8b", "h20", 1).usd_per_million is None, "no source, no price"


def test_a_config_that_cannot_be_counted_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rwkv"}))
    with pytest.raises(RequestError, match="rwkv") as caught:
        trilaw.plan_train(tmp_path, "h100", 8)
    assert caught.value.exit_status == 2
    assert isinstance(caught.value.__cause__, ModelError)
