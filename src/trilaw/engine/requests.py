"""The door: what a request must hold before it may wait in the queue. Every refusal is one sentence with the numbers in it."""

from __future__ import annotations

import math
from typing import cast

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import Request, SamplingParams


def tokenize(request: Request, tokenizer: Tokenizer) -> tuple[int, ...]:
    """A conversation by the chat template; raw text after BOS, if there is one; token ids as they are."""
    prompt = request.prompt
    if isinstance(prompt, str):
        bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
        return (*bos, *tokenizer.encode(prompt, special=True))
    if prompt and isinstance(prompt[0], dict):
        return tuple(tokenizer.encode_chat(prompt))
    return cast(tuple[int, ...], tuple(prompt))


def check_params(id: str, params: SamplingParams, vocab_size: int) -> None:
    """Raises RequestError for a parameter out of its range, or two that contradict each other."""
    where = f"Request '{id}'"
    if not (params.temperature >= 0 and math.isfinite(params.temperature)):
        raise RequestError(f"{where}: temperature is {params.temperature}, it must be 0 (greedy) or a positive number.")
    if params.top_k < 0:
        raise RequestError(f"{where}: top_k is {params.top_k}, it must be 0 (off) or the number of tokens to keep.")
    if not 0 < params.top_p <= 1:
        raise RequestError(f"{where}: top_p is {params.top_p}, it must be above 0 and at most 1 (off).")
    if not 0 <= params.min_p < 1:
        raise RequestError(f"{where}: min_p is {params.min_p}, it must be at least 0 (off) and below 1.")
    if params.max_tokens < 1:
        raise RequestError(f"{where}: max_tokens is {params.max_tokens}, it must be at least 1.")
    if params.temperature == 0 and (params.top_k > 0 or params.top_p < 1 or params.min_p > 0):
        raise RequestError(
            f"{where}: temperature 0 takes the likeliest token, so top_k, top_p and min_p have no effect; leave them out or raise the temperature."
        )
    if "" in params.stop:
        raise RequestError(f"{where}: a stop string is empty and would end every sample at once; leave it out.")
    for token in params.stop_tokens:
        if not 0 <= token < vocab_size:
            raise RequestError(f"{where}: the stop token {token} is outside the vocabulary of {vocab_size} tokens.")


def check_length(id: str, tokens: tuple[int, ...], max_tokens: int, arch: Arch, max_cache_tokens: int) -> None:
    """Raises RequestError for an empty prompt, an unknown token, or more tokens than the context or the cache can hold."""
    where, prompt = f"Request '{id}'", len(tokens)
    if prompt == 0:
        raise RequestError(f"{where}: the prompt is empty; give it at least one token.")
    for token in tokens:
        if not isinstance(token, int) or not 0 <= token < arch.vocab_size:
            raise RequestError(
                f"{where}: the prompt holds {token!r}, which is no token of the vocabulary of {arch.vocab_size} tokens."
            )
    if prompt >= arch.max_positions:
        raise RequestError(
            f"{where}: the prompt has {prompt} tokens, the context of {arch.max_positions} has no room for a completion; shorten the prompt."
        )
    if prompt + max_tokens > arch.max_positions:
        raise RequestError(
            f"{where}: {prompt} prompt tokens and max_tokens {max_tokens} exceed the context of {arch.max_positions}; "
            f"max_tokens can be at most {arch.max_positions - prompt}."
        )
    if prompt + max_tokens > max_cache_tokens:
        raise RequestError(
            f"{where}: {prompt} prompt tokens and max_tokens {max_tokens} exceed the engine's cache of {max_cache_tokens} tokens; "
            f"lower max_tokens or raise max_cache_tokens."
        )
