"""What the engine's tests share: a tokenizer of chosen pieces, a model that follows a chosen chain, and short ways to order samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from trilaw.core.arch import Arch
from trilaw.core.types import Message, Sample
from trilaw.engine import Engine
from trilaw.model.llama import CausalLM
from trilaw.model.native import build as native
from trilaw.model.registry import build


class Pieces:
    """Token i is the bytes pieces[i], by default one ASCII character (2 is "a"); 0 is BOS and 1 is EOS, which decode to nothing."""

    def __init__(self, pieces: Mapping[int, bytes] | None = None, vocab_size: int = 64, bos: bool = True) -> None:
        self.vocab_size = vocab_size
        self.eos_ids: tuple[int, ...] = (1,)
        self.bos_id = 0 if bos else None
        self.pad_id = 1
        self.pieces = {i: bytes([95 + i if i < 32 else i]) for i in range(2, vocab_size)} | dict(pieces or {})

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids = {piece: i for i, piece in self.pieces.items()}
        return [ids[bytes([b])] for b in text.encode()]

    def decode(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.pieces.get(t, b"") for t in tokens).decode("utf-8", "replace")

    def render(self, messages: Sequence[Message], *, generation: bool = True) -> str:
        return "".join(m["content"] for m in messages)

    def encode_chat(self, messages: Sequence[Message], *, generation: bool = True) -> list[int]:
        return [0, *self.encode(self.render(messages)), 5]


@pytest.fixture(params=["PyTorch", "C"])
def tiny_arch(request: pytest.FixtureRequest, tiny_arch: Arch) -> Arch:
    """Heads of 8, which PyTorch's operators decode, and heads of 16, which the C functions do."""
    if request.param == "PyTorch":
        return tiny_arch
    if reason := native.why_not():
        pytest.skip(reason)
    return replace(tiny_arch, head_dim=16)


@pytest.fixture(scope="session")
def pieces() -> type[Pieces]:
    return Pieces


@pytest.fixture
def chain(tiny_arch: Arch) -> Callable[[Mapping[int, int]], CausalLM]:
    """`chain({a: b})`: a model whose likeliest token after a is b (after any other token, the next number)."""

    def make(successor: Mapping[int, int]) -> CausalLM:
        model = build(replace(tiny_arch, hidden_size=64), seed=0)
        follow = {t: (t + 1) % 64 for t in range(64)} | dict(successor)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "o_proj" in name or "down_proj" in name:
                    weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(64))
            for token, following in follow.items():
                model.lm_head.weight[following, token] = 4.0
        return model

    return make


@pytest.fixture
def drain() -> Callable[[Engine], dict[str, Sample]]:
    """Step until nothing is pending; the samples by id. Every step checks the engine's books and that no id ends twice."""

    def run(engine: Engine) -> dict[str, Sample]:
        done: dict[str, Sample] = {}
        while engine.pending:
            for sample in engine.step():
                assert sample.request_id not in done
                done[sample.request_id] = sample
            engine.check_integrity()
        return done

    return run
