"""The sampling options, with the same names and meanings at every command that samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from trilaw.core.types import SamplingParams

Temperature = Annotated[
    float, typer.Option(min=0.0, metavar="X", help="Randomness of the tokens; 0 takes the likeliest each time.")
]
TopP = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, metavar="P", help="Draw from the likeliest tokens that hold this share; 1: from all."
    ),
]
TopK = Annotated[int, typer.Option(min=0, metavar="N", help="Draw from this many likeliest tokens; 0: from all.")]
MinP = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, metavar="P", help="Leave out tokens below this share of the likeliest one's; 0: none."
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option(min=1, metavar="N", help="The longest completion, in tokens; it also ends where the context does."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="The same seed gives the same samples.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End a sample at this text. Repeatable.")
]

Quantization = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="int8: multiply 8-bit integers: faster on a CPU, and a little off the model.",
    ),
]


def params(
    temperature: float, top_p: float, top_k: int, min_p: float, max_tokens: int, stop: Sequence[str] | None
) -> SamplingParams:
    """The options as one value. Raises RequestError if they do not hold: before a model is loaded for them."""
    chosen = SamplingParams(
        temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, max_tokens=max_tokens, stop=tuple(stop or ())
    )
    chosen.check()
    return chosen
