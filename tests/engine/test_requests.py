"""The door: every refusal names the request and the number, and comes before anything is queued."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from trilaw.core.errors import RequestError
from trilaw.core.protocols import collect
from trilaw.core.types import Message, Request, SamplingParams
from trilaw.engine import Engine
from trilaw.model.llama import CausalLM

GOOD = Request("good", (2, 3), SamplingParams(max_tokens=4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": 1.0}, "min_p is 1.0"),
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": 0.0, "top_k": 5}, "temperature 0 takes the likeliest"),
        ({"temperature": 0.0, "top_p": 0.5}, "temperature 0 takes the likeliest"),
        ({"temperature": 0.0, "min_p": 0.5}, "temperature 0 takes the likeliest"),
        ({"stop": ("x", "")}, "a stop string is empty"),
        ({"stop_tokens": (64,)}, "stop token 64 is outside the vocabulary of 64"),
        ({"max_tokens": 100}, "max_kv_bytes is {limit:,}"),
    ],
)
def test_parameters(tiny_model: CausalLM, pieces: Any, change: dict[str, Any], words: str) -> None:
    limit = 100 * tiny_model.arch.kv_bytes_per_token(4)
    engine, words = Engine(tiny_model, pieces(), max_kv_bytes=limit), words.replace("{limit:,}", f"{limit:,}")
    bad = Request("bad", (2, 3), replace(GOOD.params, **change))
    with pytest.raises(RequestError, match=words) as caught:
        engine.submit([GOOD, bad])
    assert "Request 'bad'" in str(caught.value)
    assert engine.pending == 0
    engine.check_integrity()
    assert len(collect(engine, [GOOD])) == 1


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ((), "prompt is empty"),
        ((3, 64), "holds 64, which is no token"),
        ((-1,), "holds -1"),
        (("x",), "holds 'x'"),
        ((2,) * 256, "The prompt has 256 tokens, the context of 256 has no room"),
        ((2,) * 300, "The prompt has 300 tokens"),
    ],
)
def test_prompts(tiny_model: CausalLM, pieces: Any, prompt: Any, words: str) -> None:
    engine = Engine(tiny_model, pieces())
    with pytest.raises(RequestError, match=words):
        engine.submit([GOOD, Request("bad", prompt, GOOD.params)])
    assert engine.pending == 0


def test_the_whole_context_can_be_used(tiny_model: CausalLM, pieces: Any) -> None:
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    sample = collect(Engine(tiny_model, pieces()), [Request("edge", (2,) * 250, params)])[0]
    assert len(sample.tokens) == 6


def test_a_sample_ends_where_the_context_does(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces())
    far = SamplingParams(max_tokens=10**9, ignore_eos=True)
    near = SamplingParams(max_tokens=6, ignore_eos=True)
    asked = [Request("far", (2,) * 250, far, 1), Request("near", (2,) * 250, near, 1)]
    first, second = collect(engine, asked)
    assert (first.tokens, first.stop) == (second.tokens, "length")
    engine.check_integrity()


def test_a_request_alone_needs_no_name(tiny_model: CausalLM, pieces: Any) -> None:
    with pytest.raises(RequestError, match=r"^The prompt has 300 tokens"):
        Engine(tiny_model, pieces()).submit([Request("bad", (2,) * 300, GOOD.params)])


def test_used_ids(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces())
    with pytest.raises(RequestError, match="'good': this id is in use"):
        engine.submit([GOOD, GOOD])
    engine.submit([GOOD])
    with pytest.raises(RequestError, match="in use"):
        engine.submit([GOOD])
    engine.step()
    with pytest.raises(RequestError, match="in use"):
        engine.submit([GOOD])
    engine.cancel(["good"])
    with pytest.raises(RequestError, match="in use"):
        engine.submit([GOOD])
    engine.step()
    engine.submit([GOOD])
    assert engine.pending == 1


def test_prompts_become_tokens(tiny_model: CausalLM, pieces: Any) -> None:
    params = SamplingParams(max_tokens=1)
    engine = Engine(tiny_model, pieces())
    text, chat, ids = collect(
        engine,
        [
            Request("text", "ab", params),
            Request("chat", (Message(role="user", content="ab"),), params),
            Request("ids", (2, 3), params),
        ],
    )
    assert text.prompt_tokens == (0, 2, 3)
    assert chat.prompt_tokens == (0, 2, 3, 5)
    assert ids.prompt_tokens == (2, 3)
    assert collect(Engine(tiny_model, pieces(bos=False)), [Request("t", "ab", params)])[0].prompt_tokens == (2, 3)


def test_limits_of_the_engine(tiny_model: CausalLM, pieces: Any) -> None:
    with pytest.raises(RequestError, match="max_batch is 0"):
        Engine(tiny_model, pieces(), max_batch=0)
    with pytest.raises(RequestError, match="max_kv_bytes allows 3 tokens, an engine for this model needs 66"):
        Engine(tiny_model, pieces(), max_kv_bytes=3 * tiny_model.arch.kv_bytes_per_token(4))
