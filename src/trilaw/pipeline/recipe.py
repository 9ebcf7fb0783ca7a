"""Recipes: TOML files that name tasks and stages. Everything in one is checked before anything starts.

    version = 1
    name = "tiny"
    seed = 0
    [tasks.calc]
    kind = "calculator"             # the other keys are options of the task
    [[stages]]
    name = "base"
    kind = "pretrain"               # the other keys are fields of the config class of that kind
    task = "calc"                   # a name from [tasks], a bare kind, or a table in place

Bundled recipes lie in `recipes/` beside this file and are known by their names.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from trilaw.core.config import Config, TaskSpec, override, parse, read_toml
from trilaw.core.errors import ConfigError, RequestError, TaskError, nearest
from trilaw.core.protocols import Task
from trilaw.core.rundir import is_name
from trilaw.pipeline import graph
from trilaw.pipeline.stages import KINDS, Kind
from trilaw.tasks import registry


class CostConfig(Config):
    """What the machine draws and costs, for the estimates of energy and money in the report. It changes no result."""

    watts: float | None = Field(default=None, gt=0)
    usd_per_kwh: float | None = Field(default=None, ge=0)
    usd_per_hour: float | None = Field(default=None, ge=0)


class Head(Config):
    """The keys at the top of a recipe; the stages are parsed by the config class of their kind."""

    version: Literal[1]
    name: str
    seed: int = Field(default=0, ge=0)
    description: str = ""
    cost: CostConfig = CostConfig()
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)
    stages: list[dict[str, Any]] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError("a name has lower-case letters, digits and dashes")
        return value


@dataclass(frozen=True)
class StageSpec:
    """One stage of a checked recipe."""

    name: str
    kind: str
    config: Config


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: every key is known, every reference holds, every task is built and sound."""

    name: str
    seed: int
    description: str
    cost: CostConfig
    task_specs: Mapping[str, TaskSpec]
    tasks: Mapping[str, Task]
    stages: tuple[StageSpec, ...]
    text: str  # TOML as given, or JSON of the tables when it came from Python or was overridden
    where: str  # the file, for messages

    def resolved(self) -> dict[str, Any]:
        """Plain data with every default filled in: what makes two runs the same."""
        data: dict[str, Any] = {
            "version": 1,
            "name": self.name,
            "seed": self.seed,
            "description": self.description,
            "cost": self.cost.model_dump(mode="json"),
            "tasks": {name: {"kind": spec.kind, **spec.options} for name, spec in self.task_specs.items()},
            "stages": [{"name": s.name, "kind": s.kind, **s.config.model_dump(mode="json")} for s in self.stages],
        }
        plain: dict[str, Any] = json.loads(json.dumps(data, default=str))
        return plain


def bundled() -> dict[str, str]:
    """The recipes that come with Trilaw: name -> text."""
    folder = resources.files("trilaw.pipeline") / "recipes"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def load_recipe(
    name_or_path: str | Path, overrides: Sequence[str] = (), *, kinds: Mapping[str, Kind] = KINDS
) -> Recipe:
    """A bundled recipe by name, or a recipe file by path, with `key=value` overrides applied, checked throughout.

    Raises RequestError for an unknown name, ConfigError or TaskError for whatever does not hold.
    """
    path, recipes = Path(name_or_path), bundled()
    if path.is_file():
        data, text, where = read_toml(path), path.read_text(encoding="utf-8"), str(path)
    elif str(name_or_path) in recipes:
        text, where = recipes[str(name_or_path)], f"recipe '{name_or_path}'"
        data = tomllib.loads(text)
    elif path.suffix == ".toml" or len(path.parts) > 1:
        raise ConfigError(f"There is no recipe file {path}.")
    else:
        raise RequestError(
            f"There is no recipe '{name_or_path}'{nearest(str(name_or_path), recipes)}; a path to a .toml file also does."
        )
    if overrides:
        data = override(data, list(overrides))
        text += "".join(f"# --set {assignment}\n" for assignment in overrides)
    return parse_recipe(data, where=where, text=text, kinds=kinds)


