"""What can be bought and what it costs: FLOPs of a base, of RL and of samples, and the price of a FLOP at each stage.

    6 N D  +  C_rl  +  Q (t_in + k t_out) 2 N        Q questions over the model's lifetime, k samples each

6 N D: Kaplan et al., arXiv 2001.08361. The last term is the lifetime inference of Sardana et al., arXiv 2401.00448, with k samples that share
one prompt. N is the number of parameters that a token passes through. Not counted: attention over the context, reuse of a prompt between
questions, and that answers may grow longer under RL: give the tokens of the model that will serve.

An option is one small object: its name, the part of the joint law that stands behind it, and its term of the sum. Another way to
spend compute is another such object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trilaw.core.errors import RequestError
from trilaw.laws.fitting import Floats
from trilaw.laws.points import Measurement

LEAST = 1e-60  # dollars for a FLOP
Unit = Literal["flops", "usd"]
Number = Floats | float


@dataclass(frozen=True, slots=True)
class StagePrice:
    """Dollars for a FLOP at the chip's peak, and the share of the peak that a stage gets (MFU; for generation often a few percent)."""

    usd_per_peak_flop: float
    utilisation: float

    def __post_init__(self) -> None:
        if not LEAST <= self.usd_per_peak_flop <= 1.0 / LEAST:
            raise RequestError(
                f"The price of a FLOP is {self.usd_per_peak_flop:g} dollars; it must be a positive number between {LEAST:g} and {1 / LEAST:g}."
            )
        if not 1e-9 <= self.utilisation <= 1:
            raise RequestError(f"The utilisation is {self.utilisation:g}; it must be at least 1e-9 and at most 1.")

    @classmethod
    def by_the_hour(cls, usd_per_hour: float, peak_flops: float, utilisation: float) -> StagePrice:
        """From the rent of a chip and its peak in FLOP/s."""
        if not peak_flops > 0:
            raise RequestError(f"The peak is {peak_flops:g} FLOP/s; it must be positive.")
        return cls(usd_per_hour / 3600.0 / peak_flops, utilisation)

    @property
    def usd_per_flop(self) -> float:
        """Of a FLOP that does work."""
        return self.usd_per_peak_flop / self.utilisation


@dataclass(frozen=True, slots=True)
class Costs:
    """Tokens of one sample, and the price at each stage (needed for budgets in dollars only)."""

    prompt_tokens: float
    completion_tokens: float
    pretraining: StagePrice | None = None
    rl: StagePrice | None = None
    samples: StagePrice | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.prompt_tokens) and self.prompt_tokens >= 0):
            raise RequestError(f"prompt_tokens is {self.prompt_tokens:g}; it must be 0 or a positive number.")
        if not (math.isfinite(self.completion_tokens) and self.completion_tokens > 0):
            raise RequestError(f"completion_tokens is {self.completion_tokens:g}; it must be a positive number.")

    @classmethod
    def of(cls, m: Measurement, price: StagePrice | None = None) -> Costs:
        """With the tokens of a measured model, and one price for all stages."""
        return cls(m.prompt_tokens, m.completion_tokens, price, price, price)

    def price(self, stage: str, unit: Unit) -> float:
        """What a FLOP costs in the unit of the budget. Raises RequestError where dollars are asked for and no price is known."""
        if unit == "flops":
            return 1.0
        found: StagePrice | None = getattr(self, stage)
        if found is None:
            raise RequestError(
                f"A budget in dollars needs the price and the utilisation of {stage}; give Costs({stage}=StagePrice(...))."
            )
        return found.usd_per_flop


@dataclass(frozen=True, slots=True)
class Split:
    """What is bought: a base of `parameters` trained on `tokens`, `rl_flops` of RL on it, `samples` a question. Numbers, or arrays of one shape."""

    parameters: Number
    tokens: Number
    rl_flops: Number
    samples: Number


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a split is judged: what is owned already (None: everything is bought), how many questions come, what things cost."""

    owned: Split | None
    queries: float
    costs: Costs
    unit: Unit

    def price(self, option: Option) -> float:
        return self.costs.price(option.name, self.unit)

    def spent(self, split: Split) -> dict[str, float]:
        """Cost of each option in the unit of the budget."""
        return {option.name: float(option.flops(split, self)) * self.price(option) for option in OPTIONS}

    def cost(self, split: Split) -> float:
        return math.fsum(self.spent(split).values())


@dataclass(frozen=True, slots=True)
class Option:
    """One way to spend: `flops(split, scene)` is its term of the sum, `about` what it buys."""

    name: str  # also the part of the joint law behind it
    about: str
    flops: Callable[[Split, Scene], Number]


def _pretraining(split: Split, scene: Scene) -> Number:
    """6 N D; a base that is owned and only trained longer costs the further tokens."""
    tokens = split.tokens
    if scene.owned is not None and split.parameters == scene.owned.parameters and split.tokens >= scene.owned.tokens:
        tokens = split.tokens - scene.owned.tokens
    return 6.0 * split.parameters * tokens


def _rl(split: Split, scene: Scene) -> Number:
    """RL that is owned stays with its base: on another base, or one trained longer, it starts again."""
    owned = scene.owned
    if owned is not None and (split.parameters, split.tokens) == (owned.parameters, owned.tokens):
        return split.rl_flops - owned.rl_flops
    return split.rl_flops


def _samples(split: Split, scene: Scene) -> Number:
    return (
        scene.queries
        * (scene.costs.prompt_tokens + split.samples * scene.costs.completion_tokens)
        * 2.0
        * split.parameters
    )


PRETRAINING = Option("pretraining", "a larger base, or one trained on more tokens", _pretraining)
RL = Option("rl", "more reinforcement learning", _rl)
SAMPLES = Option("samples", "more samples a question", _samples)
OPTIONS = (PRETRAINING, RL, SAMPLES)
