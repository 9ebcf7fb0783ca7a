"""The allocation against brute force on a law that is known, closed forms, and the sentences it says when it cannot tell."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from tests.laws.joint_world import TrueLoss, World

from trilaw.core.errors import LawError, RequestError
from trilaw.laws.allocate import MARGIN, allocate
from trilaw.laws.allocate_search import Search, ladder, search
from trilaw.laws.costs import OPTIONS, PRETRAINING, RL, SAMPLES, Costs, Scene, Split, StagePrice
from trilaw.laws.experiments import suggest
from trilaw.laws.joint import fit_joint
from trilaw.laws.points import Measurement, ProblemCounts

# A midpoint low enough that pre-training, RL and samples all matter around 1e15 FLOPs, and answers that are dear.
WORLD = World(midpoint=2e14, asymptote=3.0, steepness=1.0, intercept=-2.5)
COSTS = Costs(prompt_tokens=20.0, completion_tokens=60.0)
LEVELS = (1e13, 6e13, 4e14, 2.5e15)
BASES = ((1e5, 1e6), (1e5, 4e6), (2.5e5, 4e6), (6e5, 2e6), (6e5, 8e6))


def measure(world=WORLD, seed=0, **options):
    options = {"bases": BASES, "rl": ((6e5, 8e6, LEVELS),), "questions": 96} | options
    return world.measure(np.random.default_rng(seed), **options)


@pytest.fixture(scope="module")
def fit():
    return fit_joint(measure(votes=True, between=0.05), loss_law=WORLD.law, bootstraps=60)


@pytest.fixture(scope="module")
def true_fit(fit):
    """The law with the parameters of the world itself, without draws."""
    return truth(fit)


def truth(fit, world=WORLD):
    inner, at = fit.inner, fit.reference_loss - world.reference
    values = {
        "intercept": world.intercept + world.slope * at,
        "slope": world.slope,
        "asymptote": world.asymptote,
        "log midpoint": math.log(world.midpoint) - inner.log_rl_reference,
        "log steepness": math.log(world.steepness),
        "log concentration": math.log(world.nu),
        "logit unsolvable": math.log(world.z / (1 - world.z)),
    }
    theta = np.array([[values[name] for name in fit.names]])
    row = replace(
        inner.take(np.array([0])),
        theta_SP=theta,
        diversity_S=np.array([world.diversity]),
        silent_S=np.array([world.silent]),
    )
    return replace(fit, inner=replace(row, tables={}, chances={}, curves={}), draws_SP=theta[:0])


def brute(world, budget, queries, ks):
    """The best accuracy of a dense grid over sizes and shares, with the world's own formula."""
    best = -1.0
    n, share = np.meshgrid(np.geomspace(1e4, 1e8, 250), np.concatenate([[0.0], np.geomspace(1e-3, 0.99, 120)]))
    e, a, b, alpha, beta = world.law.row
    for k in ks:
        left = budget - queries * (20 + 60 * k) * 2 * n
        c, d = share * left, (1 - share) * left / (6 * n)
        with np.errstate(invalid="ignore", divide="ignore"):
            x = e + a / n**alpha + b / d**beta - world.reference
            gain = np.where(c > 0, world.asymptote / (1 + (world.midpoint / c) ** world.steepness), 0.0)
            mu = 1 / (1 + np.exp(-(world.intercept + world.slope * x + gain)))
        miss = np.ones(n.shape)
        for i in range(k):
            miss = miss * ((1 - mu) * world.nu + i) / (world.nu + i)
        best = max(best, float(np.where(left > 0, (1 - world.z) * (1 - miss), -1.0).max()))
    return best