def parse_recipe(
    data: Mapping[str, Any],
    *,
    where: str = "recipe",
    text: str = "",
    tasks: Mapping[str, Task] | None = None,
    kinds: Mapping[str, Kind] = KINDS,
) -> Recipe:
    """Check plain data as a recipe. `tasks`: task objects made in Python, which stages may name like those under [tasks].

    Raises ConfigError (the place and the key are named) or TaskError (a task's data is missing or broken).
    """
    head = parse(Head, data, where)
    specs = dict(head.tasks)
    given = dict(tasks or {})
    stages = [_stage(table, index, specs, given, where, kinds) for index, table in enumerate(head.stages)]
    configs = {stage.name: stage.config for stage in stages}
    try:
        stages = [replace(stage, config=graph.expand(stage.config, configs)) for stage in stages]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for index, stage in enumerate(stages):
        if stage.name in [other.name for other in stages[:index]]:
            raise ConfigError(f"{where}: two stages are called '{stage.name}': give each its own name.")
    graph.check([(s.name, s.config, kinds[s.kind].makes_model) for s in stages], where)
    made = {name: _task(name, spec, where) for name, spec in specs.items()}
    specs = {name: spec for name, (spec, _) in made.items()}
    built = {name: task for name, (_, task) in made.items()} | given
    for stage in stages:
        _check_splits(stage, stages, built, where)
    specs |= {name: TaskSpec(kind=f"{type(t).__module__}.{type(t).__qualname__}") for name, t in given.items()}
    return Recipe(
        name=head.name,
        seed=head.seed,
        description=head.description,
        cost=head.cost,
        task_specs=specs,
        tasks=built,
        stages=tuple(stages),
        text=text or json.dumps(dict(data), indent=2, default=str),
        where=where,
    )


def _stage(
    table: dict[str, Any],
    index: int,
    specs: dict[str, TaskSpec],
    given: Mapping[str, Task],
    where: str,
    kinds: Mapping[str, Kind],
) -> StageSpec:
    """One [[stages]] table, parsed by its kind. A task written in place moves into `specs` under a name of its own."""
    fields = dict(table)
    name, kind = fields.pop("name", None), fields.pop("kind", None)
    if not is_name(name):
        raise ConfigError(
            f"{where}: stage {index + 1} needs a name of lower-case letters, digits and dashes, it has {json.dumps(name)}."
        )
    place = f"{where}: stage '{name}'"
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{place}: there is no stage kind {json.dumps(kind)}{nearest(str(kind), kinds)}.")
    if isinstance(fields.get("task"), Mapping):
        spec = parse(TaskSpec, fields["task"], f"{place}: task")
        fields["task"] = f"{name}-task"
        specs[fields["task"]] = spec
    config = parse(kinds[kind].config, fields, place)
    task = getattr(config, "task", None)
    if isinstance(task, str) and task not in specs and task not in given:
        specs[task] = _bare(task, [*specs, *given], place)
    return StageSpec(name, kind, config)


def _bare(kind: str, named: Sequence[str], place: str) -> TaskSpec:
    """A task named by its kind (or file) alone, with the options at their defaults."""
    spec = registry.from_file(TaskSpec(kind=kind))
    if spec.kind not in registry.KINDS:
        raise ConfigError(f"{place}: there is no task '{kind}'{nearest(kind, [*named, *registry.KINDS])}.")
    return spec


def _task(name: str, spec: TaskSpec, where: str) -> tuple[TaskSpec, Task]:
    """The task with every option filled in, built, and found sound: its verifier accepts each gold answer and no corrupted one."""
    place = f"{where}: task '{name}'"
    spec = registry.from_file(spec)
    options = parse(registry.config_class(spec.kind, place), spec.options, place)
    spec = TaskSpec(kind=spec.kind, options=options.model_dump(mode="json"))
    task = registry.build(spec, place)
    complaints = task.validate()
    if complaints:
        raise TaskError(f"{place} is not sound: {complaints[0]}")
    return spec, task


def _check_splits(stage: StageSpec, stages: Sequence[StageSpec], tasks: Mapping[str, Task], where: str) -> None:
    """Fields called `split`, `splits` or `..._split` must name splits of the stage's task, or without one of what is evaluated."""
    task = tasks.get(getattr(stage.config, "task", ""))
    if task is None:
        split, known = (
            getattr(stage.config, "split", None),
            {name for s in stages for name in getattr(s.config, "splits", ())},
        )
        if isinstance(split, str) and split not in known:
            raise ConfigError(
                f"{where}: stage '{stage.name}': split names '{split}', which no stage evaluates{nearest(split, known)}."
            )
        return
    for key in type(stage.config).model_fields:
        if key not in ("split", "splits") and not key.endswith("_split"):
            continue
        value = getattr(stage.config, key)
        for split in [value] if isinstance(value, str) else value or ():
            if split not in task.splits:
                raise ConfigError(
                    f"{where}: stage '{stage.name}': {key} names '{split}', which is no split of task '{task.name}'"
                    f"{nearest(split, task.splits)}."
                )
