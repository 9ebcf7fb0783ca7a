"""Where the next budget should go: a larger or longer-trained base, more RL, or more samples a question; or what to run to find out.

    maximise  accuracy(N, D, C_rl, k)   subject to   6 N D + C_rl + Q (t_in + k t_out) 2 N <= budget       (costs.py)

with the accuracy of the joint law, each term at its own price where the budget is in dollars. The best split is that of the main fit. It is
judged on the bootstrap draws, paired: draw by draw, against the status quo and against putting everything into one option. The distribution
of the best split over draws says how well it is known, the regret how much that matters.

Verdict: the best split is advised unless a part of the law has no runs behind it, or the 90% interval of its advantage over a rival covers 0 and
reaches more than MARGIN below it (an interval around 0 within MARGIN means that either will do: that is an answer), or the regret may exceed
REGRET: then some other mixture is likely enough to be much better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trilaw.core.errors import LawError, RequestError
from trilaw.core.ledger import count
from trilaw.core.types import Estimate
from trilaw.laws.allocate_search import Found, Search, search
from trilaw.laws.allocation import MARGIN, REGRET, Allocation, OptionReport, Rival, Target, money, shares, verdict
from trilaw.laws.costs import OPTIONS, PRETRAINING, RL, SAMPLES, Costs, Option, Scene, Split, Unit
from trilaw.laws.experiments import suggest
from trilaw.laws.fitting import Floats, interval
from trilaw.laws.joint import METHOD, JointFit, check_how
from trilaw.laws.joint_draws import How
from trilaw.laws.joint_vote import MOST_VOTES
from trilaw.laws.points import Measurement

STEP = 0.1  # share of the budget in a marginal gain
MOST_BUDGET, MOST_QUERIES = 1e60, 1e18  # beyond, numbers overflow that stand for nothing
FAR_BUDGET = 100.0  # times the largest run from which a budget carries a caution
MOST_SAMPLES = 64  # times the samples that were measured, up to which more are considered
USUAL_RATIO = 1.25  # of measured pre-training FLOPs to 6 N D, within which nothing is said
STATUS_QUO = "status quo"


def allocate(
    fit: JointFit,
    *,
    budget: float,
    unit: Unit,
    queries: float,
    costs: Costs,
    how: How = "pass",
    accuracy_target: float | None = None,
    base: Measurement | None = None,
) -> Allocation:
    """The best split of `budget` (FLOPs or dollars) that has to serve `queries` questions in all.

    `base` is a model that is owned already, with its RL: it costs nothing more, may be trained longer, or be replaced. Without one everything is
    bought, and the start is the largest measured base that the budget affords. `how`: "pass" (a verifier picks) or "vote".
    Raises RequestError for a request out of range, LawError where the budget does not pay for the smallest run, or the law does not know the base.
    """
    check_request(budget, unit, queries, how, accuracy_target)
    fit.check(how)
    scene, start = _start(fit, budget, unit, queries, costs, base)
    owned = scene.owned is not None
    missing = {option.name: reason for option in OPTIONS if (reason := _missing(fit, option))}
    free = [option.name for option in OPTIONS if option.name not in missing]
    most = {"pass": MOST_SAMPLES * int(fit.inner.most["samples"]), "vote": MOST_VOTES}[how]
    sizes = (fit.inner.most["fewest parameters"], fit.inner.most["parameters"])
    main = fit.inner.take(np.array([0]))

    def find(options: Sequence[str], money: float) -> Found:
        return search(main, Search(scene, start, sizes, options, how, most), money, fine=True)

    def judge(split: Split) -> Floats:
        n, d, c, k = (float(v) for v in (split.parameters, split.tokens, split.rl_flops, split.samples))
        return fit.draw_accuracy(n, d, c, k, how)[:, 0]

    best = find(free, budget).split()
    best_S, start_S = judge(best), judge(start)
    drawn = search(fit.inner, Search(scene, start, sizes, free, how, most), budget, fine=False)

    def estimate(values_S: Floats) -> Estimate:
        return interval(float(values_S[0]), values_S[1:], fit.questions, METHOD)

    rivals = [Rival(STATUS_QUO, start, scene.cost(start), estimate(start_S), estimate(best_S - start_S))]
    for option in OPTIONS:
        if option.name in free:
            split = find([option.name], budget).split()
            if split != start:
                all_S = judge(split)
                rivals.append(
                    Rival(
                        f"all into {option.name}", split, scene.cost(split), estimate(all_S), estimate(best_S - all_S)
                    )
                )
    options = _options(fit, scene, start, start_S, budget, how, missing, find, judge)
    spent = scene.spent(best)
    contested = [rival for rival in rivals if rival.behind.low < -MARGIN and best != rival.split]
    regret_S = np.maximum(drawn.values_S - best_S, 0.0)
    regret = interval(0.0, regret_S[1:], fit.questions, METHOD)
    decided = not missing and not contested and regret.high <= REGRET
    weak = set(missing)
    if contested and not missing:
        # A rival that spends on one option, and the option that the best split leans on most.
        weak |= {rival.name.removeprefix("all into ") for rival in contested} & set(free)
        weak |= {max(spent, key=lambda name: spent[name]), "questions"}
    elif not decided and not missing:
        weak |= {*free, "questions"}
    experiments = suggest(fit, weak)
    accuracy = estimate(best_S)
    target = None
    if accuracy_target is not None:
        target = _target(fit, Search(scene, start, sizes, free, how, most), budget, accuracy_target, drawn)
    return Allocation(
        task=fit.task,
        budget=budget,
        unit=unit,
        queries=queries,
        how=how,
        start=start,
        start_accuracy=rivals[0].accuracy,
        best=best,
        accuracy=accuracy,
        spent=spent,
        known=_known(fit, scene, best, spent, drawn),
        regret=regret,
        rivals=tuple(rivals),
        options=options,
        decided=decided,
        verdict=verdict(best, start, accuracy, rivals, spent, unit, missing, contested, regret, experiments, owned)
        + (" The split lies outside the data: see the notes." if _outside(fit, best) else ""),
        experiments=experiments,
        target=target,
        notes=_notes(fit, scene, best, most, how),
    )


def check_request(budget: float, unit: str, queries: float, how: str, target: float | None) -> None:
    """Raises RequestError for numbers out of range; it needs no fit, so that a slip does not cost one."""
    if unit not in ("flops", "usd"):
        raise RequestError(f"unit is '{unit}'; it is 'flops' or 'usd'.")
    if not 0 < budget <= MOST_BUDGET:
        raise RequestError(f"The budget is {budget:g}; it must be a positive number of at most {MOST_BUDGET:g}.")
    if not 1 <= queries <= MOST_QUERIES:
        raise RequestError(
            f"The number of questions over the model's lifetime is {queries:g}; it must be at least 1 and at most {MOST_QUERIES:g}."
        )
    check_how(how)
    if target is not None and not 0.0 < target < 1.0:
        raise RequestError(f"The target accuracy is {target:g}; it is a share between 0 and 1.")


def _start(
    fit: JointFit, budget: float, unit: Unit, queries: float, costs: Costs, base: Measurement | None
) -> tuple[Scene, Split]:
    if base is not None:
        if base.task != fit.task:
            raise LawError(f"The base was measured on the task '{base.task}', the law was fitted to '{fit.task}'.")
        if base.rl_flops > 0 and not fit.parts["rl"].fitted:
            raise LawError(
                f"The base '{base.model}' has had RL, of which the law knows nothing. {fit.parts['rl'].sentence}"
            )
        start = Split(float(base.parameters), float(base.tokens), float(base.rl_flops), 1.0)
        scene = Scene(start, queries, costs, unit)
        fit.draw_accuracy(base.parameters, base.tokens, base.rl_flops, 1)  # raises where the law does not know it
        if scene.cost(start) > budget:
            raise LawError(
                f"The budget of {money(budget, unit)} does not pay for one sample a question: {count(queries)} questions to '{base.model}' cost "
                f"{money(scene.cost(start), unit)}."
            )
        return scene, start
    scene = Scene(None, queries, costs, unit)
    splits = sorted((Split(n, d, 0.0, 1.0) for n, d in fit.inner.bases), key=scene.cost)
    if scene.cost(splits[0]) > budget:
        raise LawError(
            f"The budget of {money(budget, unit)} is below the smallest run: pre-training {count(float(splits[0].parameters))} parameters on "
            f"{count(float(splits[0].tokens))} tokens and one sample for each of {count(queries)} questions cost {money(scene.cost(splits[0]), unit)}."
        )
    return scene, [split for split in splits if scene.cost(split) <= budget][-1]


def _missing(fit: JointFit, option: Option) -> str:
    """Why an option cannot be judged, empty where it can."""
    part = fit.parts[option.name]
    if not part.fitted:
        return part.sentence
    if option is PRETRAINING and fit.loss_law is None:
        return "The pre-training option cannot be judged: no law says which loss a new base would have (law 1 is not fitted)."
    return ""


def _options(
    fit: JointFit,
    scene: Scene,
    start: Split,
    start_S: Floats,
    budget: float,
    how: How,
    missing: Mapping[str, str],
    find: Callable[[Sequence[str], float], Found],
    judge: Callable[[Split], Floats],
) -> tuple[OptionReport, ...]:
    money = STEP * budget
    gains: dict[str, Floats] = {}
    for option in OPTIONS:
        if option.name in missing:
            continue
        if option is RL:
            more = float(start.rl_flops) + money / scene.price(RL)
            split = Split(start.parameters, start.tokens, more, start.samples)
        elif option is SAMPLES:
            each = scene.queries * scene.costs.completion_tokens * 2.0 * float(start.parameters) * scene.price(SAMPLES)
            more = float(start.samples) + money / each
            split = Split(
                start.parameters, start.tokens, start.rl_flops, min(more, MOST_VOTES) if how == "vote" else more
            )
        else:
            split = find([option.name], scene.cost(start) + money).split()
        gains[option.name] = judge(split) - start_S
    reports = []
    stacked = np.array(list(gains.values())) if gains else np.zeros((0, 1))
    rows = slice(1, None) if len(start_S) > 1 else slice(0, 1)
    firsts = stacked[:, rows].argmax(axis=0) if gains else np.zeros(0)
    for option in OPTIONS:
        if option.name in missing:
            reports.append(OptionReport(option.name, option.about, False, missing[option.name], None, None))
            continue
        gain = gains[option.name]
        reports.append(
            OptionReport(
                option.name,
                option.about,
                True,
                fit.parts[option.name].sentence,
                interval(float(gain[0]), gain[1:], fit.questions, METHOD),
                float((firsts == list(gains).index(option.name)).mean()),
            )
        )
    return tuple(reports)


def _known(fit: JointFit, scene: Scene, best: Split, spent: Mapping[str, float], drawn: Found) -> dict[str, Estimate]:
    found = {
        name: interval(float(getattr(best, name)), values[1:], fit.questions, METHOD)
        for name, values in (
            ("parameters", drawn.parameters_S),
            ("tokens", drawn.tokens_S),
            ("rl_flops", drawn.rl_S),
            ("samples", drawn.samples_S),
        )
    }
    shares_SO = np.array(
        [shares(scene.spent(drawn.split(row))) for row in range(1, len(drawn.values_S))], dtype=np.float64
    ).reshape(-1, len(OPTIONS))
    for i, (option, share) in enumerate(zip(OPTIONS, shares(spent))):
        found[f"share of {option.name}"] = interval(share, shares_SO[:, i], fit.questions, METHOD)
    return found


def _target(fit: JointFit, s: Search, budget: float, accuracy: float, drawn: Found) -> Target:
    """The least budget of every draw, by interpolation between best splits of nine budgets a factor of sqrt(10) apart."""
    budgets = budget * 10.0 ** np.linspace(-2.0, 2.0, 9)
    values_BS = np.array([search(fit.inner, s, float(b), fine=False).values_S for b in budgets])
    values_BS = np.maximum.accumulate(values_BS, axis=0)
    needed = np.full(values_BS.shape[1], np.nan)
    for row, column in enumerate(values_BS.T):
        over = np.flatnonzero(column >= accuracy)
        if len(over) and over[0] > 0 and np.isfinite(column[over[0] - 1]):
            needed[row] = math.exp(
                np.interp(accuracy, column[over[0] - 1 : over[0] + 1], np.log(budgets[over[0] - 1 : over[0] + 1]))
            )
        elif len(over):
            needed[row] = budgets[over[0]]
    rows = drawn.values_S[1:] if len(drawn.values_S) > 1 else drawn.values_S
    least = None
    if np.isfinite(needed[0]):
        least = interval(float(needed[0]), needed[1:], fit.questions, METHOD)
    return Target(accuracy, float((rows >= accuracy).mean()), least)


def _outside(fit: JointFit, best: Split) -> str | None:
    n, d, c, k = (float(v) for v in (best.parameters, best.tokens, best.rl_flops, best.samples))
    return fit.caution(n, d, c, k)


def _notes(fit: JointFit, scene: Scene, best: Split, most: int, how: str) -> tuple[str, ...]:
    n, d, c, k = (float(v) for v in (best.parameters, best.tokens, best.rl_flops, best.samples))
    notes = [*fit.notes]
    outside = _outside(fit, best)
    if outside:
        notes.append(f"The best split lies outside the data. {outside}")
    ratios = [m.pretrain_flops / (6.0 * m.parameters * m.tokens) for m in fit.points if m.pretrain_flops > 0]
    typical = float(np.median(ratios)) if ratios else 1.0
    if not 1.0 / USUAL_RATIO <= typical <= USUAL_RATIO:
        notes.append(f"Pre-training is counted as 6 N D; the measured bases took {typical:.2f} times that.")
    largest = max(6.0 * m.parameters * m.tokens + m.rl_flops for m in fit.points)
    if 6.0 * n * d + c > FAR_BUDGET * largest:
        notes.append(
            f"The best split trains with {(6.0 * n * d + c) / largest:.3g}x the compute of the largest run that was measured: repeat the advice after a run "
            "at a tenth of the budget."
        )
    if k >= most:
        notes.append(f"More than {most} samples a question were not considered.")
    if how == "vote":
        notes.append("The vote law assumes that wrong answers scatter alike on easy and on hard questions.")
    return tuple(notes)
