"""The graph of a recipe: stages are nodes, `base` and `models` are the edges.

A reference is the name of an EARLIER stage that makes a model, with `@step` for one that it kept on the way (`keep_every`; `@*` in a
list stands for all of them), or else the name of a model (a catalogue name, a folder, a file, a
run folder, a hub repository). The order of the recipe is the order of the run, so the graph has no cycle by construction.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from trilaw.core.config import Config
from trilaw.core.errors import ConfigError, nearest
from trilaw.core.rundir import split_step

MOST_KEPT = 10_000  # models of one stage


def references(config: Config) -> list[tuple[str, str]]:
    """The edges into a stage: pairs of the key (`base` or `models`) and the name that it gives."""
    edges: list[tuple[str, str]] = []
    base = getattr(config, "base", None)
    if isinstance(base, str) and base:
        edges.append(("base", base))
    edges += [("models", name) for name in getattr(config, "models", ())]
    return edges


def expand(config: Config, configs: Mapping[str, Config]) -> Config:
    """`config` with each `stage@*` of its `models` replaced by the models that this stage keeps, in order (none if it keeps none).

    A name of a stage that cannot keep any stays as it is. Raises ConfigError for more than `MOST_KEPT` of them.
    """
    models = getattr(config, "models", None)
    if not isinstance(models, list) or not any(name.endswith("@*") for name in models):
        return config
    found: dict[str, None] = {}  # each once, though `zero@5` may be listed beside `zero@*`
    for name in models:
        stage = name.removesuffix("@*")
        whole = stage != name and hasattr(configs.get(stage), "keep_every")
        found |= dict.fromkeys(_kept_models(stage, configs[stage]) if whole else [name])
    return config.model_copy(update={"models": list(found)})


def kept(config: Config) -> range:
    """The steps whose models a stage keeps."""
    every, steps = getattr(config, "keep_every", 0), getattr(config, "steps", 0)
    return range(every, steps, every) if every else range(0)


def _kept_models(stage: str, config: Config) -> list[str]:
    every, steps = getattr(config, "keep_every", 0), getattr(config, "steps", 0)
    if every and steps // every > MOST_KEPT:
        raise ConfigError(f"Stage '{stage}' keeps more than {MOST_KEPT:,} models: set a larger keep_every.")
    return [f"{stage}@{step}" for step in kept(config)]


def check(stages: Sequence[tuple[str, Config, bool]], where: str) -> None:
    """Refuse an edge to a later stage, to the stage itself, or to one that makes no model.

    stages: name, config and whether the stage makes a model, in the order of the recipe. Raises ConfigError.
    """
    makes = {name: model for name, _, model in stages}
    configs = {name: config for name, config, _ in stages}
    earlier: list[str] = []
    for name, config, _ in stages:
        for key, reference in references(config):
            place = f"{where}: stage '{name}': {key} = '{reference}'"
            target = stage_of(reference, makes)
            if target == name:
                raise ConfigError(f"{place} is the stage itself: name an earlier stage or a model.")
            if target in makes and target not in earlier:
                raise ConfigError(f"{place} comes later in the recipe: put stage '{target}' before stage '{name}'.")
            if target in makes and not makes[target]:
                known = [other for other in earlier if makes[other]]
                raise ConfigError(f"{place} makes no model{nearest(target, known)}.")
            if target in makes and target != reference:
                _check_kept(configs[target], reference, place)
        earlier.append(name)


def outside(stages: Sequence[tuple[str, Config, bool]]) -> list[tuple[str, str, str]]:
    """References that are no stage's name, so must be models: stage, key and name of each."""
    names = {name for name, _, _ in stages}
    edges = [(name, key, ref) for name, config, _ in stages for key, ref in references(config)]
    return [edge for edge in edges if stage_of(edge[2], names) not in names]


def stage_of(reference: str, stages: Container[str]) -> str:
    """The stage that a reference leads to: `zero` of `zero@20` if there is such a stage, else the reference itself."""
    stage, step = split_step(reference)
    return stage if step is not None and stage in stages else reference


def _check_kept(config: Config, reference: str, place: str) -> None:
    """The stage must keep its model of that step."""
    stage, step = split_step(reference)
    if step not in kept(config):
        if not hasattr(config, "keep_every"):
            raise ConfigError(f"{place} is not kept, a stage of this kind keeps its last model only: name '{stage}'.")
        near = nearest(reference, _kept_models(stage, config))
        raise ConfigError(f"{place} is not kept{near}: set keep_every of stage '{stage}' to fit.")
