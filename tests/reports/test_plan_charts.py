"""The two pictures of a plan, from plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trilaw.core.errors import RequestError, RunError
from trilaw.reports.plan_charts import serve_picture, train_picture

TRAIN: dict[str, Any] = {
    "model": "mine $x$", "chip": "H100", "count": 8, "precision": "fp32", "layout": {"words": "DP8"}, "memory_capacity": 70e9,
    "memory_parts": {"weights": 20e9, "gradients": 40e9, "head": 0.0, "total": 60e9, "stage": 0},
}  # fmt: skip
SERVE: dict[str, Any] = {
    "model": "mine", "chip": "H100", "count": 8, "layout": "TP8", "batch": 64.0,
    "roofline": {
        "products": "fp8", "matmul_flops_per_second": 1e15, "attention_flops_per_second": 5e14, "memory_bytes_per_second": 2.5e12,
        "kernels": [{"pass": "decode", "kernel": "weights", "flops_per_byte": 100.0, "flops_per_second": 2.5e14, "seconds": 1e-3}],
    },
}  # fmt: skip


def test_the_memory_bar_names_its_parts_and_the_limit(tmp_path: Path) -> None:
    train_picture(TRAIN, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for words in ("weights 20.0", "gradients 40.0", "may be filled: 70.0", "mine $x$ on 8 H100, fp32: DP8"):
        assert words in text
    assert "head" not in text, "nothing is not drawn"
    train_picture(TRAIN, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == text, "the same plan, the same file"


def test_the_roofline_names_ceilings_and_kernels(tmp_path: Path) -> None:
    serve_picture(SERVE, tmp_path / "new" / "a.svg")
    text = (tmp_path / "new" / "a.svg").read_text()
    for words in ("fp8: 1 PFLOP/s", "attention: 500 TFLOP/s", "decode, weights", "FLOPs a byte read"):
        assert words in text
    serve_picture(SERVE | {"roofline": SERVE["roofline"] | {"kernels": []}}, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_a_wrong_name_or_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ends in \.svg or \.png"):
        train_picture(TRAIN, tmp_path / "a.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        serve_picture(SERVE, tmp_path / "file" / "a.png")
