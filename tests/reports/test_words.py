from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilaw.core.types import Estimate
from trilaw.reports import words


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.954, "95 %"),
        (0.9961, "99.6 %"),
        (0.9999, "100.0 %"),
        (0.004, "0.4 %"),
        (0.5, "50 %"),
    ],
)
def test_percent(x: float, text: str) -> None:
    assert words.percent(x) == text


def test_intervals_follow_their_metric() -> None:
    estimate = Estimate(0.95, 0.94, 0.97, 100, "")
    assert words.interval("pass@1", estimate) == "[94, 97] %"
    assert words.interval("mean_tokens", Estimate(24.2, 23.9, 1500.0, 100, "")) == "[23.9, 1,500]"
    assert not words.is_share("mean_tokens")
    assert words.is_share("truncated")


@pytest.mark.parametrize(
    ("x", "text"), [(0, "0"), (816_000, "816k"), (1_100_000, "1.1M"), (999_999, "1M"), (2.5e13, "25T")]
)
def test_si(x: float, text: str) -> None:
    assert words.si(x) == text


def test_power_and_duration() -> None:
    assert words.power(5.4e12) == "5.4 × 10¹²"
    assert words.power(0) == "0"
    assert [words.duration(s) for s in (8.24, 59.97, 245, 11520)] == ["8.2 s", "1 min 00 s", "4 min 05 s", "3 h 12 min"]


@given(st.text(alphabet=st.characters(), max_size=80))
def test_clean_text_can_always_be_written_and_never_acts(text: str) -> None:
    cleaned = words.clean(text)
    cleaned.encode("utf-8")
    assert not any(c != "\n" and c != "\t" and ord(c) < 32 for c in cleaned)
    assert not set(cleaned) & set("\u202e\u2066\x7f")


def test_clean_counts_what_it_cuts() -> None:
    assert words.clean("a" * 5000, 2000) == "a" * 2000 + " … (3,000 more characters)"
    assert words.clean("a\ud800\x00b") == "a\ufffd\ufffdb"


def test_one_line_whatever_it_had() -> None:
    assert words.line("  a  b\nc\td\r\ne\x1b[31m") == "  a  b c d e\ufffd[31m"
    assert words.line("x" * 30, 10) == "x" * 10 + " … (20 more characters)"


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -1e308, 1e99])
def test_a_share_that_is_none_still_reads(x: float) -> None:
    assert len(words.percent(x)) < 20
