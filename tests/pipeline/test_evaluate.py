"""The eval stage's config and files; that it resumes is shown in tests/kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilaw.core.config import parse
from trilaw.core.errors import ConfigError
from trilaw.core.types import SamplingParams
from trilaw.pipeline.evaluate import EvalConfig, Named, store_path

from .toys import ToyTask


def config(**fields: object) -> EvalConfig:
    return parse(EvalConfig, {"models": ["m"], "task": "t", **fields}, "stage 'exam'")


def test_sampling_options_reach_the_sampler() -> None:
    options = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "max_tokens": 7}
    assert config(**options).params == SamplingParams(**options)  # type: ignore[arg-type]
    assert config().params == SamplingParams()


@pytest.mark.parametrize(
    "fields",
    [
        {"models": []},
        {"models": ["m", "m"]},
        {"splits": []},
        {"splits": ["test", "test"]},
        {"samples": 0},
        {"limit": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": 1.0},
        {"temperature": -1.0},
        {"max_tokens": 0},
        {"temperature": 0.0, "samples": 4},
    ],
)
def test_what_cannot_be_evaluated_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="stage 'exam': "):
        config(**fields)


def test_stores_stay_inside_their_folder_and_apart(tmp_path: Path) -> None:
    names = ["base", "owner/name", "owner_name", "runs/tiny#base", "../../x", ".hidden", "..", "a" * 300, "m.gguf", "ü"]
    paths = [store_path(tmp_path, name, split) for name in names for split in ("test", "hard")]
    assert len(set(paths)) == len(paths)
    assert all(path.parent == tmp_path and len(path.name) < 120 and not path.name.startswith(".") for path in paths)
    assert store_path(tmp_path, "base", "test").name == "base-test.jsonl"


def test_a_task_bears_the_recipes_name() -> None:
    task = ToyTask()
    named = Named("mine", task)
    assert (named.name, named.splits) == ("mine", task.splits)
    problem = named.problems("test", limit=1)[0]
    assert named.verify(problem, problem.answer).value == 1.0