@pytest.mark.parametrize(("budget", "queries"), [(3e14, 1e5), (2e15, 1e6), (2e16, 1e4)])
def test_the_best_split_is_that_of_brute_force(true_fit, budget, queries):
    got = allocate(true_fit, budget=budget, unit="flops", queries=queries, costs=COSTS)
    k = int(got.best.samples)
    assert got.accuracy.value == pytest.approx(
        WORLD.accuracy(got.best.parameters, got.best.tokens, got.best.rl_flops, k), abs=1e-9
    )
    ks = sorted({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, max(1, k - 1), k, k + 1})
    expected = brute(WORLD, budget, queries, ks)
    assert got.accuracy.value >= expected - 1e-6
    assert got.accuracy.value == pytest.approx(expected, abs=2e-3)  # the dense grid is coarser than the search
    assert math.fsum(got.spent.values()) == pytest.approx(budget, rel=1e-6)
    b = got.best
    assert got.spent["pretraining"] == pytest.approx(6 * b.parameters * b.tokens)
    assert got.spent["samples"] == pytest.approx(queries * (20 + 60 * k) * 2 * b.parameters)
    # The draws' coarser search agrees with the fine one.
    s = Search(Scene(None, queries, COSTS, "flops"), got.start, (1e5, 6e5), [o.name for o in OPTIONS], "pass", 1024)
    assert search(true_fit.inner, s, budget, fine=False).values_S[0] == pytest.approx(got.accuracy.value, abs=1e-3)


def test_a_vote_is_allocated_by_brute_force_too(true_fit):
    got = allocate(true_fit, budget=2e15, unit="flops", queries=1e6, costs=COSTS, how="vote")
    best = 0.0
    for k in (1, 2, 3, 5, 8, 13, 21, 34):
        for n in np.geomspace(3e4, 3e6, 40):
            left = 2e15 - 1e6 * (20 + 60 * k) * 2 * n
            shares = np.linspace(0.0, 0.98, 40)
            if left > 0:
                best = max(
                    best, true_fit.draw_accuracy(n, (1 - shares) * left / (6 * n), shares * left, k, "vote").max()
                )
    assert got.accuracy.value >= best - 1e-4
    assert got.accuracy.value == pytest.approx(best, abs=5e-3)
    assert any("scatter alike" in note for note in got.notes)


def test_sardanas_model_comes_out():
    """arXiv 2401.00448, section on lifetime cost, constants alpha .336 and beta .283: the quality of a 13B Chinchilla model for 2e12 tokens of
    demand is cheapest with about 7B parameters (6.97B on 1.25T tokens by our own root finding). One sample, no RL: what is left is that problem."""
    law = TrueLoss(row=(1.69, 406.4, 410.7, 0.336, 0.283), draws=0)
    bases = ((1e9, 2e10), (3e9, 6e10), (1.3e10, 2.6e11))
    world = World(law=law, reference=2.2, intercept=0.0)
    fit = fit_joint(measure(world, bases=bases, rl=(), samples=1, questions=400), loss_law=law, bootstraps=0)
    queries, costs = 2e12 / 1000, Costs(400.0, 600.0)
    budget = 6 * 6.97e9 * 1.25e12 + 2 * 6.97e9 * 2e12
    got = allocate(fit, budget=budget, unit="flops", queries=queries, costs=costs)
    assert got.best.parameters == pytest.approx(6.97e9, rel=0.03)
    assert got.best.tokens == pytest.approx(1.25e12, rel=0.03)
    # And by scipy, at this budget exactly.
    least = optimize.minimize_scalar(
        lambda log_n: law.loss(math.exp(log_n), (budget - 2 * math.exp(log_n) * 2e12) / (6 * math.exp(log_n))),
        bounds=(math.log(1e9), math.log(2.5e10)),
        method="bounded",
    )
    assert got.best.parameters == pytest.approx(math.exp(least.x), rel=2e-3)
    assert not got.decided
    assert "RL part is not fitted" in got.verdict


