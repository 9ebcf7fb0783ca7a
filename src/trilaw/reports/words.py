"""Numbers and outside text as a person reads them: shares as percentages, SI prefixes, text that cannot disturb a page."""

from __future__ import annotations

import re

from trilaw.core.ledger import energy as energy
from trilaw.core.ledger import money as money
from trilaw.core.types import Estimate

MAX_TEXT = 2_000  # characters of a sample that are shown

_PLAIN = re.compile(r"tokens|seconds|flops|length")
# C0 and C1 controls but tab and newline, bidirectional marks and overrides, line separators, lone surrogates, the byte-order mark.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def is_share(metric: str) -> bool:
    """Whether a metric lies in [0, 1] and reads best as a percentage (pass@k, maj@k, truncated, ...)."""
    return not _PLAIN.search(metric)


def value(metric: str, x: float) -> str:
    return percent(x) if is_share(metric) else plain(x)


def interval(metric: str, estimate: Estimate) -> str:
    """ "[94, 97] %" for a share, "[23.9, 24.4]" otherwise."""
    if is_share(metric):
        return f"[{_points(estimate.low)}, {_points(estimate.high)}] %"
    return f"[{plain(estimate.low)}, {plain(estimate.high)}]"


def percent(x: float) -> str:
    return f"{_points(x)} %"


def _points(x: float) -> str:
    """Percentage points, with a decimal only where the whole number would say 0 or 100 of something that is not."""
    if not abs(x) <= 1e6:  # no share, or no number: a damaged file said so
        return f"{100 * x:.3g}"
    whole = round(100 * x)
    if (whole == 0 and x > 0) or (whole == 100 and x < 1):
        return f"{100 * x:.1f}"
    return str(whole)


def plain(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.3g}"


def si(x: float) -> str:
    """Three digits and a prefix: 816k, 1.1M, 0."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= 0.9995 * size:
            return f"{x / size:.3g}{prefix}"
    return f"{x:.3g}"


def power(x: float) -> str:
    """A count of FLOPs: 5.4e12 as "5.4 × 10¹²"."""
    if x <= 0:
        return "0"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa} × {ten_to(int(exponent))}"


def ten_to(exponent: int) -> str:
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def duration(seconds: float) -> str:
    """ "8.2 s", "4 min 05 s", "3 h 12 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clean(text: str, limit: int | None = None) -> str:
    """Text from outside, fit to be shown: characters that act instead of showing become U+FFFD, and a long tail is cut and counted."""
    cut = "" if limit is None or len(text) <= limit else f" … ({len(text) - limit:,} more characters)"
    return _UNSAFE.sub("\ufffd", text[:limit].replace("\r\n", "\n")) + cut


def line(text: str, limit: int | None = None) -> str:
    """The same on one line, however many it had."""
    return clean(text, limit).replace("\n", " ").replace("\t", " ")
