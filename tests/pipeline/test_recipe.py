from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trilaw.core.errors import ConfigError, RequestError, TaskError
from trilaw.pipeline.recipe import Recipe, bundled, load_recipe, parse_recipe

from .toys import KINDS, ToyTask, recipe_data


def parsed(**changes: object) -> Recipe:
    return parse_recipe(recipe_data(**changes), where="r.toml", tasks={"toy": ToyTask()}, kinds=KINDS)


def test_a_star_stands_for_the_models_that_a_stage_keeps() -> None:
    def models(listed: Sequence[str] = ("base", "zero@*", "zero"), **changes: int) -> list[str]:
        zero = {"name": "zero", "kind": "grpo", "base": "base", "task": "calculator", "steps": 30, "keep_every": 10}
        exam = {"name": "exam", "kind": "eval", "models": list(listed), "task": "calculator"}
        base = {"name": "base", "kind": "pretrain", "task": "calculator"}
        made = parse_recipe({"version": 1, "name": "r", "stages": [base, zero | changes, exam]})
        return list(made.stages[2].config.models)  # type: ignore[attr-defined]

    assert models() == ["base", "zero@10", "zero@20", "zero"]
    assert models(steps=10) == models(keep_every=0) == ["base", "zero"]
    assert models(listed=["zero@20", "zero@*"]) == ["zero@20", "zero@10"], "each once"
    assert models(listed=["base@*"]) == ["base@*"], (
        "a stage that keeps none is no star: it is looked up as a model, and refused"
    )
    with pytest.raises(
        ConfigError, match=r"^recipe: Stage 'zero' keeps more than 10,000 models: set a larger keep_every"
    ):
        models(steps=10**22)
    with pytest.raises(
        ConfigError, match=r"models = 'zero@7' is not kept \(did you mean 'zero@20'\?\): set keep_every"
    ):
        models(listed=["zero@7"])


def stages(*tables: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "one", "kind": "make", "task": "toy"}, *tables]


def test_resolved_has_every_default_and_is_a_fixed_point() -> None:
    resolved = parsed().resolved()
    assert resolved["stages"][0] == {
        "name": "one", "kind": "make", "task": "toy", "base": "", "steps": 3, "amount": 1, "valid_split": "test", "fail_at": -1,
    }  # fmt: skip
    again = parse_recipe({**resolved, "tasks": {}}, tasks={"toy": ToyTask()}, kinds=KINDS).resolved()
    assert again == resolved
    assert json.loads(json.dumps(resolved)) == resolved


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sed": 1}, "r.toml: unknown key 'sed' (did you mean 'seed'?)."),
        ({"version": 2}, "r.toml: 'version' = 2 does not hold"),
        ({"seed": -1}, "'seed' = -1 does not hold"),
        ({"name": "a b"}, "a name has lower-case letters"),
        ({"stages": []}, "'stages' = [] does not hold"),
        ({"stages": stages({"name": "Two", "kind": "make"})}, "stage 2 needs a name of lower-case letters"),
        ({"stages": stages({"kind": "make"})}, "stage 2 needs a name"),
        ({"stages": stages({"name": "x", "kind": "mak"})}, "stage 'x': there is no stage kind \"mak\" (did you mean 'make'?)."),
        (
            {"stages": stages({"name": "x", "kind": "make", "task": "toy", "step": 3})},
            "r.toml: stage 'x': unknown key 'step' (did you mean 'steps'?).",
        ),
        ({"stages": stages({"name": "x", "kind": "make", "task": "toy", "steps": 0})}, "stage 'x': 'steps' = 0 does not hold"),
        ({"stages": stages({"name": "x", "kind": "make"})}, "stage 'x': the key 'task' is missing."),
        ({"stages": stages({"name": "one", "kind": "make", "task": "toy"})}, "two stages are called 'one'"),
        (
            {"stages": stages({"name": "x", "kind": "make", "task": "toy", "base": "x"})},
            "stage 'x': base = 'x' is the stage itself",
        ),
        (
            {"stages": stages({"name": "x", "kind": "look", "task": "toy", "models": ["one@2"]})},
            "stage 'x': models = 'one@2' is not kept, a stage of this kind keeps its last model only: name 'one'.",
        ),
        (
            {"stages": stages({"name": "x", "kind": "look", "task": "toy", "models": ["y"]}, {"name": "y", "kind": "make", "task": "toy"})},
            "stage 'x': models = 'y' comes later in the recipe",
        ),
        (
            {
                "stages": stages(
                    {"name": "x", "kind": "look", "task": "toy", "models": ["one"]},
                    {"name": "y", "kind": "make", "task": "toy", "base": "x"},
                )
            },
            "stage 'y': base = 'x' makes no model (known: one).",
        ),
        (
            {"stages": stages({"name": "x", "kind": "look", "task": "toy", "models": ["one"], "splits": ["tset"]})},
            "stage 'x': splits names 'tset', which is no split of task 'toy' (did you mean 'test'?).",
        ),
        (
            {"stages": stages({"name": "x", "kind": "make", "task": "toy", "valid_split": "hard"})},
            "stage 'x': valid_split names 'hard'",
        ),
        ({"stages": stages({"name": "x", "kind": "make", "task": "tyo"})}, "stage 'x': there is no task 'tyo' (did you mean 'toy'?)."),
        ({"tasks": {"c": {"kind": "calculater"}}}, "r.toml: task 'c': there is no task 'calculater' (did you mean 'calculator'?)"),
        ({"tasks": {"c": {"kind": "calculator", "tran_steps": [1, 2]}}}, "r.toml: task 'c': unknown key 'tran_steps' (did you mean"),
        ({"tasks": {"c": {"steps": 3}}}, "tasks.c.kind"),
    ],
)  # fmt: skip
def test_what_does_not_hold_is_named(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**changes)
    assert sentence in str(caught.value)