def test_more_budget_never_hurts(true_fit):
    for how, owned, budgets in (
        ("pass", None, (1.2e14, 1e15, 2e16)),
        ("pass", measure(questions=8)[-1], (1.2e14, 2e16)),
        ("vote", None, (1.2e14, 5e15)),
    ):
        found = [
            allocate(true_fit, budget=b, unit="flops", queries=1e5, costs=COSTS, how=how, base=owned).accuracy.value
            for b in budgets
        ]
        assert found == sorted(found)


def test_more_questions_mean_smaller_models_and_fewer_samples(true_fit):
    found = [allocate(true_fit, budget=2e15, unit="flops", queries=q, costs=COSTS).best for q in (1e3, 1e5, 1e7, 1e8)]
    sizes, samples = [b.parameters for b in found], [b.samples for b in found]
    assert sizes == sorted(sizes, reverse=True)
    assert samples == sorted(samples, reverse=True)
    assert sizes[-1] < sizes[0] / 10
    assert samples[-1] < samples[0] / 10


def test_dollars_at_one_price_are_flops(fit):
    flops = allocate(fit, budget=2e15, unit="flops", queries=1e5, costs=COSTS)
    price = StagePrice.by_the_hour(3.6, 1e12, 0.4)  # 1e-15 dollars a FLOP at the peak
    assert price.usd_per_flop == pytest.approx(2.5e-15)
    costs = Costs(20.0, 60.0, price, price, price)
    dollars = allocate(fit, budget=2e15 * price.usd_per_flop, unit="usd", queries=1e5, costs=costs)
    for name in ("parameters", "tokens", "rl_flops", "samples"):
        assert getattr(dollars.best, name) == pytest.approx(getattr(flops.best, name), rel=1e-6)
    assert dollars.accuracy == flops.accuracy
    assert dollars.spent["rl"] == pytest.approx(flops.spent["rl"] * 2.5e-15)
    assert [r.behind for r in dollars.rivals] == [r.behind for r in flops.rivals]
    # RL that runs at a fortieth of the utilisation is bought less.
    dear = replace(costs, rl=StagePrice.by_the_hour(3.6, 1e12, 0.01))
    assert allocate(fit, budget=5.0, unit="usd", queries=1e5, costs=dear).best.rl_flops < flops.best.rl_flops


def test_a_report_in_full(fit):
    got = allocate(fit, budget=2e15, unit="flops", queries=1e5, costs=COSTS, accuracy_target=0.8)
    again = allocate(fit, budget=2e15, unit="flops", queries=1e5, costs=COSTS)
    assert json.dumps(replace(got, target=None).to_json(), allow_nan=False) == json.dumps(again.to_json())
    assert json.loads(json.dumps(got.to_json(), allow_nan=False))["target"]["accuracy"] == 0.8
    assert [r.name for r in got.rivals] == ["status quo", "all into pretraining", "all into rl", "all into samples"]
    for rival in got.rivals:
        assert rival.behind.value >= -1e-6
        assert rival.behind.value == pytest.approx(got.accuracy.value - rival.accuracy.value, abs=1e-9)
        assert rival.cost <= 2e15 * (1 + 1e-9)
    for name in ("parameters", "tokens", "rl_flops", "samples", "share of rl"):
        assert got.known[name].low <= got.known[name].value <= got.known[name].high
    assert got.known["rl_flops"].low < got.known["rl_flops"].high
    assert sum(got.known[f"share of {o.name}"].value for o in OPTIONS) == pytest.approx(1.0)
    assert 0 <= got.regret.low <= got.regret.high < 0.1
    assert math.fsum(o.first for o in got.options) == pytest.approx(1.0)
    assert all(o.gain.low <= o.gain.value <= o.gain.high for o in got.options)
    # The target: spending what it says reaches it, a tenth less does not.
    needed = got.target.budget
    assert needed.low <= needed.value <= needed.high
    main = replace(fit, inner=fit.inner.take(np.array([0])))
    for factor, over in ((1.1, True), (0.9, False)):
        value = allocate(main, budget=needed.value * factor, unit="flops", queries=1e5, costs=COSTS).accuracy.value
        assert (value > 0.8) == over
    far = allocate(main, budget=2e15, unit="flops", queries=1e5, costs=COSTS, accuracy_target=0.999).target
    assert far.budget is None or far.budget.value > 2e15
    assert far.reached < 0.2


