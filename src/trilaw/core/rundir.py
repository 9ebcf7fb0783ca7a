"""The run folder: atomic writes, a lock, and which model a name like `runs/tiny#base` means.

    recipe.toml        as given                         resolved.json   every default filled in
    manifest.json      versions, hardware, seed, git    events.jsonl    metrics, one object a line
    stages/<name>/     samples.jsonl, checkpoints/step-N/, model/, done.json (written last: the stage is complete)
    report.html, report.json

A file or folder appears under its final name only when it is whole: written to a temporary name, fsynced, renamed. A kill at any
moment leaves the old state or the new one. Full disks and unwritable folders raise RunError and leave the old state.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError, RunError, nearest

TEMPORARY = ".tmp-"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # of runs and stages, which are names of folders too
VERSION = 1  # of resolved.json
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unusable(error: OSError, path: Path | str | None = None, verb: str = "cannot be written") -> RunError:
    """What the system says about a file or folder, as a sentence that tells what to do about it."""
    where = str(path or error.filename or "The output")
    reason = (error.strerror or str(error)).rstrip(".")
    if error.errno in DISK_FULL:
        return RunError(
            f"{where} {verb}, the disk is full ({reason}): free space and give the same command again; what was saved is intact."
        )
    if error.errno in _READ_ONLY:
        return RunError(f"{where} {verb} ({reason}): make it writable, or choose another place.")
    if error.errno in _IN_THE_WAY:
        return RunError(f"{where} {verb}, a file is in the way ({reason}): choose another place.")
    return RunError(f"{where} {verb} ({reason}): choose another place; what was saved is intact.")


@contextmanager
def complaining(path: Path) -> Iterator[None]:
    """Inside the block an OSError becomes a RunError about `path`."""
    try:
        yield
    except OSError as error:
        raise unusable(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Write a file atomically. Raises RunError if the disk is full or the folder unwritable."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for what is no text."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with complaining(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
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
    except FileNotFoundError:
        raise RunError(f"{path} is missing: restore it, or choose another folder.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is broken ({error}): restore it, or choose another folder.") from None


def read_resolved(folder: Path) -> dict[str, Any]:
    """resolved.json of a run, with a list of named stages in it. Raises RunError if it is missing, broken, or of another version."""
    path = folder / "resolved.json"
    value: dict[str, Any] = read_json(path)
    stages = value.get("stages") if isinstance(value, dict) else None
    if not isinstance(stages, list) or not all(isinstance(s, dict) and is_name(s.get("name")) for s in stages):
        raise RunError(f"{path} is broken (it lists no named stages): restore it, or choose another folder.")
    if value.get("version", VERSION) != VERSION:
        raise RunError(
            f"{path} is no file of version {VERSION}: use the Trilaw that wrote it, or choose another folder."
        )
    return value


def is_name(value: Any) -> bool:
    """Whether a run or a stage can be called so."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def read_done(path: Path) -> dict[str, Any]:
    """A stage's done.json. Raises RunError if it is missing or broken."""
    try:
        value = read_json(path)
    except RunError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get("model"), str | None):
        raise broken(path)
    return value


def broken(done: Path) -> RunError:
    """The complaint about a done.json that is none."""
    return RunError(f"{done} is broken: delete it, and `trilaw run` finishes the stage anew.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Build a folder under a temporary name inside the block; it gets its name, durably, when the block ends without an error.

    An older folder of that name is replaced. Raises RunError on a full disk or an unwritable place.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    with complaining(path):
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
def lock(folder: Path, otherwise: str = "give another folder with --out") -> Iterator[None]:
    """Hold a folder for one process. Raises RunError when another one has it; `otherwise` says what to do but wait."""
    with complaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(f"Another process is working in {folder}: wait for it, or {otherwise}.") from None
    try:
        yield
    finally:
        file.close()


def is_run(folder: Path) -> bool:
    try:
        return (folder / "resolved.json").is_file()
    except OSError:  # a name that no file system takes
        return False


def stages_done(folder: Path) -> dict[str, dict[str, Any]]:
    """done.json of each complete stage, by name, in the order in which the recipe lists them."""
    order = [stage["name"] for stage in read_resolved(folder)["stages"]]
    files = {name: folder / "stages" / name / "done.json" for name in order}
    return {name: read_done(path) for name, path in files.items() if path.is_file()}


def split_step(name: str) -> tuple[str, int | None]:
    """("zero", 20) of "zero@20", a stage's model as it was after that step; (name, None) of any other name."""
    stage, mark, step = name.rpartition("@")
    return (stage, int(step)) if mark and step.isascii() and step.isdigit() and len(step) < 10 else (name, None)


def kept_model(stage_folder: Path, step: int) -> Path:
    """Where a stage keeps its model of a step."""
    return stage_folder / "kept" / f"step-{step}"


def stage_model(folder: Path, stage: str | None = None) -> Path:
    """The model folder that `folder` (or `folder#stage`, `folder#stage@step`) names: of that stage, or of the last stage that made one.

    Raises RequestError if there is none, RunError if it was made and is gone.
    """
    made: dict[str, str] = {name: done["model"] for name, done in stages_done(folder).items() if done.get("model")}
    if not made:
        raise RequestError(f"{folder} holds no finished model yet: let `trilaw run` complete a training stage first.")
    step = None
    if stage is None:
        stage = list(made)[-1]
    else:
        stage, step = split_step(stage)
    if stage not in made:
        raise RequestError(f"{folder} has no model of a stage '{stage}'{nearest(stage, made)}.")
    if step is not None:
        path = kept_model(folder / "stages" / stage, step)
        if not path.is_dir():
            kept = [f"{stage}@{p.name.removeprefix('step-')}" for p in path.parent.glob("step-*")]
            raise RequestError(f"{folder} kept no model '{stage}@{step}'{nearest(f'{stage}@{step}', kept)}.")
        return path
    path = folder / "stages" / stage / made[stage]
    if not path.is_dir():
        raise RunError(
            f"{path}, the model of stage '{stage}', is gone: restore it, or delete done.json beside it and `trilaw run` makes it anew."
        )
    return path
