"""report.json: the public, versioned contract, described field by field in docs/report.md.

A reader may rely on every field listed here; within a version fields are added and never renamed, removed or given a new meaning.
Numbers are finite: what is not (a NaN loss) is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trilaw.core.ledger import Rates, rates
from trilaw.reports.files import number
from trilaw.reports.read import Run
from trilaw.reports.verdicts import headline, verdicts

VERSION = 1

_NUMBER = (int, float)
_TOP: dict[str, type | tuple[type, ...]] = {
    "version": int,
    "name": str,
    "seed": int,
    "complete": bool,
    "headline": str,
    "verdicts": list,
    "stages": list,
    "evaluations": list,
    "totals": dict,
    "cost": dict,
    "machine": dict,
}
_LISTS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "verdicts": {
        "stage": str,
        "baseline": (str, type(None)),
        "task": str,
        "split": str,
        "metric": str,
        "outcome": str,
        "sentence": str,
    },
    "stages": {
        "name": str,
        "kind": str,
        "base": (str, type(None)),
        "done": bool,
        "seconds": _NUMBER,
        "flops": _NUMBER,
        "tokens": int,
        "joules": _NUMBER,
        "usd": _NUMBER,
        "parameters": (int, type(None)),
        "metrics": dict,
    },
    "evaluations": {
        "stage": str,
        "task": str,
        "split": str,
        "metric": str,
        "value": _NUMBER,
        "low": _NUMBER,
        "high": _NUMBER,
        "n": int,
        "method": str,
    },
}
_TOTALS: dict[str, type | tuple[type, ...]] = {
    "seconds": _NUMBER,
    "flops": _NUMBER,
    "tokens": int,
    "joules": _NUMBER,
    "usd": _NUMBER,
}
_COST: dict[str, type | tuple[type, ...]] = {
    "watts": _NUMBER,
    "usd_per_kwh": _NUMBER,
    "usd_per_hour": _NUMBER,
    "about": str,
}
_TEXT, _COUNT = (str, type(None)), (int, type(None))
_MACHINE: dict[str, type | tuple[type, ...]] = {
    "trilaw": _TEXT,
    "python": _TEXT,
    "torch": _TEXT,
    "numpy": _TEXT,
    "platform": _TEXT,
    "cpu": _TEXT,
    "cores": _COUNT,
    "threads": _COUNT,
    "accelerators": _COUNT,
    "memory_bytes": _COUNT,
    "git": _TEXT,
    "started": _TEXT,
    "ended": _TEXT,
    "attempts": int,
}


def report(run: Run) -> dict[str, Any]:
    """The content of report.json for a run."""
    cost = rates_of(run)
    stages = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "base": stage.base,
            "done": stage.done,
            "seconds": stage.seconds,
            "flops": stage.flops,
            "tokens": stage.tokens,
            "joules": cost.joules(stage.seconds),
            "usd": cost.usd(stage.seconds),
            "parameters": stage.parameters,
            "metrics": finite(stage.metrics or {}),
        }
        for stage in run.stages
    ]
    evaluations = [row.row() for row in run.evaluations]
    return {
        "version": VERSION,
        "name": run.name,
        "seed": run.seed,
        "complete": run.complete,
        "headline": headline(run),
        "verdicts": [{key: getattr(verdict, key) for key in _LISTS["verdicts"]} for verdict in verdicts(run)],
        "stages": stages,
        "evaluations": evaluations,
        "totals": {key: sum(stage[key] for stage in stages) for key in _TOTALS},
        "cost": {key: getattr(cost, key) for key in _COST},
        "machine": machine(run),
    }


def rates_of(run: Run) -> Rates:
    """What the run's machine draws and costs: the recipe's table `cost`, and assumptions for what it leaves open."""
    given = run.resolved.get("cost")
    table = given if isinstance(given, Mapping) else {}
    said = {key: number(table.get(key)) for key in ("watts", "usd_per_kwh", "usd_per_hour")}
    known = machine(run)
    return rates(cores=known["cores"], accelerators=known["accelerators"] or 0, **said)


def machine(run: Run) -> dict[str, Any]:
    """With what and when the run was made, from its manifest; null where the manifest does not say."""
    listed = run.manifest.get("attempts")
    attempts = [attempt for attempt in listed if isinstance(attempt, Mapping)] if isinstance(listed, list) else []
    said: dict[str, Any] = {key: run.manifest.get(key) for key in _MACHINE}
    said["started"] = attempts[0].get("started") if attempts else None
    said["ended"] = attempts[-1].get("ended") if attempts else None
    said["attempts"] = len(attempts)
    return {key: item if _sound(item, _MACHINE[key]) else None for key, item in said.items()}


def _sound(item: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether a manifest's item is of its kind, and a number one that can be; bool is an int to Python only."""
    return (isinstance(item, str) and isinstance(item, kinds)) or (isinstance(item, kinds) and number(item) is not None)


def check(value: Any) -> list[str]:
    """What in `value` breaks the contract, one complaint each; none if it is a sound report.json of this version."""
    if not isinstance(value, Mapping):
        return ["the report is no object"]
    complaints = _fields(value, _TOP, "report")
    if complaints:
        return complaints
    if value["version"] != VERSION:
        complaints.append(f"report.version is {value['version']}, this check knows {VERSION}")
    for key, fields in _LISTS.items():
        for index, item in enumerate(value[key]):
            complaints += _fields(item, fields, f"{key}[{index}]")
    complaints += _fields(value["totals"], _TOTALS, "totals") + _fields(value["cost"], _COST, "cost")
    complaints += _fields(value["machine"], _MACHINE, "machine")
    complaints += _infinities(value, "report")
    if complaints:
        return complaints
    for index, row in enumerate(value["evaluations"]):
        if row["low"] > row["high"]:
            complaints.append(f"evaluations[{index}]: the interval is upside down")
    return complaints


def finite(value: Any) -> Any:
    """`value` as plain JSON data in which every number is finite (null stands for one that is not)."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _fields(item: Any, fields: Mapping[str, type | tuple[type, ...]], where: str) -> list[str]:
    if not isinstance(item, Mapping):
        return [f"{where} is no object"]
    complaints = [f"{where}.{key} is missing" for key in fields if key not in item]
    complaints += [f"{where}.{key} is not in the contract" for key in item if key not in fields]
    for key, kinds in fields.items():
        # bool is an int to Python, not to a reader of JSON.
        if key in item and (not isinstance(item[key], kinds) or (isinstance(item[key], bool) and kinds is not bool)):
            complaints.append(f"{where}.{key} has the wrong type ({type(item[key]).__name__})")
    return complaints


def _infinities(value: Any, where: str) -> list[str]:
    if isinstance(value, Mapping):
        return [c for key, item in value.items() for c in _infinities(item, f"{where}.{key}")]
    if isinstance(value, list):
        return [c for index, item in enumerate(value) for c in _infinities(item, f"{where}[{index}]")]
    return [f"{where} is not finite"] if isinstance(value, float) and not math.isfinite(value) else []