def test_marginal_gains_by_hand(true_fit):
    base = next(m for m in measure() if m.rl_flops == LEVELS[1])
    got = allocate(true_fit, budget=1e15, unit="flops", queries=1e5, costs=COSTS, base=base)
    assert (got.start.parameters, got.start.rl_flops, got.start.samples) == (6e5, LEVELS[1], 1.0)
    here = WORLD.accuracy(6e5, 8e6, LEVELS[1], 1)
    assert got.start_accuracy.value == pytest.approx(here)
    gains = {o.name: o.gain.value for o in got.options}
    assert gains["rl"] == pytest.approx(WORLD.accuracy(6e5, 8e6, LEVELS[1] + 1e14, 1) - here)
    more = 1e14 / (1e5 * 60 * 2 * 6e5)
    k = 1 + int(more)
    mixed = (1 - more % 1) * WORLD.accuracy(6e5, 8e6, LEVELS[1], k) + (more % 1) * WORLD.accuracy(
        6e5, 8e6, LEVELS[1], k + 1
    )
    assert gains["samples"] == pytest.approx(mixed - here)
    longer = 8e6 + (1e14 - LEVELS[1]) / (6 * 6e5)  # the RL is repeated on the base that was trained longer
    assert gains["pretraining"] >= WORLD.accuracy(6e5, longer, LEVELS[1], 1) - here - 1e-9


def test_what_is_owned_costs_nothing_and_may_be_kept(true_fit):
    base = measure()[-1]
    owned = Split(6e5, 8e6, LEVELS[-1], 1.0)
    scene = Scene(owned, 1e5, COSTS, "flops")
    assert scene.cost(owned) == pytest.approx(1e5 * 80 * 2 * 6e5)
    assert scene.spent(Split(6e5, 9e6, 1e12, 1.0)) == pytest.approx(
        {"pretraining": 6 * 6e5 * 1e6, "rl": 1e12, "samples": 9.6e12}
    )
    assert scene.spent(Split(7e5, 8e6, 0.0, 1.0))["pretraining"] == pytest.approx(6 * 7e5 * 8e6)
    assert PRETRAINING.flops(owned, Scene(None, 1e5, COSTS, "flops")) == pytest.approx(6 * 6e5 * 8e6)
    assert RL.flops(owned, scene) == 0.0
    little = allocate(true_fit, budget=4e13, unit="flops", queries=1e5, costs=COSTS, base=base)
    assert (little.best.parameters, little.best.tokens) == (6e5, 8e6)
    assert "keep the base" in little.verdict
    without = allocate(true_fit, budget=4e13, unit="flops", queries=1e5, costs=COSTS)
    assert little.accuracy.value > without.accuracy.value


# --- verdicts ---------------------------------------------------------------------------------------------------------------------


def test_a_clear_case_is_advised(fit):
    got = allocate(fit, budget=2e15, unit="flops", queries=1e4, costs=COSTS)
    assert got.decided
    assert got.verdict.startswith("Best split: base of")
    assert got.experiments == ()
    assert all(rival.behind.low >= -MARGIN for rival in got.rivals)


def test_a_close_case_names_experiments_cheapest_first():
    # Few questions, one sample drawn twice, and a budget at which RL alone or with samples is the question.
    made = measure(seed=5, questions=24, samples=2, between=0.5)
    fit = fit_joint(made, loss_law=WORLD.law, bootstraps=60)
    found = [
        allocate(fit, budget=b, unit="flops", queries=q, costs=COSTS, base=made[-1])
        for b, q in ((1e14, 1e5), (4e14, 1e6), (2e15, 1e6))
    ]
    unsure = [got for got in found if not got.decided]
    assert unsure
    for got in unsure:
        assert got.verdict.startswith("Cannot tell")
        assert "cheapest experiment first" in got.verdict
        costs = [e.flops for e in got.experiments]
        assert costs
        assert costs == sorted(costs)
        assert got.experiments[0].sentence in got.verdict


