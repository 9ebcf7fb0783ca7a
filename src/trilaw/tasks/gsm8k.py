"""GSM8K: grade-school word problems with worked solutions (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems").

A row is {"question", "answer"}; the answer is a worked text with calculator marks <<48/2=24>> and a last line "#### 24". Rows come
from JSONL files in that layout (`data`, see `tasks/jsonl.py`), or else from the Hugging Face hub, where `openai/gsm8k` is stored
as Parquet: reading that needs pyarrow, which is not a dependency of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from typing import Any

from pydantic import field_validator

from trilaw.core.config import Config
from trilaw.core.errors import SourceError, TaskError
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.tasks import jsonl
from trilaw.tasks.split import check_split
from trilaw.tasks.verifiers import marks
from trilaw.tasks.verifiers.number import canonical, final_number, single
from trilaw.tasks.verifiers.proof import SAMPLE, prove

HUB = "openai/gsm8k"
_MARK = re.compile(r"<<[^<>\n]{0,200}>>")


class GSM8KConfig(Config):
    """data: a JSONL file (divided by hash into train and test), a table {train = FILE, test = FILE}, or nothing: from the hub."""

    data: jsonl.Data | None = None
    instruction: str = "Think step by step, then end with 'Answer: ' and the number."

    @field_validator("data")
    @classmethod
    def _splits(cls, data: jsonl.Data | None) -> jsonl.Data | None:
        return jsonl.check(data)


class GSM8K:
    """The task; see the head of the file."""

    name = "gsm8k"
    description = "grade-school word problems (GSM8K)"

    def __init__(self, config: GSM8KConfig | None = None) -> None:
        self.config = config or GSM8KConfig()
        self.splits: tuple[str, ...] = ("train", "test") if self.config.data is None else jsonl.splits(self.config.data)
        self._rows: dict[str, list[jsonl.Row]] = {}

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        return [self._problem(row) for row in self._drawn(split, seed, limit)]

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        """The rows' own solutions, calculator marks taken out, closed by "Answer: N"."""
        return [Example(self._messages(row), _solution(row)) for row in self._drawn(split, seed, limit)]

    def verify(self, problem: Problem, text: str) -> Score:
        """1 when the number behind the last mark ("Answer:", "####", \\boxed), else the last number, equals the gold one."""
        rest = marks.after_thinking(text)
        found = None if rest is None else final_number(rest)
        if found is None:
            return Score(0.0, detail="there is no number" if rest is not None else "the thinking was never closed")
        extracted = canonical(found)
        right = extracted == problem.answer
        return Score(float(right), extracted, "" if right else f"the answer is {problem.answer}")

    def validate(self) -> list[str]:
        complaints: list[str] = []
        for split in self.splits:
            complaints += prove(
                self.problems(split, limit=SAMPLE),
                self.verify,
                lambda problem: f"Answer: {problem.answer}",
                lambda problem: f"Answer: {problem.answer}1",
            )
        return complaints + jsonl.shared(self.splits, lambda split: [row.text("question") for row in self._load(split)])

    def _drawn(self, split: str, seed: int, limit: int | None) -> list[jsonl.Row]:
        check_split(self.name, split, self.splits)
        rows = list(self._load(split))
        rng(self.name, "order", split, seed).shuffle(rows)
        return rows[:limit]

    def _load(self, split: str) -> list[jsonl.Row]:
        if split not in self._rows:
            data = self.config.data
            rows = _hub(split) if data is None else jsonl.read_split(data, split, lambda row: row.text("question"))
            self._rows[split] = rows
        return self._rows[split]

    def _messages(self, row: jsonl.Row) -> tuple[Message, ...]:
        return (Message(role="user", content=f"{row.text('question').strip()}\n{self.config.instruction}".rstrip()),)

    def _problem(self, row: jsonl.Row) -> Problem:
        return Problem(row.id, self._messages(row), _gold(row))


def _gold(row: jsonl.Row) -> str:
    _, mark, number = row.text("answer").rpartition("####")
    value = single(number) if mark else None
    if value is None:
        raise TaskError(f"{row.where}: 'answer' must end with a line '#### ' and the number.")
    return canonical(value)


def _solution(row: jsonl.Row) -> str:
    worked = _MARK.sub("", row.text("answer").rpartition("####")[0]).strip()
    return f"{worked}\nAnswer: {_gold(row)}".lstrip()


def _hub(split: str) -> list[jsonl.Row]:
    if importlib.util.find_spec("pyarrow") is None:
        raise SourceError(
            f"{HUB} on the Hugging Face hub is stored as Parquet: install pyarrow to read it, "
            "or give JSONL files in GSM8K's layout as the task's `data`."
        )
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(HUB, f"main/{split}-00000-of-00001.parquet", repo_type="dataset")
    except Exception as error:  # the hub's errors share no class of their own with those of the network below it
        raise SourceError(
            f"{HUB} could not be had from the Hugging Face hub ({type(error).__name__}): check the network, "
            "or give JSONL files in GSM8K's layout as the task's `data`."
        ) from error
    parquet: Any = importlib.import_module("pyarrow.parquet")
    values = parquet.read_table(path, columns=["question", "answer"]).to_pylist()
    return [jsonl.Row(f"{HUB} {split}, row {i}", f"{split}-{i}", value) for i, value in enumerate(values, 1)]
