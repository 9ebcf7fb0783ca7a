"""A toy task that pre-trains, teaches and checks in a few tokens, and a way to run a stage in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from trilaw.core.arch import Arch
from trilaw.core.errors import Stopped
from trilaw.core.events import EventLog
from trilaw.core.protocols import Silent, StageContext, StageResult, Task
from trilaw.core.rundir import new_folder
from trilaw.core.seeds import rng
from trilaw.core.types import Example, Message, Problem, Score
from trilaw.model.hf import save_folder
from trilaw.model.registry import build
from trilaw.model.tokenizer import HFTokenizer

TIMES = ("seconds", "tokens_per_second", "eta")


class Copy:
    """Repeat the digit: `^7?` wants `7`. Procedural: each seed gives other problems, all of the digits 0-9 in words of two."""

    name = "copy"
    splits: tuple[str, ...] = ("train", "test")
    description = "say the first digit again"

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        draw = rng("copy", split, seed)
        texts = ["".join(draw.choice("0123456789") for _ in range(draw.randint(6, 9))) for _ in range(limit or 256)]
        return [Problem(text, (Message(role="user", content=text),), text[0]) for text in texts]

    def verify(self, problem: Problem, text: str) -> Score:
        return Score(float(text[:1] == problem.answer), text[:1] or None)

    def traits(self, text: str) -> dict[str, float]:
        return {"short": float(len(text) == 1)}

    def validate(self) -> list[str]:
        return []

    def examples(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Example]:
        return [Example(p.messages, p.answer) for p in self.problems(split, seed=seed, limit=limit)]

    def documents(self, *, seed: int = 0, count: int) -> Iterator[str]:
        draw = rng("copy", "documents", seed)
        for _ in range(count):
            text = "".join(draw.choice("0123456789") for _ in range(draw.randint(2, 9)))
            yield f"^{text}?{text[0]}"

    def split_document(self, document: str) -> tuple[str, str]:
        prompt, mark, response = document.partition("?")
        return prompt + mark, response

    def alphabet(self) -> Sequence[str]:
        return [*"0123456789", "?"]

    def chat_template(self) -> str:
        return "{{ bos_token }}{{ messages[-1].content }}{% if add_generation_prompt %}?{% endif %}"


class Finite(Copy):
    """Twelve problems, always the same."""

    name = "finite"

    def problems(self, split: str, *, seed: int = 0, limit: int | None = None) -> Sequence[Problem]:
        every = [Problem(str(i), (Message(role="user", content=f"{i % 10}{i // 10}"),), str(i % 10)) for i in range(12)]
        return every[:limit]


@pytest.fixture
def tokenizer() -> HFTokenizer:
    return HFTokenizer.word_level(Copy().alphabet(), Copy().chat_template())


@pytest.fixture
def base(tmp_path: Path, tokenizer: HFTokenizer) -> Path:
    """A random one-layer model of the toy task's words, as a folder."""
    arch = Arch(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=16,
        max_positions=64,
        bos_id=tokenizer.bos_id,
        eos_ids=tokenizer.eos_ids,
    )
    with new_folder(tmp_path / "base") as folder:
        save_folder(build(arch, seed=3), folder, tokenizer=tokenizer)
    return tmp_path / "base"


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StageResult]:
    """`stage(run, config, name)`: run a stage in tmp_path/<name>; `stop_after`: stop it there by Stopped, and return None."""

    def go(
        run: Callable[[Any, StageContext], StageResult],
        config: Any,
        name: str,
        *,
        models: Mapping[str, Path] | None = None,
        tasks: Mapping[str, Task] | None = None,
        stop_after: int | None = None,
    ) -> StageResult | None:
        folder = tmp_path / name / "stages" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked == stop_after

        events = EventLog(tmp_path / name / "events.jsonl")
        tasks = tasks or {"copy": Copy(), "finite": Finite()}
        context = StageContext("x", folder, 0, models or {}, events, Silent(), should_stop, tasks)
        if stop_after is None:
            return run(config, context)
        with pytest.raises(Stopped):
            run(config, context)
        return None

    return go  # type: ignore[return-value]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]
