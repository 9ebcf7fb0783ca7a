"""Fixtures that every room may use: a tiny Llama and a way to put it on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network fails at once

import pytest
import torch

from trilaw.core.arch import Arch
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder of published tables that some tests read when the checkout lies beside one (TRILAW_DATA names another place)."""
    folder = Path(os.environ.get("TRILAW_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("the published tables are not here; set TRILAW_DATA to their folder")
    return folder


@pytest.fixture
def tiny_arch() -> Arch:
    """Two layers, 32 wide, 4 query heads on 2 key-value heads, vocabulary 64, untied head."""
    return Arch(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        max_positions=256,
        tied=False,
        bos_id=0,
        eos_ids=(1,),
    )


@pytest.fixture
def tiny_model(tiny_arch: Arch) -> CausalLM:
    """A random model of `tiny_arch`; its head is random too, so that its distributions are not flat."""
    model = build(tiny_arch, seed=7)
    with torch.no_grad():
        model.lm_head.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(7))
    return model.eval()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """`save(model, name="model", **options)`: the model as a Hugging Face folder under tmp_path (options of `hf.save_folder`)."""

    def write(model: CausalLM, name: str = "model", **options: object) -> Path:
        from trilaw.model.hf import save_folder

        folder = tmp_path / name
        save_folder(model, folder, **options)  # type: ignore[arg-type]
        return folder

    return write
