from __future__ import annotations

import pytest

from trilaw.core.errors import RunError
from trilaw.core.events import EventLog


def test_append_read_and_truncate(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    assert log.rows() == []
    log.truncate("a", 0)
    log.flush()
    for step in range(3):
        log.append("a", step, loss=step / 2)
        log.append("b", step, reward=1.0)
    log.truncate("a", 1)
    log.flush()
    assert log.rows("a") == [{"stage": "a", "step": 0, "loss": 0.0}, {"stage": "a", "step": 1, "loss": 0.5}]
    assert len(log.rows("b")) == 3
    assert len(log.rows()) == 5


def test_going_on_after_a_kill_gives_the_same_file(tmp_path):
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    log = EventLog(whole)
    for step in range(6):
        log.append("a", step, note="é\u2028x")
    content = whole.read_bytes()
    for cut in range(1, len(content), 7):
        torn.write_bytes(content[:cut])
        log = EventLog(torn)
        log.truncate("a", 2)
        for step in range(len(log.rows("a")), 6):
            log.append("a", step, note="é\u2028x")
        assert torn.read_bytes() == content, cut


def test_a_torn_line_in_the_middle_is_left_out(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text('{"stage": "a", "step": 0}\n{"stage": "a", "st\n{"stage": "a", "step": 1}\n')
    assert [row["step"] for row in EventLog(path).rows()] == [0, 1]


def test_lines_that_are_no_events_are_passed_over(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text('[1]\n{"stage": 3}\n{"stage": "a"}\n{"stage": "a", "step": 1}\n{"stage": "a", "step": 2}\n')
    log = EventLog(path)
    assert len(log.rows()) == 2
    log.truncate("a", 1)
    assert [row["step"] for row in log.rows()] == [1]


def test_a_line_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(RunError, match=r"e\.jsonl cannot be written"):
        EventLog(tmp_path / "missing" / "e.jsonl").append("a", 1)
