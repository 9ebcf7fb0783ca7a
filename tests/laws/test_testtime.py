"""The law of coverage: the models against closed forms, quadrature and scipy; the intervals against populations whose truth is known."""

from __future__ import annotations

import csv
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import betabinom, binom, norm

from trilaw.core.errors import LawError, RequestError
from trilaw.laws import testtime
from trilaw.laws.coverage_mixture import Mixture, Pairs, draw, fit_rows
from trilaw.laws.coverage_models import FAMILIES, Ascent, Family, climb, likelihood, nodes
from trilaw.laws.points import ProblemCounts
from trilaw.laws.testtime import beta_pass_at_k, check_counts, fit_testtime, pass_pow_k

BETA, KUMARASWAMY, LOGIT_NORMAL, SCALED = FAMILIES[:4]
NO_ZERO = np.zeros(1)


def problems(samples: int | list[int], correct: list[int]) -> list[ProblemCounts]:
    each = [samples] * len(correct) if isinstance(samples, int) else samples
    return [ProblemCounts(f"q{i}", n, c) for i, (n, c) in enumerate(zip(each, correct))]


def sampled(p_P: np.ndarray, samples: int, rng: np.random.Generator) -> list[ProblemCounts]:
    return problems(samples, rng.binomial(samples, p_P).tolist())


def with_zeros(p_P: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(p_P)) < share, 0.0, p_P)


# ---------------------------------------------------------------- closed forms


def test_closed_form_of_the_beta():
    for k, value in ((10, 0.4415), (100, 0.7084), (1000, 0.8532), (10000, 0.9264)):
        assert beta_pass_at_k(0.3, 2.0, k) == pytest.approx(value, abs=5e-5)
    for a, b, k in ((0.3, 2.0, 7), (4.0, 1.5, 3)):
        assert beta_pass_at_k(a, b, k) == pytest.approx(1.0 - betabinom.pmf(0, k, a, b), rel=1e-10)
    assert beta_pass_at_k(0.3, 2.0, 1) == pytest.approx(0.3 / 2.3)
    # 1 - pass@k tends to Gamma(a + b) / Gamma(b) k^-a.
    rest = 1.0 - beta_pass_at_k(0.3, 2.0, 1e6)
    assert rest == pytest.approx(math.gamma(2.3) / math.gamma(2.0) * 1e6**-0.3, rel=1e-5)


@given(st.integers(1, 8), st.data())
@settings(max_examples=40, deadline=None)
def test_pass_pow_k_is_the_mean_over_all_subsets(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_pow_k(n, c, k) == pytest.approx(sum(map(all, subsets)) / len(subsets))


def test_pass_pow_k_refuses_what_cannot_be():
    for n, c, k in ((4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 2)):
        with pytest.raises(ValueError, match="do not fit"):
            pass_pow_k(n, c, k)


# ---------------------------------------------------------------- the models on their nodes


@pytest.mark.parametrize(("a", "b"), [(0.3, 2.0), (0.02, 1.0), (3.0, 0.1), (1.0, 1.0), (20.0, 30.0)])
def test_the_beta_on_its_nodes_is_the_closed_form(a, b):
    at = nodes(20)
    w_G = BETA.weights(np.log([[a, b]]), NO_ZERO, at)[0]
    assert w_G.sum() == pytest.approx(1.0)
    for k in (1, 10, 1e3, 1e8):
        assert w_G @ at.solved(k) == pytest.approx(beta_pass_at_k(a, b, k), abs=3e-6)
    for n, c in ((20, 0), (20, 1), (20, 13), (20, 20)):
        chance = likelihood(np.array([n]), np.array([c]), at)[0] @ w_G
        assert chance == pytest.approx(betabinom.pmf(c, n, a, b), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.05, 2.0), (0.4, 1.3), (2.0, 5.0), (6.0, 0.5)])
def test_the_kumaraswamy_on_its_nodes_is_the_quadrature(a, b):
    at = nodes(20)
    w_G = KUMARASWAMY.weights(np.log([[a, b]]), NO_ZERO, at)[0]
    for k in (1, 20, 1000):
        # With u uniform, p = (1 - u^(1/b))^(1/a).
        truth = quad(lambda u, k=k: 1 - (1 - (1 - u ** (1 / b)) ** (1 / a)) ** k, 0, 1, limit=500, epsabs=1e-9)[0]
        assert w_G @ at.solved(k) == pytest.approx(truth, abs=2e-5)


