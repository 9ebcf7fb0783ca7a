"""The graph of a recipe: stages are nodes, `base` and `models` are the edges.

A reference is the name of an EARLIER stage that makes a model, or else the name of a model (a catalogue name, a folder, a file, a
run folder, a hub repository). The order of the recipe is the order of the run, so the graph has no cycle by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

from trilaw.core.config import Config
from trilaw.core.errors import ConfigError, nearest


def references(config: Config) -> list[tuple[str, str]]:
    """The edges into a stage: pairs of the key (`base` or `models`) and the name that it gives."""
    edges: list[tuple[str, str]] = []
    base = getattr(config, "base", None)
    if isinstance(base, str) and base:
        edges.append(("base", base))
    edges += [("models", name) for name in getattr(config, "models", ())]
    return edges


def check(stages: Sequence[tuple[str, Config, bool]], where: str) -> None:
    """Refuse an edge to a later stage, to the stage itself, or to one that makes no model.

    stages: name, config and whether the stage makes a model, in the order of the recipe. Raises ConfigError.
    """
    makes = {name: model for name, _, model in stages}
    earlier: list[str] = []
    for name, config, _ in stages:
        for key, target in references(config):
            place = f"{where}: stage '{name}': {key} = '{target}'"
            if target == name:
                raise ConfigError(f"{place} is the stage itself: name an earlier stage or a model.")
            if target in makes and target not in earlier:
                raise ConfigError(f"{place} comes later in the recipe: put stage '{target}' before stage '{name}'.")
            if target in makes and not makes[target]:
                known = [other for other in earlier if makes[other]]
                raise ConfigError(f"{place} makes no model{nearest(target, known)}.")
        earlier.append(name)


def outside(stages: Sequence[tuple[str, Config, bool]]) -> list[tuple[str, str, str]]:
    """References that are no stage's name, so must be models: stage, key and name of each."""
    names = {name for name, _, _ in stages}
    return [(name, key, ref) for name, config, _ in stages for key, ref in references(config) if ref not in names]
