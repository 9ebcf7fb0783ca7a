"""The door: what a request must hold before it may wait in the queue. Every refusal is one sentence with the numbers in it."""

from __future__ import annotations

from typing import cast

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.core.protocols import Tokenizer
from trilaw.core.types import Request, SamplingParams
from trilaw.engine.memory import Memory


def tokenize(request: Request, tokenizer: Tokenizer) -> tuple[int, ...]:
    """A conversation by the chat template; raw text after BOS, if there is one; token ids as they are."""
    prompt = request.prompt
    if isinstance(prompt, str):
        bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
        return (*bos, *tokenizer.encode(prompt, special=True))
    if prompt and isinstance(prompt[0], dict):
        return tuple(tokenizer.encode_chat(prompt))
    return cast(tuple[int, ...], tuple(prompt))


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raises RequestError for a parameter out of its range, or two that contradict each other."""
    params.check()
    for token in params.stop_tokens:
        if not 0 <= token < vocab_size:
            raise RequestError(f"The stop token {token} is outside the vocabulary of {vocab_size} tokens.")


def continuation(request: Request, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The prompt of a fork, which follows tokens: ids as they are, text without BOS. Raises RequestError for a conversation."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return tuple(tokenizer.encode(prompt, special=True))
    if prompt and isinstance(prompt[0], dict):
        raise RequestError(
            f"Request '{request.id}' forks a sample, so its prompt must be text or token ids, not a conversation."
        )
    return cast(tuple[int, ...], tuple(prompt))


def room(tokens: tuple[int, ...], max_tokens: int, arch: Arch, memory: Memory) -> int:
    """How many new tokens the request may have: `max_tokens`, or what the context leaves if that is less.

    Raises RequestError for an empty prompt, an unknown token, no room in the context, or more tokens than the memory can ever hold.
    """
    prompt = len(tokens)
    if prompt == 0:
        raise RequestError("The prompt is empty; give it at least one token.")
    for token in tokens:
        if not isinstance(token, int) or not 0 <= token < arch.vocab_size:
            raise RequestError(
                f"The prompt holds {token!r}, which is no token of the vocabulary of {arch.vocab_size} tokens."
            )
    if prompt >= arch.max_positions:
        raise RequestError(
            f"The prompt has {prompt} tokens, the context of {arch.max_positions} has no room for a completion; shorten the prompt."
        )
    allowed = min(max_tokens, arch.max_positions - prompt)
    if memory.need(prompt + allowed) > memory.limit:
        cell = memory.bytes_per_cell
        raise RequestError(
            f"{prompt} prompt tokens and max_tokens {allowed} may need {memory.need(prompt + allowed) * cell:,} bytes of cache, max_kv_bytes is "
            f"{memory.limit * cell:,}; lower max_tokens or raise max_kv_bytes."
        )
    return allowed