@pytest.mark.parametrize(("mean", "deviation"), [(-3.0, 2.0), (-6.0, 1.0), (1.0, 0.6)])
def test_the_logit_normal_on_its_nodes_is_the_quadrature(mean, deviation):
    at = nodes(20)
    w_G = LOGIT_NORMAL.weights(np.array([[mean, math.log(deviation)]]), NO_ZERO, at)[0]

    def solved(x: float, k: int) -> float:
        return float(norm.pdf(x, mean, deviation) * (1 - (1 - 1 / (1 + math.exp(-x))) ** k))

    for k in (1, 20, 1000):
        low, high = mean - 9 * deviation, mean + 9 * deviation
        assert w_G @ at.solved(k) == pytest.approx(quad(solved, low, high, args=(k,), limit=500)[0], abs=1e-6)


def test_zero_mass_ceiling_and_body_do_what_they_say():
    at, theta = nodes(20), np.log([[0.5, 1.5]])
    with_zero = BETA.weights(theta, np.array([0.25]), at)[0]
    assert with_zero @ at.solved(100) == pytest.approx(0.75 * beta_pass_at_k(0.5, 1.5, 100), abs=1e-6)
    assert with_zero @ at.solved(math.inf) == pytest.approx(0.75, abs=1e-5)
    plain = SCALED.weights(theta, NO_ZERO, at)[0]
    assert plain @ at.solved(1, 0.6) == pytest.approx(0.6 * 0.25, abs=1e-6)

    def thinned(x: float) -> float:
        density = x**-0.5 * (1 - x) ** 0.5 / (math.gamma(0.5) * math.gamma(1.5) / math.gamma(2.0))
        return float(density * binom.pmf(4, 20, 0.6 * x))

    chance = likelihood(np.array([20]), np.array([4]), at, 0.6)[0] @ plain
    assert chance == pytest.approx(quad(thinned, 0, 1, limit=200)[0], rel=1e-5)
    both = Family("beta", body=True).weights(np.array([[*theta[0], *np.log([9.0, 2.0]), 0.4]]), NO_ZERO, at)[0]
    expected = 0.6 * beta_pass_at_k(0.5, 1.5, 7) + 0.4 * beta_pass_at_k(9.0, 2.0, 7)
    assert both @ at.solved(7) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_gradients_are_those_of_the_likelihood(family):
    at = nodes(20)
    n_H, c_H = np.full(6, 20), np.array([0, 1, 3, 10, 19, 20])
    tail = [-2.0, 0.6] if family.tail == "logit-normal" else [-1.2, 0.4]
    theta = np.array([[*tail, *([1.0, 0.5, 0.3] if family.body else [])]])
    ceiling = 0.98 if family.ceiling else 1.0
    zero = np.array([0.0 if family.ceiling else 0.2])
    ascent = Ascent(np.array([[10.0, 5, 3, 2, 2, 1]]), likelihood(n_H, c_H, at, ceiling), zero, at)
    gradient = ascent.slope(family, theta)[1][0]
    for i in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[0, i] = 1e-5
        rise = ascent.slope(family, theta + step)[0] - ascent.slope(family, theta - step)[0]
        assert gradient[i] == pytest.approx(rise[0] / 2e-5, rel=1e-5, abs=1e-6)


def test_the_ascent_finds_the_maximum_that_scipy_finds():
    rng = np.random.default_rng(0)
    counts = np.bincount(rng.binomial(30, rng.beta(0.4, 1.2, 300)), minlength=31).astype(float)
    c_H = np.arange(31)

    def loss(theta: np.ndarray) -> float:
        return -float(counts @ betabinom.logpmf(c_H, 30, *np.exp(theta)))

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    at = nodes(30)
    starts = BETA.starts()
    ascent = Ascent(np.tile(counts, (len(starts), 1)), likelihood(np.full(31, 30), c_H, at), np.zeros(len(starts)), at)
    theta, value = climb(BETA, starts, ascent)
    assert theta == pytest.approx(np.tile(best.x, (len(starts), 1)), abs=5e-3)
    assert value == pytest.approx(np.full(len(starts), -best.fun), abs=2e-4)


