"""Sampling against brute force: the distribution drawn from, its log-probabilities, and independence of the neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilaw.core.seeds import derive, uniform
from trilaw.core.types import SamplingParams
from trilaw.engine.sampling import RowParams, draw

CPU = torch.device("cpu")
SETTINGS = [
    SamplingParams(),
    SamplingParams(temperature=0.5),
    SamplingParams(temperature=2.0),
    SamplingParams(top_k=5),
    SamplingParams(top_p=0.6),
    SamplingParams(min_p=0.2),
    SamplingParams(temperature=1.5, top_k=9, top_p=0.8, min_p=0.1),
    SamplingParams(temperature=0.7, top_k=4, top_p=0.5),
    SamplingParams(top_k=1),
    SamplingParams(top_p=1e-9),
    SamplingParams(top_k=1000),
]


def brute_force(logits: Sequence[float], params: SamplingParams) -> np.ndarray:
    """The distribution by the definitions, one token at a time, in Python floats."""
    scaled = [x / params.temperature for x in logits]
    weights = [math.exp(x - max(scaled)) for x in scaled]
    left = {i: w / sum(weights) for i, w in enumerate(weights)}
    order = sorted(left, key=lambda i: (-left[i], i))
    if params.top_k:
        order = order[: params.top_k]
    total, kept, held = sum(left[i] for i in order), [], 0.0
    for i in order:
        if params.top_p < 1 and held >= params.top_p * total:
            break
        kept.append(i)
        held += left[i]
    kept = [i for i in kept if left[i] >= params.min_p * left[order[0]]]
    probs = np.zeros(len(logits))
    probs[kept] = [left[i] for i in kept]
    distribution: np.ndarray = probs / probs.sum()
    return distribution


def rows(params: Sequence[SamplingParams], eos_ids: Sequence[int] = ()) -> RowParams:
    return RowParams.of(params, eos_ids, CPU)


def draws(logits_V: Tensor, params: SamplingParams, n: int) -> tuple[Tensor, Tensor]:
    seeds_B = np.array([derive("draws", i) for i in range(n)], dtype=np.uint64)
    u_B = torch.from_numpy(uniform(seeds_B, np.zeros(n)))
    return draw(logits_V.expand(n, -1), rows([params] * n), u_B)


@pytest.mark.parametrize("params", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [12, 1500], ids=["running sum", "blocks"])
def test_frequencies_match_the_brute_force_distribution(params: SamplingParams, vocab: int) -> None:
    logits = torch.full((vocab,), -30.0)
    places = torch.linspace(0, vocab - 1, 12).long()
    logits[places] = torch.randn(12, generator=torch.Generator().manual_seed(1)) * 1.5
    expected = brute_force(logits.tolist(), params)
    n = 20_000 if vocab == 12 else 2_000
    token_B, logprob_B = draws(logits, params, n)
    counts = np.bincount(token_B.numpy(), minlength=vocab)
    likely = expected * n >= 5
    assert counts[expected == 0].sum() == 0
    assert counts[~likely].sum() <= 40
    chi_square = ((counts - expected * n)[likely] ** 2 / (expected * n)[likely]).sum()
    assert chi_square < likely.sum() - 1 + 4.0 * math.sqrt(2 * likely.sum()) + 1
    np.testing.assert_allclose(logprob_B.numpy(), np.log(expected[token_B.numpy()]), atol=2e-6)


@pytest.mark.parametrize("params", SETTINGS, ids=str)
def test_the_ends_of_u_never_draw_a_token_of_zero_probability(params: SamplingParams) -> None:
    logits = torch.full((2, 2000), -math.inf)
    logits[0, [700, 701, 1300]] = torch.tensor([0.3, 1.0, 0.7])
    logits[1, 999] = 0.0
    for u in (0.0, 2.0**-53, 0.5, 1 - 2.0**-53):
        for part in (logits, logits[:, 650:1310]):
            token_B, logprob_B = draw(part, rows([params] * 2), torch.full((2,), u, dtype=torch.float64))
            assert bool((part.gather(1, token_B[:, None]) > -math.inf).all())
            assert bool(torch.isfinite(logprob_B).all())


def test_u_walks_the_vocabulary_in_order() -> None:
    probs = torch.tensor([0.25, 0.0, 0.5, 0.25])
    for u, token in ((0.0, 0), (0.2499, 0), (0.25, 2), (0.7499, 2), (0.75, 3), (1 - 2.0**-53, 3)):
        assert (
            draw(probs.log()[None], rows([SamplingParams()]), torch.tensor([u], dtype=torch.float64))[0].item() == token
        )


def test_a_large_vocabulary_is_drawn_without_starving_the_tail() -> None:
    V = 49152
    logits = torch.zeros(V)
    logits[:1000] = 12.0  # the tail of 48,152 tokens holds 3e-4 of the mass, 6e-9 a token
    tail = (V - 1000) / (1000 * math.exp(12.0) + V - 1000)
    u = 1 - tail * (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    token_B, _ = draw(logits.expand(200, -1), rows([SamplingParams()] * 200), u)
    expected = V - (torch.arange(200) + 0.5) / 200 * (V - 1000)
    assert float((token_B - expected).abs().max()) < 0.01 * V


def test_greedy_takes_the_likeliest_with_the_plain_log_softmax() -> None:
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(2)) * 3
    params = [SamplingParams(temperature=0.0), SamplingParams(temperature=0.3)] * 3
    token_B, logprob_B = draw(logits, rows(params), torch.zeros(6, dtype=torch.float64))
    for i in (0, 2, 4):
        assert token_B[i] == logits[i].argmax()
        assert logprob_B[i].item() == pytest.approx(logits[i].log_softmax(-1).max().item(), abs=2e-6)
    alone, _ = draw(logits, rows([params[0]] * 6), torch.zeros(6, dtype=torch.float64))
    assert torch.equal(alone, logits.argmax(-1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-50.0, -1.0, -0.5, 0.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30),
    st.floats(0.1, 5.0),
    st.integers(0, 32),
    st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    st.one_of(st.just(0.0), st.floats(0.0, 0.99)),
)
def test_the_support_is_the_brute_force_one_ties_included(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = SamplingParams(temperature, top_k, top_p, min_p)
    expected = brute_force(logits, params)
    u_B = (torch.arange(257, dtype=torch.float64) + 0.5) / 257
    token_B, logprob_B = draw(torch.tensor(logits).expand(257, -1), rows([params] * 257), u_B)
    drawn = np.bincount(token_B.numpy(), minlength=len(logits)) / 257
    # A boundary that rounding decides (mass exactly at top_p, probability exactly at min_p) may move one token.
    if np.abs(drawn - expected).max() > 2 / 257:
        assert _near_boundary(logits, params)
    else:
        np.testing.assert_allclose(logprob_B.numpy(), np.log(np.maximum(expected[token_B.numpy()], 1e-30)), atol=1e-4)


def _near_boundary(logits: list[float], params: SamplingParams) -> bool:
    full = brute_force(logits, SamplingParams(params.temperature, params.top_k))
    held = np.cumsum(sorted(full, reverse=True))
    return bool(np.abs(held - params.top_p).min() < 1e-5 or np.abs(full / full.max() - params.min_p).min() < 1e-5)


def test_a_partial_sort_and_a_full_sort_agree() -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(3)).expand(40, -1) * 0.05
    u_B = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    narrow = SamplingParams(top_k=700, top_p=0.9)  # known from the 1,024 likeliest
    wide = SamplingParams(top_p=0.99)  # forces a full sort on every row of its batch
    alone = draw(logits, rows([narrow] * 40), u_B)
    mixed = draw(torch.cat([logits, logits[:1]]), rows([narrow] * 40 + [wide]), torch.cat([u_B, u_B[:1]]))
    assert torch.equal(alone[0], mixed[0][:40])
    assert torch.equal(alone[1], mixed[1][:40])


def test_a_row_does_not_see_its_neighbours() -> None:
    logits = torch.randn(len(SETTINGS), 300, generator=torch.Generator().manual_seed(4)) * 2
    u_B = torch.from_numpy(uniform(np.arange(len(SETTINGS), dtype=np.uint64), np.zeros(len(SETTINGS))))
    together = draw(logits, rows(SETTINGS), u_B)
    for i, params in enumerate(SETTINGS):
        token, logprob = draw(logits[i : i + 1], rows([params]), u_B[i : i + 1])
        assert token[0] == together[0][i]
        assert logprob[0] == together[1][i]


def test_extreme_temperatures_stay_finite() -> None:
    logits = torch.randn(2, 40, generator=torch.Generator().manual_seed(5)) * 20
    for temperature in (1e-300, 1e-30, 1e-3, 1e6):
        token_B, logprob_B = draw(
            logits, rows([SamplingParams(temperature)] * 2), torch.tensor([0.3, 0.99], dtype=torch.float64)
        )
        assert bool(torch.isfinite(logprob_B).all())
        assert temperature > 1 or torch.equal(token_B, logits.argmax(-1))


def test_stop_tokens_are_those_of_the_row() -> None:
    params = [
        SamplingParams(),
        SamplingParams(stop_tokens=(7, 8)),
        SamplingParams(stop_tokens=(7,), ignore_eos=True),
        SamplingParams(ignore_eos=True),
    ]
    table = rows(params, eos_ids=(1, 2))
    answers = {token: table.stops(torch.full((4,), token)).tolist() for token in (1, 2, 7, 8, 9)}
    assert answers[1] == answers[2] == [True, True, False, False]
    assert answers[7] == [False, True, True, False]
    assert answers[8] == [False, True, False, False]
    assert answers[9] == [False] * 4
    assert rows([params[3]]).stops(torch.tensor([1])).tolist() == [False]
