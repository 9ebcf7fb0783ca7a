"""laws.json of a run, read and checked before anything of it is shown: a file that was damaged or written by hand must not break a page.

What stands here is what the page and its charts use (`template.html`, `law_charts`); more is allowed. A check is a function that says
whether a value is as it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trilaw.reports.files import number, read_object
from trilaw.reports.read import Run

LAWS_FILE = "laws.json"  # in the folder of a stage of kind `laws`
VERSION = 1
MOST = 100_000  # entries of a list: no law has more dots

Check = Callable[[Any], bool]


def read_laws(run: Run) -> tuple[dict[str, Any] | None, str]:
    """What the last `laws` stage that is done found, and a complaint where its file is missing or broken. (None, "") without such a stage."""
    stages = [stage.name for stage in run.stages if stage.kind == "laws" and stage.done]
    if not stages:
        return None, ""
    found = read_object(run.folder / "stages" / stages[-1] / LAWS_FILE)
    if sound(found):
        return found, ""
    place = f"stages/{stages[-1]}"
    return (
        None,
        f"{place}/{LAWS_FILE} is missing or broken: delete {place}/done.json, and `trilaw run` fits the laws anew.",
    )


def sound(value: Any) -> bool:
    """Whether all that is shown of a laws.json is there and of its kind."""
    return _FILE(value)


def _number(value: Any) -> bool:
    return number(value) is not None


def _positive(value: Any) -> bool:
    return (number(value) or 0.0) > 1e-100


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _table(**fields: Check) -> Check:
    return lambda value: (
        isinstance(value, Mapping) and all(key in value and check(value[key]) for key, check in fields.items())
    )


def _each(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and len(value) <= MOST and all(map(check, value.values()))


def _rows(check: Check, least: int = 0) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= MOST and all(map(check, value))


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _curve(x: str) -> Check:
    dot = _table(**{x: _positive}, value=_number, low=_number, high=_number)
    return _table(curve=_rows(dot, least=1))


_ESTIMATE = _table(value=_number, low=_number, high=_number)
_LOSS = _table(parameters=_positive, flops=_positive, loss=_positive)
_POSTTRAIN = _table(measured=_rows(_table(compute=_number, value=_number), least=1), source=_text)
_TESTTIME = _table(
    samples=_positive,
    measured=_rows(_table(k=_positive, value=_number), least=1),
    coverage=_maybe(_curve("k")),
    votes=_maybe(_curve("k")),
)
_ALLOCATION = _table(
    verdict=_text,
    budget=_number,
    queries=_number,
    spent=_each(_number),
    options=_rows(_table(name=_text, sentence=_text, gain=_maybe(_ESTIMATE))),
    experiments=_rows(_table(sentence=_text, command=_maybe(_text))),
)
_FILE = _table(
    version=lambda value: value == VERSION,
    measured=_table(losses=_rows(_LOSS), known_entropy=_maybe(_positive)),
    laws=_table(
        pretrain=_maybe(_curve("flops")),
        posttrain=_each(lambda value: _POSTTRAIN(value) and _curve("compute")(value)),
        testtime=_each(_TESTTIME),
    ),
    refused=_each(_text),
    allocation=_maybe(lambda value: _ALLOCATION(value) and all(o["name"] in value["spent"] for o in value["options"])),
    allocation_refused=_maybe(_text),
)
