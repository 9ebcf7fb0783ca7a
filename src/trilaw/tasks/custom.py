"""Problems of the user's own, without a change in this package.

A JSONL file: each line {"prompt": "..."} or {"messages": [{"role", "content"}, ...]}, with "answer" and, if wanted, "id" and a
worked "solution". The answer is compared by a verifier: `exact` text, `number`, or `choice` (a letter).

A Python file, trusted code of the user's, with

    def verify(problem, text): ...             # -> float in [0, 1], bool, or trilaw.core.types.Score
    def problems(split, seed, limit): ...      # -> Problems, or dicts as in the JSONL; else FILE.jsonl next to FILE.py is read
    def solution(problem): ...                 # optional: a completion that must be accepted (default "Answer: " + answer)
    SPLITS = ("train", "test")                 # optional, with `problems`
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self, cast

from pydantic import model_validator

from trilaw.core.config import Config
from trilaw.core.errors import TaskError
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Role, Score
from trilaw.tasks import jsonl
from trilaw.tasks.split import check_split
from trilaw.tasks.verifiers import marks
from trilaw.tasks.verifiers.number import canonical, final_number, single
from trilaw.tasks.verifiers.proof import SAMPLE, prove
from trilaw.tasks.verifiers.text import final_choice, final_text

_EXTRACT: dict[str, Callable[[str], str | None]] = {
    "exact": final_text,
    "choice": final_choice,
    "number": lambda answer: None if (value := final_number(answer)) is None else canonical(value),
}


class CustomConfig(Config):
    """data: a JSONL file (divided by hash into train and test) or a table {train = FILE, test = FILE}. python: a Python file."""

    data: jsonl.Data | None = None
    python: str | None = None
    verifier: Literal["exact", "number", "choice"] = "exact"
    instruction: str = ""  # put under each prompt on a line of its own

    @model_validator(mode="after")
    def _sound(self) -> Self:
        jsonl.check(self.data)
        if self.data is None and self.python is None:
            raise ValueError("a custom task needs `data` (a JSONL file) or `python` (a Python file)")
        return self


class Custom:
    """The task; see the head of the file."""

    name = "custom"

    def __init__(self, config: CustomConfig) -> None:
        """Raises TaskError when the Python file cannot be imported or lacks what it needs."""
        self.config = config
        self._data = config.data
        self._module = _load(Path(config.python)) if config.python else None
        self._generates = self._module is not None and callable(getattr(self._module, "problems", None))
        if config.python and not self._generates and self._data is None:
            beside = Path(config.python).with_suffix(".jsonl")
            if not beside.is_file():
                raise TaskError(
                    f"{config.python} has no function problems(split, seed, limit), and there is no {beside}: write one of them."
                )
            self._data = str(beside)
        if self._generates:
            self.splits: tuple[str, ...] = _splits(self._module, config.python)
        else:
            self.splits = jsonl.splits(cast(jsonl.Data, self._data))
        self.description = (
            ((self._module and self._module.__doc__) or f"your own problems ({config.verifier} answers)")
            .strip()
            .split("\n")[0]
        )
        self._rows: dict[str, list[jsonl.Row]] = {}

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        check_split(self.name, split, self.splits)
        if self._generates:
            return self._generated(split, seed, limit)
        return [self._problem(row) for row in self._drawn(split, seed, limit)]

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        """Worked solutions: the rows' "solution", or what the Python file's `solution(problem)` gives.

        Raises TaskError when a row has none or the Python file has no such function.
        """
        problems = self.problems(split, seed=seed, limit=limit)
        if (
            self._module is not None
            and not hasattr(self._module, "solution")
            and any("solution" not in p.meta for p in problems)
        ):
            raise TaskError(
                f"{self.config.python} has no function solution(problem), so there are no worked examples to learn from."
            )
        for problem in problems:
            if self._module is None and "solution" not in problem.meta:
                raise TaskError(f"{problem.meta['where']}: there is no 'solution' to learn from.")
        return [Example(problem.messages, self._solution(problem)) for problem in problems]

    def verify(self, problem: Problem, text: str) -> Score:
        """The verdict of the Python file, or of the chosen verifier. What user code raises becomes `Score.error`."""
        if self._module is not None:
            try:
                return _score(self._module.verify(problem, text))
            except (Exception, SystemExit) as error:  # code of the user's: whatever it raises is data, not a crash
                return Score(0.0, error=f"verifier: {type(error).__name__}: {error}"[:300])
        rest = marks.after_thinking(text)
        found = None if rest is None else _EXTRACT[self.config.verifier](rest)
        if found is None:
            return Score(0.0, detail="there is no answer" if rest is not None else "the thinking was never closed")
        right = found == problem.answer
        return Score(float(right), found, "" if right else f"the answer is {problem.answer}")

    def validate(self) -> list[str]:
        complaints: list[str] = []
        for split in self.splits:
            problems = self.problems(split, limit=SAMPLE)
            complaints += prove(problems, self.verify, self._solution, self._corrupted)
            ids = [problem.id for problem in problems]
            if len(set(ids)) < len(ids):
                complaints.append(f"The split '{split}' has problems with the same id.")
        if self._generates:
            return complaints
        return complaints + jsonl.shared(
            self.splits, lambda split: [_content(_messages(row, "")) for row in self._load(split)]
        )

    def _solution(self, problem: Problem) -> str:
        if self._module is not None and hasattr(self._module, "solution"):
            try:
                return str(self._module.solution(problem))
            except (Exception, SystemExit) as error:
                place = f"{self.config.python}: solution() of problem '{problem.id}'"
                raise TaskError(f"{place} raised {_told(error)}.") from error
        return str(problem.meta.get("solution", f"Answer: {problem.answer}"))

    def _corrupted(self, problem: Problem) -> str:
        if self._module is None and self.config.verifier == "choice":
            return f"Answer: {'B' if problem.answer == 'A' else 'A'}"
        return f"Answer: {problem.answer}1"

    def _generated(self, split: str, seed: int, limit: int | None) -> list[Problem]:
        place = f"{self.config.python}: problems({split!r}, {seed}, {limit})"
        try:
            items = list(cast(ModuleType, self._module).problems(split, seed, limit))
        except (Exception, SystemExit) as error:
            raise TaskError(f"{place} raised {_told(error)}.") from error
        made: list[Problem] = []
        for number, item in enumerate(items[:limit], 1):
            if isinstance(item, Problem):
                made.append(item)
            elif isinstance(item, dict):
                made.append(self._problem(jsonl.Row(f"{place}, item {number}", f"{split}-{seed}-{number}", item)))
            else:
                raise TaskError(
                    f"{place}, item {number}: a Problem or a dict is needed, this is a {type(item).__name__}."
                )
        return made

    def _drawn(self, split: str, seed: int, limit: int | None) -> list[jsonl.Row]:
        rows = list(self._load(split))
        rng(self.name, "order", split, seed).shuffle(rows)
        return rows[:limit]

    def _load(self, split: str) -> list[jsonl.Row]:
        if split not in self._rows:
            key = lambda row: _content(_messages(row, ""))  # noqa: E731
            self._rows[split] = jsonl.read_split(cast(jsonl.Data, self._data), split, key)
        return self._rows[split]

    def _problem(self, row: jsonl.Row) -> Problem:
        answer = row.value.get("answer")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
            raise TaskError(f"{row.where}: 'answer' must be a text or a number.")
        gold = str(answer) if self._module is not None else self._gold(str(answer), row)
        meta = {key: value for key, value in row.value.items() if key not in ("id", "prompt", "messages", "answer")}
        return Problem(
            str(row.value.get("id", row.id)),
            _messages(row, self.config.instruction),
            gold,
            {**meta, "where": row.where},
        )

    def _gold(self, answer: str, row: jsonl.Row) -> str:
        """The gold answer in the verifier's canonical form."""
        if len(answer) > marks.LONGEST or "\n" in answer.strip():
            raise TaskError(f"{row.where}: the answer must be one line of at most {marks.LONGEST} characters.")
        if self.config.verifier == "number":
            value = single(answer)
            gold = None if value is None else canonical(value)
        else:
            gold = _EXTRACT[self.config.verifier](f"Answer: {answer}")
        if gold is None:
            raise TaskError(
                f"{row.where}: the answer {answer[:60]!r} is nothing that the verifier '{self.config.verifier}' can read."
            )
        return gold


