"""What an allocation reports, and the sentence that it comes to (the rule is at the head of allocate.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trilaw.core.ledger import count
from trilaw.core.ledger import flops as show_flops
from trilaw.core.types import Estimate
from trilaw.laws.costs import OPTIONS, Split, Unit
from trilaw.laws.experiments import Experiment
from trilaw.laws.joint_draws import How

MARGIN = 0.005  # half a point of accuracy: differences within it do not matter
REGRET = 0.02  # two points: a mixture that is that much better in one draw of twenty is worth an experiment


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way to spend: `behind` is the accuracy that the best split has over it, draw by draw."""

    name: str
    split: Split
    cost: float
    accuracy: Estimate
    behind: Estimate


@dataclass(frozen=True, slots=True)
class OptionReport:
    """One option. `gain`: accuracy from a tenth of the budget put into it alone, on top of the start; `first`: share of draws in which that gain is
    the greatest. Both None where the option cannot be judged, which `sentence` explains."""

    name: str
    about: str
    known: bool
    sentence: str
    gain: Estimate | None
    first: float | None


@dataclass(frozen=True, slots=True)
class Target:
    """`reached`: share of draws in which the best split reaches the accuracy; `budget`: the least that does (None: a hundred times more does not)."""

    accuracy: float
    reached: float
    budget: Estimate | None


@dataclass(frozen=True, slots=True)
class Allocation:
    """`best` with what each option gets (`spent`, in the unit of the budget) and how well each number of it is known (`known`: parameters, tokens,
    rl_flops, samples, and the share of each option: intervals of the best split over draws). `regret`: accuracy that the best split of a draw has
    over this one. `decided` is False where the verdict is that the runs cannot tell; then `experiments` would, cheapest first."""

    task: str
    budget: float
    unit: Unit
    queries: float
    how: How
    start: Split
    start_accuracy: Estimate
    best: Split
    accuracy: Estimate
    spent: Mapping[str, float]
    known: Mapping[str, Estimate]
    regret: Estimate
    rivals: tuple[Rival, ...]
    options: tuple[OptionReport, ...]
    decided: bool
    verdict: str
    experiments: tuple[Experiment, ...]
    target: Target | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain and finite, with the names of the fields."""
        found = asdict(self)
        found["spent"], found["known"] = dict(self.spent), {name: asdict(v) for name, v in self.known.items()}
        found["experiments"] = [experiment.to_json() for experiment in self.experiments]
        found["notes"] = list(self.notes)
        return found


def shares(spent: Mapping[str, float]) -> list[float]:
    total = math.fsum(spent.values()) or 1.0
    return [spent[option.name] / total for option in OPTIONS]


def money(amount: float, unit: Unit) -> str:
    return show_flops(amount) if unit == "flops" else f"${amount:,.2f}" if amount < 1e15 else f"${amount:.3g}"


def _range(e: Estimate) -> str:
    return f"{e.value:.1%} (90% interval {e.low:.1%} to {e.high:.1%})"


def verdict(
    best: Split,
    start: Split,
    accuracy: Estimate,
    rivals: Sequence[Rival],
    spent: Mapping[str, float],
    unit: Unit,
    missing: Mapping[str, str],
    contested: Sequence[Rival],
    regret: Estimate,
    experiments: Sequence[Experiment],
    owned: bool,
) -> str:
    n, d, c, k = (float(v) for v in (best.parameters, best.tokens, best.rl_flops, best.samples))
    kept = owned and (n, d) == (start.parameters, start.tokens)
    which = "keep the base" if kept else "base"
    part = dict(zip(spent, shares(spent)))
    split = (
        f"{which} of {count(n)} parameters and {count(d)} tokens ({part['pretraining']:.0%} of the cost), {show_flops(c)} of RL{' in all' * kept} ({part['rl']:.0%}), "
        f"{k:.0f} sample{'s' * (k != 1)} a question ({part['samples']:.0%})"
    )
    first = f" The cheapest experiment first: {experiments[0].sentence}" if experiments else ""
    if missing:
        return f"Cannot tell: {' '.join(missing.values())}{first} Among what is known, the best is: {split}, accuracy {_range(accuracy)}."
    if contested:
        others = "; ".join(
            f"'{rival.name}' ({rival.behind.low:+.1%} to {rival.behind.high:+.1%})" for rival in contested
        )
        return f"Cannot tell the best split ({split}, accuracy {_range(accuracy)}) from {others}: the intervals of its advantage cover 0.{first}"
    if regret.high > REGRET:
        return (
            f"Cannot tell: the best split is {split}, accuracy {_range(accuracy)}, no option alone beats it, but another mixture may be up to "
            f"{regret.high:.1%} better (one draw in twenty).{first}"
        )
    alike = [r.name for r in rivals if r.behind.low >= -MARGIN and r.behind.high <= MARGIN and r.split != best]
    tail = f" Within half a point of it: {', '.join(alike)}." if alike else ""
    return f"Best split: {split}. Accuracy {_range(accuracy)}, from {rivals[0].accuracy.value:.1%} with {money(rivals[0].cost, unit)}.{tail}"