def test_an_unsound_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import trilaw.tasks.registry

    monkeypatch.setattr(
        trilaw.tasks.registry, "build", lambda spec, where="": ToyTask(["the answer of test/3 is refused."])
    )
    with pytest.raises(TaskError, match=r"task 'calculator' is not sound: the answer of test/3 is refused\."):
        parsed(stages=stages({"name": "x", "kind": "make", "task": "calculator"}))


def test_a_missing_data_file_is_named() -> None:
    with pytest.raises((ConfigError, TaskError), match=r"nowhere\.jsonl"):
        parsed(tasks={"mine": {"kind": "custom", "data": "nowhere.jsonl"}})


def test_tasks_by_name_by_kind_and_in_place() -> None:
    recipe = parsed(
        tasks={"calc": {"kind": "calculator", "test_steps": [2, 3]}},
        stages=[
            {"name": "a", "kind": "make", "task": "calc"},
            {"name": "b", "kind": "make", "task": "calculator"},
            {"name": "c", "kind": "make", "task": {"kind": "calculator", "test_steps": [1, 2]}},
        ],
    )
    specs = recipe.resolved()["tasks"]
    assert specs["calc"]["test_steps"] == [2, 3]
    assert specs["c-task"]["test_steps"] == [1, 2]
    assert specs["calculator"].keys() == specs["calc"].keys(), "defaults are filled in"
    assert recipe.stages[2].config.task == "c-task"  # type: ignore[attr-defined]
    assert set(recipe.tasks) == {"calc", "calculator", "c-task", "toy"}


TOML = """
version = 1
name = "mine"
[[stages]]
name = "one"
kind = "make"
task = "calculator"
"""


def test_files_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    recipe = load_recipe(path, ["seed=7", "stages.one.steps=9"], kinds=KINDS)
    assert (recipe.seed, recipe.stages[0].config.steps) == (7, 9)  # type: ignore[attr-defined]
    assert recipe.text == TOML + "# --set seed=7\n# --set stages.one.steps=9\n"
    with pytest.raises(ConfigError, match=r"there is no 'oen' \(did you mean 'one'\?\)"):
        load_recipe(path, ["stages.oen.steps=9"], kinds=KINDS)
    with pytest.raises(ConfigError, match=r"stage 'one': unknown key 'step' \(did you mean 'steps'\?\)"):
        load_recipe(path, ["stages.one.step=9"], kinds=KINDS)
    path.write_text("version = = 1")
    with pytest.raises(ConfigError, match=r"mine\.toml is not valid TOML.*line 1"):
        load_recipe(path, kinds=KINDS)


def test_unknown_recipes() -> None:
    name = next(iter(bundled()))
    with pytest.raises(RequestError, match=rf"There is no recipe '{name}x' \(did you mean '{name}'\?\)"):
        load_recipe(name + "x")
    with pytest.raises(ConfigError, match=r"There is no recipe file no/such\.toml"):
        load_recipe("no/such.toml")


def test_the_laws_look_at_a_split_that_is_evaluated() -> None:
    exam = {"name": "exam", "kind": "eval", "models": ["m"], "task": "calculator", "splits": ["test", "hard"]}

    def split(name: str) -> None:
        parse_recipe({"version": 1, "name": "r", "stages": [exam, {"name": "laws", "kind": "laws", "split": name}]})

    split("hard")
    with pytest.raises(
        ConfigError, match=r"stage 'laws': split names 'hart', which no stage evaluates \(did you mean 'hard'\?\)"
    ):
        split("hart")