def test_missing_parts_are_said_and_mended():
    made = measure()
    no_rl = fit_joint([m for m in made if m.rl_flops == 0], loss_law=WORLD.law, bootstraps=10)
    got = allocate(no_rl, budget=1e15, unit="flops", queries=1e5, costs=COSTS)
    assert not got.decided
    assert "The RL part is not fitted" in got.verdict
    assert got.best.rl_flops == 0
    assert [o.known for o in got.options] == [True, False, True]
    assert got.options[1].gain is None
    (run,) = got.experiments
    assert run.part == "rl"
    assert run.recipe_set == {
        "kind": "grpo",
        "parameters": 6e5,
        "tokens": 8e6,
        "rl_flops": 6 * 6e5 * 8e6,
        "checkpoints": 3,
    }
    assert run.flops == pytest.approx(6 * 6e5 * 8e6 + 3 * 96 * (20 + 16 * 60) * 2 * 6e5)

    one = fit_joint([m for m in made if m.parameters == 6e5 and m.tokens == 8e6], bootstraps=10)
    got = allocate(one, budget=1e15, unit="flops", queries=1e5, costs=COSTS)
    assert "pre-training part is not fitted: 1 base" in got.verdict
    assert (got.best.parameters, got.best.tokens) == (6e5, 8e6)
    assert got.best.rl_flops > 0
    assert [e.recipe_set["parameters"] for e in got.experiments] == [1.5e5, 3e5]

    lawless = fit_joint(made, bootstraps=10)
    got = allocate(lawless, budget=1e15, unit="flops", queries=1e5, costs=COSTS)
    assert "no law says which loss a new base would have" in got.verdict

    single = fit_joint(measure(samples=1, questions=256), loss_law=WORLD.law, bootstraps=10)
    got = allocate(single, budget=1e15, unit="flops", queries=1e5, costs=COSTS)
    assert got.best.samples == 1
    assert "test-time part is not fitted" in got.verdict
    assert got.experiments[0].recipe_set == {"kind": "eval", "samples": 16, "questions": 256, "votes": False}


def test_every_weak_part_has_an_experiment(fit):
    found = {e.part: e for e in suggest(fit, ["pretraining", "rl", "samples", "questions", "vote"])}
    assert set(found) == {"pretraining", "rl", "samples", "questions"}  # votes were recorded
    assert found["samples"].recipe_set["samples"] == 32
    assert found["questions"].recipe_set["questions"] == 192
    runs = suggest(fit, ["rl"])
    assert [r.recipe_set.get("steps_factor") for r in runs] == [None, 2.0]
    assert (
        runs[0].recipe_set["parameters"] == 1e5
    )  # the same RL on the smallest base: cheaper, and it frees an assumption
    lossless = fit_joint([replace(m, loss=None) for m in measure()], bootstraps=0)
    first = suggest(lossless, ["pretraining"])[0]
    assert first.recipe_set["kind"] == "loss"
    assert len(first.recipe_set["models"]) == 5
    voteless = fit_joint(measure(), loss_law=WORLD.law, bootstraps=0)
    assert suggest(voteless, ["vote"])[0].recipe_set["votes"] is True
    equal = fit_joint([replace(m, loss=1.0) for m in measure()], bootstraps=0)
    assert suggest(equal, ["pretraining"])[0].recipe_set["parameters"] == 5e4
    for experiment in (*runs, first):
        assert json.loads(json.dumps(experiment.to_json()))["flops"] > 0


def test_far_budgets_are_cautioned(fit):
    got = allocate(fit, budget=1e19, unit="flops", queries=1e3, costs=COSTS)
    assert "outside the data" in got.verdict
    assert any("beyond the data" in note for note in got.notes)
    assert any("repeat the advice" in note for note in got.notes)


