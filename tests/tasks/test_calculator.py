"""The calculator's author is a known program: its probabilities add up to one and match what it writes."""

from __future__ import annotations

import itertools
import math

import pytest

from trilaw.tasks.calculator import Calculator, CalculatorConfig, press


def responses(start: int, key: str) -> list[str]:
    """Everything of the right form after one key, probable or not."""
    two = [f"{n:02d}" for n in range(100)]
    plain = [f"{key}={r} ={a}" for r, a in itertools.product(two, two)]
    ok = [f"{key}={r} ok ={a}" for r, a in itertools.product(two, two)]
    right = f"{press(start, key):02d}"
    no = [f"{key}={r} no{start:02d}{key}={right} ok ={a}" for r, a in itertools.product(two, two)]
    return [f" ={a}" for a in two] + plain + ok + no


@pytest.mark.parametrize(("start", "key"), [(16, " +9"), (3, " -7"), (70, " *3")])
def test_probabilities_of_one_key_add_up_to_one(start: int, key: str) -> None:
    task = Calculator(CalculatorConfig(document_steps=(1, 1), slip=0.2, miss=0.1))
    chances = [math.exp(task.log_probability(f"^{start:02d}{key}?{r}")) for r in responses(start, key)]
    assert sum(chances) == pytest.approx(1 / (100 * 20))
    assert sum(c > 0 for c in chances) == 1 + 5 + 5 + 4  # jump; plain; checked; taken back


def test_it_matches_what_is_written() -> None:
    task = Calculator()
    documents = list(task.documents(seed=5, count=4000))
    nats = [-task.log_probability(document) for document in documents]
    assert max(nats) < math.inf
    config = task.config
    kinds = [config.direct, config.derived, 1 - config.direct - config.derived]
    slip = -((1 - config.slip) * math.log(1 - config.slip) + config.slip * math.log(config.slip / 4))
    seen = -(config.miss * math.log(config.miss) + (1 - config.miss) * math.log(1 - config.miss)) * config.slip
    steps = 4.5  # mean of 1..8
    expected = math.log(100 * 8) + steps * math.log(20) - sum(p * math.log(p) for p in kinds)
    expected += steps * (kinds[1] * slip + kinds[2] * (slip + seen))
    spread = (sum((n - sum(nats) / len(nats)) ** 2 for n in nats) / len(nats)) ** 0.5
    assert sum(nats) / len(nats) == pytest.approx(expected, abs=4 * spread / len(nats) ** 0.5)


@pytest.mark.parametrize(
    "document",
    [
        "^16 +9? =26",  # a wrong jump
        "^16 +9? +9=27 =27",  # a slip by 2
        "^16 +9 +1? +9=25 ok +1=26 =26",  # checks one step and not the other
        "^16 +9? +9=26 no16 +9=25 =25",  # taken back, yet not closed by ok
        "^16 +9? +8=24 =24",  # another key
        "^16 +9? +9=25 =26",  # the answer is not the last state
        "^16 *7? =12",  # no such key
        "^16? =16",  # no key
        "16 +9? +9=25 =25 ",
    ],
)
def test_what_is_never_written_has_no_chance(document: str) -> None:
    assert Calculator().log_probability(document) == -math.inf