def test_weights_and_draws_add_up():
    rng = np.random.default_rng(1)
    correct, times = np.unique(rng.binomial(16, rng.beta(0.5, 1.0, 80)), return_counts=True)
    pairs = Pairs(np.full(len(correct), 16), correct, times.astype(float), nodes(16))
    rows, alone = fit_rows(pairs)
    assert rows.weight_R.sum() == pytest.approx(1.0)
    assert all(own.weight_R.sum() == pytest.approx(1.0) for own in alone.values())
    drawn, source_S = draw(pairs, rows, 333, rng)
    assert len(drawn) == len(source_S) == 333
    shares = np.bincount(source_S, minlength=len(rows)) / 333
    assert np.abs(shares - rows.weight_R).max() <= 1 / 333 + 1e-9  # systematic: no row is off by more than one draw
    # The posterior of these problems holds together: averaged over the pairs, it is the mixture of the posteriors.
    fitted = Mixture(pairs, rows)
    for k in (1, 5):
        unbiased = float(times @ np.array([1 - math.comb(16 - c, k) / math.comb(16, k) for c in correct])) / 80
        assert float(rows.weight_R @ fitted.pass_at_k(k, these=True)) == pytest.approx(unbiased, abs=0.02)


# ---------------------------------------------------------------- the fit


@pytest.fixture(scope="module")
def fit() -> testtime.TesttimeFit:
    rng = np.random.default_rng(100)
    return fit_testtime(sampled(rng.beta(0.3, 2.0, 400), 64, rng), bootstraps=400)


def test_parameters_of_a_beta_population_are_recovered(fit):
    assert fit.alpha.low < 0.3 < fit.alpha.high
    assert fit.beta.value == pytest.approx(2.0, rel=0.3)
    assert fit.alpha.high - fit.alpha.low < 0.25
    for k in (1, 64, 640):
        estimate = fit.predict(k, population="new")
        assert estimate.low - 0.005 <= beta_pass_at_k(0.3, 2.0, k) <= estimate.high + 0.005
        assert estimate.n == 400
        assert "90%" in estimate.method


def test_predictions_are_shares_that_grow_with_k(fit):
    for population in ("these", "new"):
        values = [fit.predict(k, population=population) for k in (1, 2, 5, 20, 64, 100, 1000, 1e5, 1e9, math.inf)]
        assert all(0 <= e.low <= e.value <= e.high <= 1 for e in values)
        assert all(a.value <= b.value + 1e-12 for a, b in itertools.pairwise(values))
        assert values[4].high - values[4].low < values[7].high - values[7].low  # the further, the less certain


def test_these_problems_are_known_better_than_new_ones(fit):
    for k in (1, 10):
        these, new, measured = fit.predict(k), fit.predict(k, population="new"), fit.measured(k)
        assert these.high - these.low < 0.5 * (new.high - new.low)
        assert these.low - 0.005 <= measured.value <= these.high + 0.005
        assert measured.high - measured.low == pytest.approx(new.high - new.low, rel=0.3)
    # A problem that was solved once is solved by k >> n, so of these problems at least that share is.
    seen = sum(p.correct > 0 for p in fit.points) / len(fit.points)
    assert fit.predict(10_000).low >= seen - 0.01


def test_the_same_arguments_give_the_same_answer_and_none_a_point():
    rng = np.random.default_rng(2)
    rows = sampled(rng.beta(0.5, 1.5, 60), 16, rng)
    first, again = fit_testtime(rows, bootstraps=50, seed=3), fit_testtime(rows, bootstraps=50, seed=3)
    assert first.predict(100) == again.predict(100)
    assert first == again
    other = fit_testtime(rows, bootstraps=50, seed=4)
    assert other.predict(100) != first.predict(100)
    assert other.predict(100).value == first.predict(100).value
    point = fit_testtime(rows, bootstraps=0)
    assert point.draws_SP.shape == (0, 8)
    for estimate in (point.predict(100), point.predict(100, population="new"), point.alpha, point.zero_mass):
        assert estimate.low == estimate.value == estimate.high
        assert estimate.method == "no bootstrap"
    assert point.predict(100).value == first.predict(100).value


