"""JSONL files: every complaint names file and line; files become splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilaw.core.errors import TaskError
from trilaw.tasks import jsonl


def test_reads_objects_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": 1}\n\n{"a": "\u00fc"}\n', encoding="utf-8")
    rows = jsonl.read(path)
    assert [(row.id, row.value) for row in rows] == [("a-1", {"a": 1}), ("a-3", {"a": "ü"})]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"{oops}", "JSON"),
        (b"[1]", "list"),
        (b"\xff\xfe", "UTF-8"),
        (b"[" * 200_000, "nested"),
        (b'{"a": ' + b"9" * 50_000 + b"}", "number too long"),
        (b'{"a": "' + b"x" * jsonl.MAX_LINE + b'"}', "longer"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, word: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(TaskError, match=rf"a\.jsonl, line 2.*{word}"):
        jsonl.read(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no file"):
        jsonl.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TaskError, match="no problems"):
        jsonl.read(tmp_path / "empty.jsonl")
    with pytest.raises(TaskError, match="cannot be read"):
        jsonl.read(tmp_path)


def test_one_file_is_divided_and_a_table_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"q": "question {i}"}}\n' for i in range(100)))

    def key(row: jsonl.Row) -> str:
        return row.text("q")

    parts = {split: {row.id for row in jsonl.read_split(str(path), split, key)} for split in jsonl.splits(str(path))}
    assert parts["train"] | parts["test"] == parts["all"]
    assert not parts["train"] & parts["test"]
    assert 2 < len(parts["test"]) < 30
    table: jsonl.Data = {"test": str(path)}
    assert jsonl.splits(table) == ("test",)
    assert len(jsonl.read_split(table, "test", key)) == 100


def test_a_file_too_small_to_divide(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "alone"}\n')

    def read(split: str) -> list[jsonl.Row]:
        return jsonl.read_split(str(path), split, lambda row: row.text("q"))

    assert len(read("all")) == 1
    with pytest.raises(TaskError, match="too small"):
        [read(split) for split in ("train", "test")]


def test_check_refuses_an_empty_table() -> None:
    with pytest.raises(ValueError, match="splits"):
        jsonl.check({})


def test_shared_problems_are_counted() -> None:
    texts = {"train": ["a", "b"], "test": ["b", "c"]}
    assert jsonl.shared(("train", "test"), texts.__getitem__) == [
        "1 problems of the split 'test' also stand in 'train'."
    ]
    assert jsonl.shared(("test",), texts.__getitem__) == []
