"""events.jsonl: metrics, one JSON object a line, append-only; the source of truth for reports and trackers.

A line is `{"stage", "step", ...numbers}`; what is none is passed over. After a kill the last line may be torn: it is dropped on
opening. A stage that goes on
from a checkpoint at step N truncates its own lines past N, so the file equals that of an uninterrupted run (times aside).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trilaw.core.rundir import complaining, write_text


class EventLog:
    """Appends to and reads one events.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._rewrite(list(self._lines()))

    def append(self, stage: str, step: int, **values: Any) -> None:
        """Raises RunError if the line cannot be written."""
        line = json.dumps({"stage": stage, "step": step, **values}) + "\n"
        with complaining(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)

    def rows(self, stage: str | None = None) -> list[dict[str, Any]]:
        return [row for row in self._lines() if stage is None or row["stage"] == stage]

    def truncate(self, stage: str, after: int) -> None:
        """Drop the lines of `stage` whose step is greater than `after`."""
        if self.path.exists():
            rows = list(self._lines())
            kept = [row for row in rows if row["stage"] != stage or row["step"] <= after]
            if len(kept) != len(rows):
                self._rewrite(kept)

    def flush(self) -> None:
        """Make what was appended durable."""
        if self.path.exists():
            with complaining(self.path), self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # a torn line after a kill
                continue
            if isinstance(row, dict) and isinstance(row.get("stage"), str) and isinstance(row.get("step"), int):
                yield row

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
