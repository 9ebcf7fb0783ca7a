"""A row of the validation page: what was measured, what the planner says, and by how much they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """A published measurement beside a prediction, both in `unit`.

    calibrated_on: what the assumptions behind the prediction were chosen on; it never contains the row itself, except in a room's list of
    calibration rows. peer_errors: the same error of other planners, where somebody published it. why: a sentence for an error above 15 %.
    """

    what: str
    measured: float
    predicted: float
    unit: str
    source: str
    calibrated_on: str
    peer_errors: Mapping[str, float] = field(default_factory=dict)
    why: str = ""

    @property
    def error(self) -> float:
        """Predicted over measured, less 1: 0.1 is 10 % too high."""
        return self.predicted / self.measured - 1

    @property
    def arithmetic(self) -> bool:
        """Whether the row tests sums and formulas only: no assumption that was chosen on anything stands behind it."""
        return self.calibrated_on.startswith("nothing")

    def to_json(self) -> dict[str, Any]:
        """Every field by name, and the error."""
        return {
            "what": self.what,
            "measured": self.measured,
            "predicted": self.predicted,
            "unit": self.unit,
            "error": self.error,
            "source": self.source,
            "calibrated_on": self.calibrated_on,
            "peer_errors": dict(self.peer_errors),
            "why": self.why,
        }
