"""The sample store: every sample of an evaluation on disk, one JSON object a line, so that work is never done twice.

A store is a folder with `samples.jsonl`, or a file `<name>.jsonl` itself; beside it lies `<name>.settings.json`, which says how the
samples were drawn. A store takes only samples of equal settings. The number of problems and of samples is no setting: a sample's
seed does not depend on them, so a store can be widened.

A line holds `problem`, `sample` (its index), `messages`, `gold`, `text`, `tokens`, `logprobs` (if asked for), `stop`, `value`,
`extracted`, `detail`, `error`, `usage`, `seconds_elapsed` (wall clock of the whole evaluation until then, over all attempts).
Lines are appended and flushed as samples finish; a torn last line is dropped on opening. At the end the file is rewritten in the
order of the problems, so an evaluation that was killed and gone on with leaves the same file as one that was not, apart from times
and from what the prompt's computation was shared among (`cached_tokens`, `flops`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from trilaw.core.errors import RequestError, RunError
from trilaw.core.rundir import TEMPORARY, read_json, unusable, write_json
from trilaw.core.seeds import derive
from trilaw.core.types import Message, Problem, Sample, Score, StopReason, Usage

Key = tuple[str, int]  # problem id, sample index
MOST = 1e30  # of a number in a line: no sample has cost more


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the metrics need of one sample; the rest stays on disk. `seconds_elapsed` as in the file."""

    value: float
    extracted: str | None
    error: str | None
    stop: StopReason
    usage: Usage
    seconds_elapsed: float
    question: (
        int  # a digest of messages and gold answer: a stored sample must still answer the problem that is asked now
    )


def files(store: Path) -> tuple[Path, Path]:
    """The samples file and the settings file of a store."""
    samples = store if store.suffix == ".jsonl" else store / "samples.jsonl"
    return samples, samples.with_suffix(".settings.json")


def read_settings(store: Path) -> dict[str, Any]:
    """How the samples of a store were drawn. Raises RunError if there is no store."""
    path = files(store)[1]
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise RunError(f"{path} is broken (it is no table): restore it, or name another place for the samples.")
    return settings


def read_rows(store: Path) -> Iterator[dict[str, Any]]:
    """The lines of a store, in order, one in memory at a time; a torn last line is left out. Raises RunError if it cannot be read."""
    path, _ = files(store)
    try:
        with path.open("rb") as file:
            for _, row in _parsed(file, path):
                yield row
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from None


def _parsed(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line's length in bytes, and its object."""
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            return  # torn by a kill
        try:
            row = json.loads(line)
            good = isinstance(row["problem"], str) and isinstance(row["sample"], int)
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise RunError(f"{path}, line {number}, is no stored sample: restore the file or delete it.") from None
        yield len(line), row


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        value=row["value"],
        extracted=row["extracted"],
        error=row["error"],
        stop=row["stop"],
        usage=Usage(**row["usage"]),
        seconds_elapsed=row["seconds_elapsed"],
        question=_question(row["messages"], row["gold"]),
    )


def _sound(outcome: Outcome) -> bool:
    """Whether a line that was read has numbers where metrics compute with them, and an answer that votes can count."""
    numbers = (outcome.value, outcome.seconds_elapsed, *asdict(outcome.usage).values())
    return isinstance(outcome.extracted, str | None) and all(
        isinstance(n, int | float) and abs(n) <= MOST for n in numbers
    )


def _question(messages: Sequence[Message], gold: str) -> int:
    return derive(json.dumps([[{"role": m["role"], "content": m["content"]} for m in messages], gold]))


