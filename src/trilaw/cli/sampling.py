"""The sampling options, with the same names and meanings at every command that samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from trilaw.core.types import SamplingParams

Temperature = Annotated[float, typer.Option(min=0.0, help="Randomness of the tokens; 0 takes the likeliest each time.")]
TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Draw from the likeliest tokens that hold this share; 1: from all.")
]
TopK = Annotated[int, typer.Option(min=0, help="Draw from this many likeliest tokens; 0: from all.")]
MinP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Leave out tokens below this share of the likeliest one's; 0: none.")
]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest completion, in tokens.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same samples.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End a sample at this text. Repeatable.")
]


def params(
    temperature: float, top_p: float, top_k: int, min_p: float, max_tokens: int, stop: Sequence[str] | None
) -> SamplingParams:
    return SamplingParams(
        temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, stop=tuple(stop or ())
    )
