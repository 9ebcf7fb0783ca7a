"""The run folder: atomic writes, a lock, and which model a name like `runs/tiny#base` means.

    recipe.toml        as given                         resolved.json   every default filled in
    manifest.json      versions, hardware, seed, git    events.jsonl    metrics, one object a line
    stages/<name>/     samples.jsonl, checkpoints/step-N/, model/, done.json (written last: the stage is complete)
    report.html, report.json

A file or folder appears under its final name only when it is whole: written to a temporary name, fsynced, renamed. A kill at any
moment leaves the old state or the new one. Full disks and unwritable folders raise RunError and leave the old state.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError, RunError, nearest

TEMPORARY = ".tmp-"


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(
            f"{path} cannot be written: {reason}. Free space or choose another folder; what was saved before is intact."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file atomically. Raises RunError if the disk is full or the folder unwritable."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with _complaining(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _fsync(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises RunError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Build a folder under a temporary name inside the block; it gets its name, durably, when the block ends without an error.

    An older folder of that name is replaced. Raises RunError on a full disk or an unwritable place.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with _complaining(path):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _fsync(file)
            _fsync(temporary)
            if path.exists():
                old = path.with_name(f"{TEMPORARY}{os.getpid()}-old-{path.name}")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
            _fsync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind under temporary names."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for one process. Raises RunError when another one has it."""
    with _complaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(
            f"Another process is working in {folder}: wait for it, or give another folder with --out."
        ) from None
    try:
        yield
    finally:
        file.close()


def is_run(folder: Path) -> bool:
    return (folder / "resolved.json").is_file()


def stages_done(folder: Path) -> dict[str, dict[str, Any]]:
    """done.json of each complete stage, by name, in the order in which the recipe lists them."""
    order = [stage["name"] for stage in read_json(folder / "resolved.json")["stages"]]
    files = {name: folder / "stages" / name / "done.json" for name in order}
    return {name: read_json(path) for name, path in files.items() if path.is_file()}


def stage_model(folder: Path, stage: str | None = None) -> Path:
    """The model folder that `folder` (or `folder#stage`) names: of that stage, or of the last stage that made one.

    Raises RequestError if there is none.
    """
    made: dict[str, str] = {name: done["model"] for name, done in stages_done(folder).items() if done.get("model")}
    if not made:
        raise RequestError(f"{folder} holds no finished model yet: let `trilaw run` complete a training stage first.")
    if stage is None:
        stage = list(made)[-1]
    elif stage not in made:
        raise RequestError(f"{folder} has no model of a stage '{stage}'{nearest(stage, made)}.")
    return folder / "stages" / stage / made[stage]
