"""Sampling options as keywords: `max_tokens=100` instead of `params=trilaw.SamplingParams(max_tokens=100)`, under the same names."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

from trilaw.core.types import SamplingParams


class SamplingOptions(TypedDict, total=False):
    """The fields of SamplingParams, each optional."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    max_tokens: int
    stop: tuple[str, ...]
    stop_tokens: tuple[int, ...]
    ignore_eos: bool


def merged(params: SamplingParams | None, options: SamplingOptions) -> SamplingParams:
    """`params`, or the defaults, with the options put over them. Raises TypeError for a name that is no option."""
    return replace(params or SamplingParams(), **options)
