"""Models by name: the shipped catalogue, a folder or config.json of the user's, or what lies in the local Hugging Face cache. No network.

A catalogue entry is models/<name>.json: those keys of the published config.json that decide sizes, `_source` (where they were read), `_names`
(other names of the same shape, the hub's among them) and, where it is not 16 bits, `_published` (how it was trained and is given out). Only sizes are
read here; to load weights is `trilaw.model`'s business.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from trilaw.core.errors import ModelError, RequestError, nearest
from trilaw.core.numbers import Numbers

CONFIG = "config.json"
MAX_NAME = 1_000  # characters; system calls complain of longer paths in their own ways


@cache
def catalogue() -> tuple[str, ...]:
    """The names of the shipped models, in alphabetical order."""
    folder = resources.files("trilaw.planner").joinpath("models")
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")))


def model(name_or_path: str) -> Numbers:
    """The numbers of a model.

    Tried in this order: a name of the catalogue or one of its other names, with or without the owner, in any case ("deepseek-v3",
    "DeepSeek-V3", "deepseek-ai/DeepSeek-V3"); a folder with a config.json, or such a file; `owner/name` in the local Hugging Face cache. A
    folder that is called like a catalogue entry is reached as "./name". Raises RequestError for a name that none of them knows, ModelError
    for a config.json that cannot be read.
    """
    if not name_or_path.strip():
        raise RequestError(f"The name of a model is empty (known: {', '.join(catalogue())}).")
    if len(name_or_path) > MAX_NAME:
        raise RequestError(f"A name of {len(name_or_path):,} characters is no model (at most {MAX_NAME:,} are read).")
    shipped = _catalogued(name_or_path)
    if shipped is not None:
        return _shipped(shipped)
    path = Path(name_or_path).expanduser()
    try:
        if path.is_dir():
            if not (path / CONFIG).is_file():
                raise RequestError(f"The folder {path} has no {CONFIG}, so it is no model.")
            return _read(path / CONFIG, path.resolve().name)
        if path.is_file():
            return _read(path, path.resolve().parent.name)
    except OSError as error:  # a name too long for the system, a folder that may not be entered
        raise RequestError(f"'{name_or_path}' cannot be looked at: {error.strerror}.") from error
    except ValueError as error:  # a null character
        raise RequestError(f"{name_or_path!r} is no name and no path: {error}.") from error
    cached = _cached(name_or_path.strip())
    if cached is not None:
        return _read(cached, name_or_path.strip())
    raise RequestError(
        f"'{name_or_path}' is no model of the catalogue, no folder with a {CONFIG}, and not in the Hugging Face cache "
        f"({_cache()}){_near(name_or_path)}."
    )


def source(name: str) -> str:
    """Where the sizes of a catalogue entry were read. Raises RequestError for a name that the catalogue does not have."""
    shipped = _catalogued(name)
    if shipped is None:
        raise RequestError(f"'{name}' is no model of the catalogue{_near(name)}.")
    return str(_entry(shipped)["_source"])


@dataclass(frozen=True, slots=True)
class Published:
    """How a model was trained (a name of `memory.PRECISIONS`) and how many bits a weight of its published files has."""

    precision: str
    weight_bits: int
    source: str


def published(name: str) -> Published | None:
    """What its authors say of a catalogue model that is not all 16 bits; None for others, and for names that the catalogue does not have."""
    shipped = _catalogued(name)
    found = None if shipped is None else _entry(shipped).get("_published")
    return None if found is None else Published(**found)


def _near(name: str) -> str:
    """What `nearest` says of all names, or its list of the catalogue alone where none is near."""
    hint = nearest(name.strip().casefold(), _names())
    return hint if hint.startswith(" (did") else f" (known: {', '.join(catalogue())})"


@cache
def _entry(name: str) -> Mapping[str, Any]:
    text = resources.files("trilaw.planner").joinpath("models", f"{name}.json").read_text(encoding="utf-8")
    entry: dict[str, Any] = json.loads(text)
    return entry


@cache
def _shipped(name: str) -> Numbers:
    return Numbers.from_config(_entry(name), f"{name}.json", name)


def _catalogued(name: str) -> str | None:
    """The catalogue entry that a name stands for. Other names stand in the entries, which are read only where the name is none itself."""
    plain = name.strip().casefold()
    return plain if plain in catalogue() else _names().get(plain)


@cache
def _names() -> Mapping[str, str]:
    """Every name in lower case, and the catalogue entry that it stands for."""
    names: dict[str, str] = {}
    for entry in catalogue():
        for other in _entry(entry)["_names"]:
            names[other.casefold()] = names[other.rpartition("/")[2].casefold()] = entry
    return names | {entry: entry for entry in catalogue()}


def _read(path: Path, name: str) -> Numbers:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError is also what wrong encodings raise
        raise ModelError(f"{path}: this is no JSON ({error}).") from error
    except OSError as error:
        raise ModelError(f"{path}: the file cannot be read ({error.strerror}).") from error
    return Numbers.from_config(config, str(path), name)


def _cache() -> Path:
    """Where huggingface_hub keeps its snapshots: HF_HUB_CACHE, or `hub` in HF_HOME, or in XDG_CACHE_HOME/huggingface."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or base / "huggingface").expanduser() / "hub"


def _cached(name: str) -> Path | None:
    """The config.json of `owner/name` in the Hugging Face cache: that of its main branch, else the newest; None when there is none."""
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or any(part.startswith(".") for part in parts):
        return None
    folder = _cache() / f"models--{parts[0]}--{parts[1]}"
    try:
        head = folder / "refs" / "main"
        if head.is_file():
            main = folder / "snapshots" / head.read_text(encoding="utf-8").strip() / CONFIG
            if main.is_file():
                return main
        found = [path for path in folder.glob(f"snapshots/*/{CONFIG}") if path.is_file()]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)
    except (OSError, ValueError):
        return None