def test_order_and_names_of_problems_do_not_matter():
    rng = np.random.default_rng(5)
    correct = rng.binomial(20, rng.beta(0.4, 1.0, 50)).tolist()
    one = fit_testtime(problems(20, correct), bootstraps=20)
    two = fit_testtime(list(reversed(problems(20, correct))), bootstraps=20)
    assert one.predict(500) == two.predict(500)


def test_numbers_of_samples_may_differ():
    rng = np.random.default_rng(500)
    p_P, n_P = rng.beta(0.4, 1.5, 150), rng.integers(8, 64, 150)
    fit = fit_testtime(problems(n_P.tolist(), rng.binomial(n_P, p_P).tolist()), bootstraps=100)
    estimate = fit.predict(500)
    assert estimate.low <= float((1 - (1 - p_P) ** 500).mean()) <= estimate.high
    assert fit.reach(80) == 80 / n_P.min()
    assert any(f"{n_P.min()} to {n_P.max()} samples" in note for note in fit.notes)


def test_a_zero_mass_is_a_number_only_where_the_samples_show_it():
    rng = np.random.default_rng(7)
    p_P = with_zeros(rng.beta(2.0, 2.0, 300), 0.4, rng)
    clear = fit_testtime(sampled(p_P, 200, rng), bootstraps=200)
    assert clear.zero_mass_known
    assert clear.zero_mass.low < 0.4 < clear.zero_mass.high
    assert clear.zero_mass.value == pytest.approx(0.4, abs=0.06)
    assert clear.to_json()["zero_mass"]["value"] == clear.zero_mass.value
    assert any("would not be solved by 1000 times the samples" in note for note in clear.notes)
    assert clear.predict(1e5).value == pytest.approx(float((p_P > 0).mean()), abs=0.02)
    p_P = with_zeros(rng.beta(0.4, 1.5, 300), 0.2, rng)
    dim = fit_testtime(sampled(p_P, 20, rng), bootstraps=200)
    assert not dim.zero_mass_known
    assert dim.to_json()["zero_mass"]["value"] is None
    assert dim.zero_mass.high - dim.zero_mass.low > 0.15
    assert any("no single number is given" in note for note in dim.notes)


def test_a_ceiling_on_success_is_found():
    rng = np.random.default_rng(8)
    fit = fit_testtime(sampled(0.5 * rng.beta(0.6, 0.6, 300), 64, rng), bootstraps=100)
    assert fit.families["scaled beta"] > 0.9


def test_counts_that_no_family_describes_are_said_to_be_so(fit):
    assert not any("lie off every family" in note for note in fit.notes)
    rng = np.random.default_rng(4)
    levels = rng.choice([0.0, 0.003, 0.05, 0.5, 0.95], 300)
    off = fit_testtime(sampled(levels, 100, rng), bootstraps=0)
    assert any("lie off every family (chi-square, p = " in note for note in off.notes)


def test_the_power_law_is_the_line_through_the_measured_curve(fit):
    ks = [1, 2, 4, 8, 16, 32, 64]
    y = [math.log(-math.log(fit.measured(k).value)) for k in ks]
    slope, level = np.polyfit(np.log(ks), y, 1)
    assert pytest.approx(-slope) == fit.power_law.B.value
    assert pytest.approx(math.exp(level)) == fit.power_law.A.value
    far = fit.power_law.predict(640)
    assert far.value == pytest.approx(math.exp(-math.exp(level) * 640**slope))
    assert far.low < far.value < far.high
    # Within reach the curve of a Beta still bends, so the power law through its beginning goes too high.
    assert far.value > fit.predict(640, population="new").value
    assert any("power law" in note for note in fit.notes)
    # Two of four samples always hold a right one: only pass@1 lies between 0 and 1, and one point carries no line.
    assert fit_testtime(problems(4, [4] * 9 + [3]), bootstraps=5).power_law is None


def test_a_far_prediction_carries_a_caution(fit):
    assert fit.caution(640) is None
    assert "100x beyond the data in samples a problem" in fit.caution(6400)
    assert fit.reach(640) == 10.0