def test_broken_requests_are_refused(fit):
    base = measure()[0]
    good = {"budget": 1e15, "unit": "flops", "queries": 1e5, "costs": COSTS}
    for change, error, words in (
        ({"budget": math.nan}, RequestError, "The budget is nan"),
        ({"budget": 0.0}, RequestError, "The budget is 0"),
        ({"budget": 1e308}, RequestError, "at most 1e\\+60"),
        ({"queries": 1e300}, RequestError, "at most 1e\\+18"),
        ({"queries": math.inf}, RequestError, "lifetime is inf"),
        ({"queries": 0.0}, RequestError, "lifetime is 0"),
        ({"unit": "eur"}, RequestError, "unit is 'eur'"),
        ({"unit": "usd"}, RequestError, "needs the price and the utilisation of"),
        ({"how": "best"}, RequestError, "how is 'best'"),
        ({"accuracy_target": 1.5}, RequestError, "target accuracy is 1.5"),
        ({"budget": 1e11}, LawError, "below the smallest run: pre-training 100.0k parameters on 1.0M tokens"),
        ({"budget": 1e11, "base": base}, LawError, "does not pay for one sample a question"),
        ({"base": replace(base, task="other")}, LawError, "task 'other'"),
    ):
        with pytest.raises(error, match=words):
            allocate(fit, **(good | change))
    no_rl = fit_joint([m for m in measure() if m.rl_flops == 0], loss_law=WORLD.law, bootstraps=0)
    with pytest.raises(LawError, match="has had RL, of which the law knows nothing"):
        allocate(no_rl, **good, base=measure()[-1])
    with pytest.raises(LawError, match="were not recorded"):
        allocate(no_rl, **good, how="vote")
    for arguments, words in (
        ((0.0, 0.4), "price of a FLOP"),
        ((1e-15, 0.0), "utilisation is 0"),
        ((1e-15, 1.5), "utilisation is 1.5"),
        ((1e-15, 1e-300), "utilisation is 1e-300"),
        ((1e-300, 0.5), "price of a FLOP is 1e-300"),
        ((1e300, 0.5), "price of a FLOP is 1e\\+300"),
    ):
        with pytest.raises(RequestError, match=words):
            StagePrice(*arguments)
    with pytest.raises(RequestError, match="peak is 0"):
        StagePrice.by_the_hour(2.0, 0.0, 0.4)
    for arguments, words in (((-1.0, 60.0), "prompt_tokens is -1"), ((10.0, 0.0), "completion_tokens is 0")):
        with pytest.raises(RequestError, match=words):
            Costs(*arguments)


def test_the_largest_request_overflows_nothing(fit):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = allocate(fit, budget=1e60, unit="flops", queries=1e18, costs=COSTS)
        assert got.accuracy.value <= 1.0
    json.dumps(got.to_json(), allow_nan=False)


def test_costs_of_a_measurement():
    rows = tuple(ProblemCounts(f"q{i}", 2, i % 2) for i in range(8))
    model = Measurement("run", "m", "t", 1e6, 1e7, 6e13, 0.0, 2.0, 12.0, 34.0, rows)
    price = StagePrice(1e-15, 0.5)
    assert Costs.of(model, price) == Costs(12.0, 34.0, price, price, price)
    assert (
        float(SAMPLES.flops(Split(1e6, 1e7, 0.0, 3.0), Scene(None, 10.0, Costs.of(model), "flops")))
        == 10 * (12 + 102) * 2e6
    )


def test_the_ladder_of_samples():
    assert ladder(1, 1.1) == [1]
    assert ladder(6, 1.2) == [1, 2, 3, 4, 5, 6]
    rungs = ladder(1000, 1.2)
    assert rungs[-1] == 1000
    assert all(b - a == 1 or b <= 1.25 * a for a, b in itertools.pairwise(rungs))
