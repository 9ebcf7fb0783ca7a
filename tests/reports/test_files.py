"""Files in any state are read as far as they can be, and within bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trilaw.reports import files
from trilaw.reports.files import lines, number, whole


def test_numbers_keep_their_digits() -> None:
    assert number(1e101) is number(10**101) is number(float("nan")) is number(True) is number("1") is None
    assert (number(-3), whole(2**60 + 1), whole(None), whole(2.9)) == (-3.0, 2**60 + 1, 0, 2)


def test_an_overlong_line_is_passed_over_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 40)
    path = tmp_path / "a.jsonl"
    for long in (39, 40, 41, 80, 81, 200):
        path.write_text(f'{{"a": 1}}\n{json.dumps("x" * (long - 3))}\n{{"a": 2}}\n{{"a": 3}}')
        assert [row["a"] for row in lines(path)] == [1, 2, 3], long