def test_json_is_plain_and_finite(fit):
    text = json.dumps(fit.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["points"] == 400
    assert read["samples"] == [64, 64]
    assert sum(read["families"].values()) == pytest.approx(1.0)
    assert set(read["power_law"]) == {"A", "B"}
    assert fit.draws_SP.shape == (400, 8)
    assert set(fit.draws_SP[:, 0]) <= set(range(len(FAMILIES)))


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (problems(20, [1] * 9), r"There are 9 problems with counts: the law needs at least 10\."),
        ([*problems(20, [1] * 10), ProblemCounts("x", 3, 1)], r"'x' has 3 samples: the law needs at least 4 of every"),
        ([*problems(20, [1] * 10), ProblemCounts("x", 20, 21)], r"'x' has 21 right samples of 20, which cannot be\."),
        ([*problems(20, [1] * 10), ProblemCounts("q3", 20, 2)], r"'q3' is there 2 times: fit the counts of one model"),
        ([*problems(20, [1] * 10), ProblemCounts("x", 20, 2, (3,), ())], r"'x' has votes that do not fit 2 right"),
        (problems(20, [0] * 40), r"None of the 40 problems was solved once.*pass@20 is at most 7\.2%"),
        (problems(20, [20] * 40), r"Every sample of the 40 problems is right.*at most 7\.2% of such problems fail"),
    ],
)
def test_data_that_carry_no_law_are_refused(rows, sentence):
    with pytest.raises(LawError, match=sentence):
        fit_testtime(rows)


def test_bad_requests_are_refused(fit):
    with pytest.raises(RequestError, match="bootstraps is -1"):
        fit_testtime(problems(20, list(range(11))), bootstraps=-1)
    for k in (0, 0.5, 1e10, math.nan):
        with pytest.raises(RequestError, match="it must be a number of samples from 1 to 1e\\+09, or infinite"):
            fit.predict(k)
    with pytest.raises(RequestError, match="population is 'all', it must be 'these' or 'new'"):
        fit.predict(10, population="all")
    for k in (0, 65):
        with pytest.raises(RequestError, match="can be measured from 1 to 64 samples a problem; use predict"):
            fit.measured(k)
    assert len(check_counts(problems(4, [1] * 10))) == 10


@pytest.mark.parametrize(
    "correct",
    [[0] * 9 + [1], [20] * 9 + [19], [0] * 5 + [20] * 5, [10] * 10, [1] * 10, list(range(0, 20, 2))],
    ids=["one success", "one failure", "all or nothing", "all alike", "all once", "even"],
)
def test_the_smallest_and_oddest_data_give_sound_numbers(correct):
    fit = fit_testtime(problems(20, correct), bootstraps=60)
    for k in (1, 20, 2000, math.inf):
        for population in ("these", "new"):
            e = fit.predict(k, population=population)
            assert 0 <= e.low <= e.value <= e.high <= 1
    assert fit.predict(1).value == pytest.approx(sum(correct) / 200, abs=0.03)
    json.dumps(fit.to_json(), allow_nan=False)


# ---------------------------------------------------------------- the intervals against the truth

POPULATIONS = {
    "beta": lambda rng, n: rng.beta(0.3, 2.0, n),
    "zero mass and beta": lambda rng, n: with_zeros(rng.beta(0.5, 1.5, n), 0.3, rng),
    "scaled beta": lambda rng, n: 0.6 * rng.beta(0.4, 1.0, n),
    "two humps": lambda rng, n: np.where(rng.random(n) < 0.5, rng.beta(8, 2, n), rng.beta(0.3, 20, n)),
    "kumaraswamy": lambda rng, n: (1 - rng.random(n) ** (1 / 3)) ** (1 / 0.25),
    "heavy kumaraswamy": lambda rng, n: (1 - rng.random(n) ** (1 / 2)) ** (1 / 0.1),
    "logit-normal": lambda rng, n: 1 / (1 + np.exp(-rng.normal(-4, 3, n))),
    "zero mass and logit-normal": lambda rng, n: with_zeros(1 / (1 + np.exp(-rng.normal(-2, 2, n))), 0.3, rng),
    "log-uniform": lambda rng, n: 10 ** rng.uniform(-5, 0, n),
}