class Store:
    """Appends to one store and knows what it holds. Without a path it keeps the outcomes in memory only."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any], *, logprobs: bool = False) -> None:
        """Open a store or make one.

        Raises RequestError if it holds samples of other settings, RunError if it cannot be read or written.
        """
        self.outcomes: dict[Key, Outcome] = {}
        self._logprobs = logprobs
        self._places: dict[Key, tuple[int, int]] = {}  # offset and length of each line, in file order
        self._end = 0
        self._file: BinaryIO | None = None
        self.path: Path | None = None
        if path is None:
            return
        self.path, settings_path = files(path)
        self._agree(settings_path, json.loads(json.dumps(dict(settings))))
        try:
            if self.path.exists():
                self._load(self.path)
            self._file = self.path.open("ab")
        except OSError as error:
            raise unusable(error, self.path) from None

    def _agree(self, settings_path: Path, settings: dict[str, Any]) -> None:
        assert self.path is not None
        if not settings_path.exists():
            if self.path.exists() and self.path.stat().st_size:
                raise RequestError(
                    f"{self.path} has no {settings_path.name} beside it: name another place for the samples."
                )
            write_json(settings_path, settings)
            return
        found = read_settings(self.path)
        if found != settings:
            key = next(k for k in [*settings, *found] if found.get(k) != settings.get(k))
            raise RequestError(
                f"{self.path} holds samples drawn with {key} = {json.dumps(found.get(key))}, "
                f"not {json.dumps(settings.get(key))}: name another place for these."
            )

    def _load(self, path: Path) -> None:
        with path.open("rb+") as file:
            for length, row in _parsed(file, path):
                key = (row["problem"], row["sample"])
                if key not in self.outcomes:
                    try:
                        outcome: Outcome | None = _outcome(row)
                    except (KeyError, TypeError):
                        outcome = None
                    if outcome is None or not _sound(outcome):
                        raise RunError(f"{path}: sample {key[1]} of problem {key[0]} is incomplete: delete its line.")
                    self.outcomes[key] = outcome
                    self._places[key] = (self._end, length)
                self._end += length
            file.truncate(self._end)

    def look_up(self, problem: Problem, index: int) -> Outcome | None:
        """The stored outcome of a sample, if there is one. Raises RequestError if it answered another question of the same id."""
        outcome = self.outcomes.get((problem.id, index))
        if outcome is not None and outcome.question != _question(problem.messages, problem.answer):
            raise RequestError(
                f"{self.path} holds samples of another problem '{problem.id}': the task has changed since; name another place."
            )
        return outcome

    def add(
        self, problem: Problem, index: int, sample: Sample, score: Score, usage: Usage, seconds_elapsed: float
    ) -> None:
        """Keep one sample. Raises RunError if it cannot be written (what was stored before stays)."""
        key = (problem.id, index)
        row: dict[str, Any] = {
            "problem": problem.id,
            "sample": index,
            "messages": list(problem.messages),
            "gold": problem.answer,
            "text": sample.text,
            "tokens": list(sample.tokens),
            **({"logprobs": list(sample.logprobs)} if self._logprobs else {}),
            "stop": sample.stop,
            "value": score.value,
            "extracted": score.extracted,
            "detail": score.detail,
            "error": score.error,
            "usage": asdict(usage),
            "seconds_elapsed": round(seconds_elapsed, 6),
        }
        if self._file is not None:
            line = (json.dumps(row) + "\n").encode()
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise unusable(error, self.path) from None
            self._places[key] = (self._end, len(line))
            self._end += len(line)
        self.outcomes[key] = _outcome(row)

    def finish(self, order: Sequence[Key]) -> None:
        """Put the lines of `order` first, in that order, whatever else the store holds after them; durable when it returns."""
        if self.path is None or self._file is None:
            return
        wanted = dict.fromkeys(order)
        keys = [*wanted, *(key for key in self._places if key not in wanted)]
        places = [self._places[key] for key in keys]
        temporary = self.path.with_name(f"{TEMPORARY}{os.getpid()}-{self.path.name}")
        try:
            os.fsync(self._file.fileno())
            if places == sorted(places) and sum(length for _, length in places) == self._end:
                return
            with self.path.open("rb") as old, temporary.open("wb") as new:
                for offset, length in places:
                    old.seek(offset)
                    new.write(old.read(length))
                new.flush()
                os.fsync(new.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunError(
                f"{self.path} cannot be rewritten in order: {error.strerror or error}; no sample is lost."
            ) from None
        finally:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # all lines were flushed, or the one that could not be was complained of already
                file.close()