def _content(messages: tuple[Message, ...]) -> str:
    return "\n".join(message["content"] for message in messages)


def _messages(row: jsonl.Row, instruction: str) -> tuple[Message, ...]:
    if "messages" not in row.value:
        turns = [Message(role="user", content=row.text("prompt"))]
    else:
        turns = []
        given = row.value["messages"]
        for turn in given if isinstance(given, list) else [None]:
            role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
            if role not in ("system", "user", "assistant") or not isinstance(content, str):
                raise TaskError(f'{row.where}: \'messages\' must be a list of {{"role": "user", "content": "..."}}.')
            turns.append(Message(role=cast(Role, role), content=content))
        if not turns or turns[-1]["role"] != "user":
            raise TaskError(f"{row.where}: the last of 'messages' must be the user's.")
    if instruction:
        turns[-1] = Message(role="user", content=f"{turns[-1]['content']}\n{instruction}")
    return tuple(turns)


def _load(path: Path) -> ModuleType:
    """Import a Python file under a module name of its own, so that two tasks never meet."""
    if not path.is_file():
        raise TaskError(f"There is no file {path}: give the path of a Python file as the task's `python`.")
    name = f"trilaw_task_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(error, module)
        raise TaskError(f"{path}{f', line {line}' if line else ''}: {_told(error)}.") from error
    if not callable(getattr(module, "verify", None)):
        raise TaskError(f"{path} has no function verify(problem, text): write one that gives a number from 0 to 1.")
    return module


def _splits(module: ModuleType | None, where: str | None) -> tuple[str, ...]:
    given = getattr(module, "SPLITS", ("train", "test"))
    if not isinstance(given, tuple | list) or not given or not all(isinstance(name, str) and name for name in given):
        raise TaskError(f'{where}: SPLITS must be a tuple of names, such as ("train", "test").')
    return tuple(given)


def _told(error: BaseException) -> str:
    """An exception of the user's code on one line."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line_in(error: BaseException, module: ModuleType) -> int | None:
    """The deepest line of the module's file in the error's traceback."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals is vars(module):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _score(verdict: Any) -> Score:
    value = verdict.value if isinstance(verdict, Score) else verdict
    if not isinstance(value, bool | int | float):
        return Score(0.0, error=f"verifier: it returned a {type(value).__name__}, not a number")
    if not 0 <= value <= 1:  # not a number (NaN) fails this too
        return Score(0.0, error=f"verifier: it returned {value:g}, which is not between 0 and 1")
    return verdict if isinstance(verdict, Score) else Score(float(value))
