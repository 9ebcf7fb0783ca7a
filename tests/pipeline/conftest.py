from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trilaw.core.errors import RequestError


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Reports are written by a double that keeps count, so these tests need no pictures."""
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "report.html").write_text("report")

    monkeypatch.setitem(sys.modules, "trilaw.reports.html", SimpleNamespace(build=build))  # type: ignore[arg-type]
    return built


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only model outside is called `outside`."""

    def resolve(name: str) -> Path:
        if name != "outside":
            raise RequestError(f"there is no model '{name}'.")
        return Path(name)

    monkeypatch.setitem(sys.modules, "trilaw.model.sources", SimpleNamespace(resolve=resolve))  # type: ignore[arg-type]