def hits(name: str, samples: int, k: int, seeds: range, bootstraps: int) -> int:
    """In how many populations of 300 problems the interval holds the true mean of 1 - (1 - p)^k of these problems."""
    count = 0
    for seed in seeds:
        rng = np.random.default_rng([seed, samples])
        p_P = POPULATIONS[name](rng, 300)
        estimate = fit_testtime(sampled(p_P, samples, rng), bootstraps=bootstraps, seed=seed).predict(k)
        count += estimate.low <= float((1 - (1 - p_P) ** k).mean()) <= estimate.high
    return count


def test_ten_times_the_samples_are_foretold_for_many_shapes():
    names = ("zero mass and beta", "two humps", "kumaraswamy", "logit-normal")
    assert sum(hits(name, 50, 500, range(1), 100) for name in names) >= len(names) - 1


def test_a_fit_is_fast():
    rng = np.random.default_rng(12)
    rows = sampled(rng.beta(0.3, 1.0, 400), 100, rng)
    start = time.process_time()
    fit_testtime(rows)  # 1,000 bootstraps
    assert time.process_time() - start < 30  # about 1.5 s on one core; BLAS threads that spin count here


def codex(folder: Path, prompt: str) -> np.ndarray:
    """Right samples of 1,000 for each of 397 puzzles (microsoft/PythonProgrammingPuzzles, MIT)."""
    with (folder / "laws" / "codex_puzzles_counts_n1000.csv").open(encoding="utf-8") as file:
        return np.array([int(row[f"correct_{prompt}"]) for row in csv.DictReader(file)])


CODEX = {"short": 0.2997, "med": 0.6902, "long": 0.7657}


def codex_hits(correct_P: np.ndarray, samples: int, draws: int, bootstraps: int) -> int:
    """Subsets of the 1,000 samples of each puzzle; the truth is pass@1000 of the whole."""
    rng, count = np.random.default_rng(samples), 0
    for seed in range(draws):
        rows = problems(samples, rng.hypergeometric(correct_P, 1000 - correct_P, samples).tolist())
        estimate = fit_testtime(rows, bootstraps=bootstraps, seed=seed).predict(1000)
        count += estimate.low <= float((correct_P > 0).mean()) <= estimate.high
    return count


@pytest.mark.parametrize("prompt", CODEX)
def test_real_puzzles_from_a_hundred_samples(shared_data, prompt):
    correct_P = codex(shared_data, prompt)
    assert float((correct_P > 0).mean()) == pytest.approx(CODEX[prompt], abs=5e-5)
    assert codex_hits(correct_P, 100, 1, 150) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("samples", [20, 100])
@pytest.mark.parametrize("prompt", CODEX)
def test_real_puzzles_ten_draws(shared_data, prompt, samples):
    assert codex_hits(codex(shared_data, prompt), samples, 10, 1000) >= 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("zero", "a", "b"), [(0.3, 0.5, 1.5), (0.2, 0.3, 1.2)])
def test_nominal_intervals_cover(zero, a, b):
    """200 populations of 300 problems x 32 samples: pass@1, pass@32 and pass@320, of these problems and of new ones."""
    draws, inside = 200, np.zeros((3, 2), dtype=int)
    for seed in range(draws):
        rng = np.random.default_rng([17, seed])
        p_P = with_zeros(rng.beta(a, b, 300), zero, rng)
        fit = fit_testtime(sampled(p_P, 32, rng), bootstraps=300, seed=seed)
        for i, k in enumerate((1, 32, 320)):
            truths = float((1 - (1 - p_P) ** k).mean()), (1 - zero) * beta_pass_at_k(a, b, k)
            for j, truth in enumerate(truths):
                estimate = fit.predict(k, population=("these", "new")[j])
                inside[i, j] += estimate.low <= truth <= estimate.high
    assert inside.min() >= 0.84 * draws  # 90% less two standard errors and a half
    assert inside[:2].max() <= 0.96 * draws
    assert inside[2].max() <= 0.98 * draws  # far out the families spread wider than this one population needs


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", POPULATIONS)
def test_other_shapes_cover(name):
    """Ten times the samples, 40 populations. Measured: 88 to 98% for most shapes; 75 to 80% for the log-uniform, which ends at 1e-5, and
    for the zero mass with a logit-normal, where the counts are explained as well without a zero mass."""
    hard = name in ("log-uniform", "zero mass and logit-normal")
    assert hits(name, 100, 1000, range(40), 300) >= (25 if hard else 31)
