"""A small world for the documentation's snippets: what they name is there, and whatever they train or sample is cut to toy size."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import trilaw
from trilaw.core.types import Request
from trilaw.engine.engine import Engine
from trilaw.pipeline import recipe
from trilaw.pipeline.recipe import Recipe

TOKENS = 4  # of a completion
TOY: dict[str, dict[str, Any]] = {
    "pretrain": {"hidden": 16, "layers": 1, "heads": 2, "rows_per_step": 2, "tokens": 512, "valid_documents": 4},
    "sft": {"examples": 4, "batch_examples": 4, "valid_examples": 0, "epochs": 1},
    "grpo": {"steps": 1, "problems": 2, "samples": 2},
    "eval": {"limit": 2, "samples": 2},
    "laws": {"bootstraps": 20},
}


def shrunk(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the same stages, each of a few steps of a few thousand weights."""
    small = copy.deepcopy(dict(data))
    for stage in small["stages"]:
        stage |= TOY[stage["kind"]]
    return small


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to stand in: a finished run of `tiny` in runs/tiny, and a cache with a model of bytes called smollm2-135m."""
    folder = tmp_path_factory.mktemp("docs")
    parse = recipe.parse_recipe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "parse_recipe", lambda data, **rest: parse(shrunk(data), **rest))
        patch.setattr(Engine, "submit", _brief(Engine.submit))
        trilaw.run("tiny", folder / "runs/tiny")
        text = folder / "text.txt"
        text.write_text("One line.\n\nAnother one.\n\nA third.\n")
        made = trilaw.pretrain(data=text, out=folder / "bytes", max_positions=1024)
    assert made.model is not None
    shutil.copytree(made.model, folder / "cache/models/smollm2-135m")
    return folder


@pytest.fixture
def world(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own copy of that folder as the working folder, with training and sampling cut to toy size."""
    shutil.copytree(models / "runs/tiny", tmp_path / "runs/tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRILAW_HOME", str(models / "cache"))
    parse = recipe.parse_recipe

    def toy(data: Mapping[str, Any], **rest: Any) -> Recipe:
        parse(data, **rest)  # as it is written it must hold, too
        return parse(shrunk(data), **rest)

    monkeypatch.setattr(recipe, "parse_recipe", toy)
    monkeypatch.setattr(Engine, "submit", _brief(Engine.submit))
    return tmp_path


def _brief(submit: Any) -> Any:
    def brief(engine: Engine, requests: Sequence[Request]) -> None:
        submit(
            engine,
            [replace(r, params=replace(r.params, max_tokens=min(TOKENS, r.params.max_tokens))) for r in requests],
        )

    return brief
