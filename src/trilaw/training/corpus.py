"""Where pre-training text comes from: a task that writes documents, or a text file; and the tokenizer that fits it.

A text file is cut into documents at blank lines. Each epoch goes through them in a new order; the held-out ones (drawn once by seed)
are never among them. A task writes as many fresh documents as are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from trilaw.core.errors import ConfigError, TaskError
from trilaw.core.protocols import CorpusTask, StageContext
from trilaw.core.seeds import derive, rng
from trilaw.model.tokenizer import HFTokenizer
from trilaw.training.loop import task_of
from trilaw.training.packing import Document

_BATCH = 256  # documents encoded at a time
_ENDLESS = 1 << 60  # documents; a task writes them one by one, and only as many as are read


class Corpus(Protocol):
    tokenizer: HFTokenizer

    def train(self) -> Iterator[Document]:
        """The stream to learn from, the same every time it is asked for."""
        ...

    def valid(self, count: int) -> Iterator[Document]:
        """Held-out documents, at most `count`."""
        ...

    def valid_nats(self, count: int) -> float | None:
        """What these documents cost in nats under the program that wrote them, None if it is not known."""
        ...


class TaskCorpus:
    """Documents that a task writes. Validation has a seed of its own, so that all stages of a run are measured on the same text."""

    def __init__(self, task: CorpusTask, tokenizer: HFTokenizer, seed: int, valid_seed: int) -> None:
        self.task, self.tokenizer, self.seed, self.valid_seed = task, tokenizer, seed, valid_seed

    def train(self) -> Iterator[Document]:
        return self._encode(self.task.documents(seed=derive(self.seed, "train"), count=_ENDLESS))

    def valid(self, count: int) -> Iterator[Document]:
        return self._encode(self.task.documents(seed=self.valid_seed, count=count))

    def valid_nats(self, count: int) -> float | None:
        """-log probability of the held-out documents in all by their author, None if it does not tell."""
        tell = getattr(self.task, "log_probability", None)
        return None if tell is None else -sum(map(tell, self.task.documents(seed=self.valid_seed, count=count)))

    def _encode(self, texts: Iterable[str]) -> Iterator[Document]:
        split = getattr(self.task, "split_document", None)
        texts = iter(texts)
        while batch := list(itertools.islice(texts, _BATCH)):
            rows = self.tokenizer.encode_batch(batch, special=True)  # the template's special tokens are meant
            prompts = self.tokenizer.encode_batch([split(text)[0] for text in batch], special=True) if split else rows
            for row, prompt in zip(rows, prompts, strict=True):
                ids = _framed(row, self.tokenizer)
                yield Document(ids, min(len(prompt) + len(ids) - len(row) - 1, len(ids)) if split else len(ids))


class FileCorpus:
    """Documents of a text file, over and over."""

    def __init__(self, path: Path, tokenizer: HFTokenizer, seed: int, held_out: int) -> None:
        """Raises TaskError for a file that cannot be read or holds fewer than two documents."""
        self.tokenizer, self.seed = tokenizer, seed
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TaskError(f"The text file {path} cannot be read: {error}; give a file of UTF-8 text.") from None
        blocks = "\n".join("" if not line.strip() else line for line in text.splitlines()).split("\n\n")
        documents = [block.strip("\n") for block in blocks if block.strip()]
        if len(documents) < 2:
            raise TaskError(
                f"The text file {path} holds {len(documents)} documents: put a blank line between documents."
            )
        rng(seed, "held out").shuffle(documents)
        cut = min(held_out, max(1, len(documents) // 10))
        self.held_out, self.documents = documents[:cut], documents[cut:]

    def train(self) -> Iterator[Document]:
        for epoch in itertools.count():
            order = list(range(len(self.documents)))
            rng(self.seed, "epoch", epoch).shuffle(order)
            yield from self._encode(self.documents[i] for i in order)

    def valid(self, count: int) -> Iterator[Document]:
        return self._encode(self.held_out[:count])

    def valid_nats(self, count: int) -> float | None:
        return None  # who wrote the file is not known

    def _encode(self, texts: Iterable[str]) -> Iterator[Document]:
        texts = iter(texts)
        while batch := list(itertools.islice(texts, _BATCH)):
            for row in self.tokenizer.encode_batch(batch):
                ids = _framed(row, self.tokenizer)
                yield Document(ids, len(ids))


def _framed(row: list[int], tokenizer: HFTokenizer) -> tuple[int, ...]:
    """With its beginning (unless the text has it, or there is none) and its end token."""
    begin = [tokenizer.bos_id] if tokenizer.bos_id is not None and row[:1] != [tokenizer.bos_id] else []
    return (*begin, *row, *tokenizer.eos_ids[:1])


def byte_level() -> HFTokenizer:
    """One token a byte, and `<s>`, `</s>`: spells any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", backend.token_to_id("<s>"))])
    return HFTokenizer(backend, named={"bos": "<s>", "eos": "</s>", "pad": "</s>"})


def open_corpus(task: str | None, data: str | None, held_out: int, context: StageContext) -> Corpus:
    """The corpus of a pretrain stage. Raises ConfigError for a task that writes no documents."""
    seed = derive(context.seed, context.name, "documents")
    if data is not None:
        return FileCorpus(Path(data), byte_level(), seed, held_out)
    writer = task_of(task or "", context)
    if not isinstance(writer, CorpusTask):
        raise ConfigError(
            f"stage '{context.name}': task '{task}' writes no documents to pre-train on: use a task such as calculator, or `data`."
        )
    tokenizer = HFTokenizer.word_level(writer.alphabet(), writer.chat_template())
    return TaskCorpus(writer, tokenizer, seed, derive(context.seed, task or "", "valid documents"))
