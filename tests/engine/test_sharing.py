"""Shared prefixes, prompts in pieces, forks and preemption: none of them changes a sample, and no page is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trilaw.core.arch import Arch
from trilaw.core.errors import RequestError
from trilaw.core.protocols import collect
from trilaw.core.seeds import derive, rng
from trilaw.core.types import Message, Request, Sample, SamplingParams
from trilaw.engine import Engine
from trilaw.engine.pages import PAGE
from trilaw.engine.scheduler import Scheduler
from trilaw.model.llama import CausalLM
from trilaw.model.registry import build

Drain = Callable[[Engine], dict[str, Sample]]
FREE = SamplingParams(max_tokens=12, ignore_eos=True)
GREEDY = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)


def prompt(length: int, *parts: int) -> tuple[int, ...]:
    draw = rng("sharing", *parts)
    return tuple(draw.randrange(2, 64) for _ in range(length))


def family() -> list[Request]:
    """Groups of several sizes whose prompts begin alike, some shorter than a page, one far longer than the others."""
    start = prompt(70)
    prompts = [
        start,
        start + prompt(9, 1),
        start + prompt(50, 2),
        start[:40] + prompt(30, 3),
        prompt(6, 4),
        prompt(190, 5),
    ]
    return [
        Request(f"{p}.{i}", text, replace(FREE, max_tokens=5 + 9 * i), derive(p, i))
        for p, text in enumerate(prompts)
        for i in range(1 + (p * 2) % 5)
    ]


def alone(model: CausalLM, tokenizer: Any, requests: list[Request], **options: Any) -> dict[str, Sample]:
    """Each request in an engine of its own: nothing to share with."""
    return {r.id: collect(Engine(model, tokenizer, max_batch=1, **options), [r])[0] for r in requests}


def same(found: dict[str, Sample], expected: dict[str, Sample]) -> None:
    assert found.keys() == expected.keys()
    for id, sample in found.items():
        assert (sample.tokens, sample.text, sample.stop) == (expected[id].tokens, expected[id].text, expected[id].stop)
        logprobs = torch.tensor(expected[id].logprobs)
        torch.testing.assert_close(torch.tensor(sample.logprobs), logprobs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("params", [FREE, GREEDY])
def test_sharing_changes_no_sample(tiny_model: CausalLM, pieces: Any, drain: Drain, params: SamplingParams) -> None:
    requests = [replace(r, params=replace(params, max_tokens=r.params.max_tokens)) for r in family()]
    expected = alone(tiny_model, pieces(), requests)
    engine = Engine(tiny_model, pieces())
    for _ in range(2):  # the second time the tree knows the prompts
        engine.submit(requests)
        same(drain(engine), expected)


@pytest.mark.parametrize(("first", "piece"), [(1, 1), (50, 7), (33, 64)])
def test_prompts_in_pieces_change_no_sample(
    tiny_model: CausalLM, pieces: Any, drain: Drain, monkeypatch: pytest.MonkeyPatch, first: int, piece: int
) -> None:
    expected = alone(tiny_model, pieces(), family())
    monkeypatch.setattr("trilaw.engine.scheduler._FIRST", first)
    monkeypatch.setattr("trilaw.engine.scheduler._PIECE", piece)
    engine = Engine(tiny_model, pieces(), max_batch=5)
    engine.submit(family())
    same(drain(engine), expected)


def test_running_rows_go_on_while_a_long_prompt_is_read(
    tiny_model: CausalLM, pieces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilaw.engine.scheduler._PIECE", 10)
    engine = Engine(tiny_model, pieces())
    engine.submit([Request("short", (2,), GREEDY)])
    engine.step()
    engine.submit([Request("long", prompt(95), GREEDY)])
    for step in range(1, 10):
        engine.step()
        assert len(engine.partial("short")) == step + 1
        assert engine.partial("long") == ""
    engine.step()
    assert len(engine.partial("long")) == 1
    engine.check_integrity()


def test_a_prefix_that_is_stored_is_not_read_again(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces())
    start = prompt(3 * PAGE)
    first = collect(engine, [Request("a", (*start, 5), FREE)])[0]
    assert first.usage.cached_tokens == 0
    second = collect(engine, [Request("b", (*start, 9, 9), FREE)])[0]
    assert second.usage.cached_tokens == 3 * PAGE
    arch, end = tiny_model.arch, 3 * PAGE + 2 + 11
    pairs = (end * (end + 1) - 3 * PAGE * (3 * PAGE + 1)) / 2
    assert second.usage.flops == arch.forward_flops(2 + 11, pairs, 1 + 11)


def test_a_group_stores_its_prompt_once(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces())
    engine.submit([Request(str(i), prompt(200), FREE, i) for i in range(16)])
    engine.step()
    assert engine._memory.pages.used == 200 // PAGE
    assert engine._memory.tails.positions < 200


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_new_weights_never_meet_old_prefixes(
    tiny_model: CausalLM, tiny_arch: Arch, pieces: Any, dtype: torch.dtype | None
) -> None:
    other = build(tiny_arch, seed=8)
    with torch.no_grad():
        other.lm_head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(9))
    engine = Engine(tiny_model, pieces(), dtype=dtype, keep_samples=True)
    collect(engine, family())
    engine.submit(family())
    engine.step()
    engine.cancel([r.id for r in family()])
    while engine.pending:
        engine._ended.clear()  # no further step: rows that were cancelled still hold pages
    engine.load_weights(other, 1)
    assert engine._memory.pages.used == 0
    engine.submit(family())
    found: dict[str, Sample] = {}
    while engine.pending:
        found |= {s.request_id: s for s in engine.step()}
    fresh = {s.request_id: s for s in collect(Engine(other, pieces(), dtype=dtype), family())}
    assert {id: s.tokens for id, s in found.items()} == {id: s.tokens for id, s in fresh.items()}
    assert {s.weights_version for s in found.values()} == {1}


def test_forks_go_on_from_a_running_sample(tiny_model: CausalLM, pieces: Any, drain: Drain) -> None:
    text, long = prompt(20), replace(GREEDY, max_tokens=90)
    expected = collect(Engine(tiny_model, pieces()), [Request("p", text, long)])[0]
    engine = Engine(tiny_model, pieces())
    engine.submit([Request("p", text, long)])
    for _ in range(70):
        engine.step()
    forks = [Request(f"f{i}", (), replace(GREEDY, max_tokens=30)) for i in range(3)]
    engine.fork("p", 60, [*forks, Request("wait", "b", GREEDY)])
    engine.check_integrity()
    done = drain(engine)
    assert done["p"].tokens == expected.tokens
    for fork in forks:
        assert done[fork.id].prompt_tokens == text + expected.tokens[:60]
        assert done[fork.id].tokens == expected.tokens[60:90]
        assert done[fork.id].usage.cached_tokens >= 80 // PAGE * PAGE  # only what fills no page is read again
    plain = collect(Engine(tiny_model, pieces()), [Request("x", (*text, *expected.tokens[:60], 3), GREEDY)])[0]
    assert (done["wait"].prompt_tokens, done["wait"].tokens) == (plain.prompt_tokens, plain.tokens)


@pytest.mark.parametrize("keep", [True, False])
def test_forks_go_on_from_a_sample_that_ended(tiny_model: CausalLM, pieces: Any, drain: Drain, keep: bool) -> None:
    engine = Engine(tiny_model, pieces(), keep_samples=keep)
    ended = collect(engine, [Request("p", prompt(10), replace(GREEDY, max_tokens=80))])[0]
    engine.fork(ended, 70, [Request("f", (), replace(GREEDY, max_tokens=10))])
    fork = drain(engine)["f"]
    assert fork.tokens == ended.tokens[70:]
    assert fork.usage.cached_tokens == (2 * PAGE if keep else 0)


def test_what_cannot_be_forked(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces())
    engine.submit([Request("p", (2, 3), FREE)])
    engine.step()
    with pytest.raises(RequestError, match="at_token is 2, and the sample has 1 tokens"):
        engine.fork("p", 2, [Request("f", (), FREE)])
    with pytest.raises(RequestError, match="No request 'q'"):
        engine.fork("q", 0, [Request("f", (), FREE)])
    with pytest.raises(RequestError, match="forks a sample, so its prompt must be text or token ids"):
        engine.fork("p", 1, [Request("f", (Message(role="user", content="a"),), FREE)])
    with pytest.raises(RequestError, match="in use"):
        engine.fork("p", 1, [Request("p", (), FREE)])
    engine.check_integrity()


def test_rows_that_do_not_fit_wait_or_come_back_and_change_nothing(
    tiny_model: CausalLM, pieces: Any, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request(str(i), prompt(20 + i, i % 3), replace(FREE, max_tokens=100), i) for i in range(6)]
    expected = alone(tiny_model, pieces(), requests)
    preempted: list[str] = []
    preempt = Scheduler.preempt

    def spy(self: Scheduler, row: int) -> None:
        preempted.append(self.rows.sequences[row].id)
        preempt(self, row)

    monkeypatch.setattr(Scheduler, "preempt", spy)
    monkeypatch.setattr("trilaw.engine.scheduler._AHEAD", 2)
    engine = Engine(tiny_model, pieces(), max_kv_bytes=400 * tiny_model.arch.kv_bytes_per_token(4))
    engine.submit(requests)
    done = drain(engine)
    same(done, expected)
    assert preempted
    assert "0" not in preempted  # the oldest always runs on
    again = done[preempted[0]].usage
    assert again.flops > expected[preempted[0]].usage.flops  # reading it again costs, and is counted


def test_a_request_that_can_never_fit_is_refused_with_the_numbers(tiny_model: CausalLM, pieces: Any) -> None:
    cell = tiny_model.arch.kv_bytes_per_token(4)
    engine = Engine(tiny_model, pieces(), max_kv_bytes=164 * cell)
    words = f"50 prompt tokens and max_tokens 60 may need {174 * cell:,} bytes of cache, max_kv_bytes is {164 * cell:,}"
    with pytest.raises(RequestError, match=words):
        engine.submit([Request("a", prompt(50), replace(FREE, max_tokens=60))])
    assert len(collect(engine, [Request("a", prompt(50), replace(FREE, max_tokens=50))])[0].tokens) == 50


def test_cancelled_requests_give_their_pages_back(tiny_model: CausalLM, pieces: Any) -> None:
    engine = Engine(tiny_model, pieces(), max_batch=4)
    engine.submit(family())
    engine.step()
    engine.cancel([r.id for r in family()])
    engine.check_integrity()
    engine.step()
    engine.check_integrity()
    pool = engine._memory.pages
    assert pool.held == 0
    pool.clear()
    assert (pool.used, pool.capacity) == (0, 0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_of_everything(pieces: Any, data: st.DataObject) -> None:
    arch = Arch(16, 8, 8, 1, 2, 1, 4, max_positions=160, tied=True, eos_ids=(1,))
    models = [build(arch, seed=seed) for seed in (1, 2)]
    engine = Engine(
        models[0],
        pieces(vocab_size=16),
        max_batch=data.draw(st.integers(1, 6)),
        max_kv_bytes=data.draw(st.integers(200, 900)) * arch.kv_bytes_per_token(4),
        keep_samples=data.draw(st.booleans()),
    )
    starts = [(3,) * 40, (3,) * 33 + (4,) * 40, (5, 6)]
    made: dict[str, Request] = {}
    ended: dict[str, Sample] = {}
    for _ in range(data.draw(st.integers(1, 20))):
        action = data.draw(st.sampled_from(["submit", "step", "step", "step", "many", "cancel", "fork", "load"]))
        new = [
            Request(
                str(len(made) + i),
                data.draw(st.sampled_from(starts)),
                SamplingParams(
                    data.draw(st.sampled_from([0.0, 1.0])), max_tokens=data.draw(st.integers(1, 50)), ignore_eos=True
                ),
                len(made) + i,
            )
            for i in range(data.draw(st.integers(1, 3)) if action in ("submit", "fork") else 0)
        ]
        open_ids = sorted(made.keys() - ended.keys())
        if action == "submit":
            engine.submit(new)
            made |= {r.id: r for r in new}
        elif action == "fork" and (open_ids or ended):
            old = sorted(ended)
            source = data.draw(st.sampled_from([*open_ids, *(ended[id] for id in old)]))
            try:
                at = data.draw(st.integers(0, 20))
                follow = [replace(r, prompt=()) for r in new]
                engine.fork(source, at, follow)
                made |= {r.id: r for r in new}
            except RequestError:  # ended meanwhile, or shorter
                pass
        elif action == "cancel" and open_ids:
            engine.cancel(data.draw(st.lists(st.sampled_from(open_ids), max_size=3)))
        elif action == "load" and not engine.pending:
            engine.load_weights(models[engine.weights_version % 2 - 1], engine.weights_version + 1)
            assert engine._memory.pages.used == 0
        else:
            for _ in range(20 if action == "many" else 1):
                ended |= {s.request_id: s for s in engine.step()}
        engine.check_integrity()
        pool = engine._memory.pages
        assert pool.used + pool.free == pool.capacity
    while engine.pending:
        ended |= {s.request_id: s for s in engine.step()}
        engine.check_integrity()
    assert ended.keys() == made.keys()
    assert engine._memory.pages.held == 0
