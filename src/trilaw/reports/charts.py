"""The charts of a run. Each is made only when the run holds its numbers; axes carry units, lines carry their names at their ends."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError
from trilaw.core.types import Estimate
from trilaw.reports import style, words
from trilaw.reports.read import Run, StageRecord
from trilaw.reports.style import Look
from trilaw.reports.verdicts import evaluated, headline, splits, verdicts

Looks = Mapping[str, Look]
Draw = Callable[[Any], None]  # draws onto matplotlib axes

_MAX_POINTS = 600  # more cannot be told apart on a page and only make the file large
_SIZE = (3.9, 2.8)  # inches; small enough that the text stays readable on a telephone


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture of the page: `svg` stands inline, `caption` says how to read it."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A chart before it is drawn."""

    key: str
    title: str
    caption: str
    draw: Draw


def charts(run: Run) -> list[Chart]:
    """All charts that the run has numbers for, drawn."""
    return render(plans(run), "c")


def render(planned: Sequence[Plan], prefix: str) -> list[Chart]:
    """The plans drawn for a page; ids inside a picture begin with `prefix`, so that none meet."""
    made: list[Chart] = []
    for index, plan in enumerate(planned):
        with style.styled() as figure_class:
            figure = figure_class(figsize=_SIZE, layout="constrained")
            figure.patch.set_alpha(0)
            axes = figure.add_subplot()
            axes.patch.set_alpha(0)
            plan.draw(axes)
            label = html.escape(words.clean(f"{plan.title}. {plan.caption}"))
            made.append(Chart(plan.title, plan.caption, style.inline(style.svg(figure), f"{prefix}{index}-", label)))
    return made


def picture(run: Run, path: Path) -> None:
    """One figure of the run for a README, as .svg or .png: reward, length, and accuracy before and after.

    Raises RequestError for another suffix or a run without a chart, RunError if the file cannot be written.
    """
    style.check_picture(path)
    by_key = {plan.key: plan for plan in reversed(plans(run))}  # of several of a kind, the first
    chosen = [by_key[key] for key in ("reward", "length", "accuracy", "loss", "sft") if key in by_key][:3]
    if not chosen:
        raise RequestError(f"{run.folder} holds nothing to draw yet: let `trilaw run` finish a stage first.")
    with style.styled() as figure_class:
        figure = figure_class(figsize=(4.0 * len(chosen), 3.5), layout="constrained", facecolor="white")
        figure.suptitle(words.clean(headline(run), 200), fontsize=10.5, x=0.01, ha="left", fontweight="bold")
        for index, plan in enumerate(chosen):
            axes = figure.add_subplot(1, len(chosen), index + 1)
            plan.draw(axes)
            axes.set_title(words.line(plan.title, 60), fontsize=9.5, loc="left", pad=8)
        style.save(figure, path)


def plans(run: Run) -> list[Plan]:
    """What there is to draw, the result first, then how it came about."""
    looks = _looks(run)
    found: list[Plan] = []
    for task, split in splits(run):
        found += _accuracy(run, looks, task, split)
    grpo = _of_kind(run, "grpo")
    found += _lines(
        run,
        looks,
        grpo,
        "reward",
        "step",
        "reward",
        "Reward in training",
        "mean reward of a step's samples",
        share=True,
        smooth=True,
    )
    found += _lines(
        run, looks, grpo, "length", "step", "length", "Length of a response", "tokens a response", smooth=True
    )
    for stage in grpo:
        found += _traits(run, stage)
    found += _lines(
        run, looks, grpo, "entropy", "step", "entropy", "Entropy of the policy", "nats a token", smooth=True
    )
    found += _lines(
        run,
        looks,
        grpo,
        "zero_variance",
        "step",
        "zero_variance",
        "Problems that teach nothing",
        "share of groups",
        share=True,
        smooth=True,
        note="Groups whose samples are all right or all wrong give no gradient.",
    )
    found += _lines(
        run, looks, _of_kind(run, "sft"), "sft", "tokens", "loss", "Fine-tuning loss", "nats a token", smooth=True
    )
    found += _loss(run, looks)
    return found


def _of_kind(run: Run, kind: str) -> list[StageRecord]:
    return [stage for stage in run.stages if stage.kind == kind]


def _looks(run: Run) -> dict[str, Look]:
    """One look a model for all charts: the baseline slate, the others hues in the order of evaluation, then of the recipe."""
    baselines = {verdict.baseline for verdict in verdicts(run)}
    looks = {name: style.BASELINE for name in evaluated(run) if name in baselines}
    others = dict.fromkeys([*evaluated(run), *(stage.name for stage in run.stages)])
    for name in others:
        if name not in looks:
            looks[name] = style.look(len(looks) - (1 if baselines - {None} else 0))
    return looks


def _thin(xs: list[float], ys: list[float]) -> tuple[list[float], list[float]]:
    stride = -(-len(xs) // _MAX_POINTS)
    if stride <= 1:
        return xs, ys
    keep = sorted({*range(0, len(xs), stride), len(xs) - 1})
    return [xs[i] for i in keep], [ys[i] for i in keep]


def _window(count: int) -> int:
    """Width of the moving average: a tenth of the curve, odd."""
    return max(1, count // 10) | 1


def smoothed(ys: Sequence[float], window: int) -> list[float]:
    """Centred moving average; near the ends the window shrinks on both sides alike, so that it never leans."""
    half = window // 2
    sums = [0.0]
    for y in ys:
        sums.append(sums[-1] + y)
    means: list[float] = []
    for i in range(len(ys)):
        reach = min(half, i, len(ys) - 1 - i)
        means.append((sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1))
    return means


def _lines(
    run: Run,
    looks: Looks,
    stages: Sequence[StageRecord],
    key: str,
    x: str,
    y: str,
    title: str,
    unit: str,
    *,
    share: bool = False,
    smooth: bool = False,
    note: str = "",
) -> list[Plan]:
    """One chart of an event's value, a line a stage; none without at least one stage of two points."""
    data = [(stage.name, *run.series(stage.name, x, y)) for stage in stages]
    data = [(name, xs, ys) for name, xs, ys in data if len(xs) > 1]
    if not data:
        return []
    windows = sorted({_window(len(xs)) for _, xs, _ in data})
    wide = f"{windows[0]}" if len(windows) == 1 else f"{windows[0]} to {windows[-1]}"

    def draw(axes: Any) -> None:
        ends = []
        for name, xs, ys in data:
            color, dash = looks[name].color, looks[name].dash
            bold = smoothed(ys, _window(len(ys))) if smooth else ys
            if bold != ys:
                axes.plot(*_thin(xs, ys), color=color, linewidth=0.8, alpha=0.35)
            axes.plot(*_thin(xs, bold), color=color, linestyle=dash)
            ends.append((bold[-1], words.clean(name, 24), color))
        axes.set_xlabel("step" if x == "step" else "tokens seen")
        axes.set_ylabel(unit)
        axes.margins(x=0)
        top = max(max(ys) for _, _, ys in data)
        bottom = min(min(ys) for _, _, ys in data)
        if share and bottom >= 0 and top <= 1:
            axes.set_ylim(-0.02, 1.02)
            style.percent_axis(axes.yaxis)
        elif bottom >= 0:
            axes.set_ylim(0, top * 1.06 or 1)
        if x == "step":
            _whole_axis(axes.xaxis)
        else:
            _si_axis(axes.xaxis)
        style.end_labels(axes, ends)

    thin = f"Thin: every step. Bold: mean over {wide} steps." if smooth and windows[-1] > 1 else ""
    return [Plan(key, title, " ".join(part for part in (thin, note) if part), draw)]


def _traits(run: Run, stage: StageRecord) -> list[Plan]:
    """How the responses of a grpo stage are made: the `task/...` values of its events."""
    keys = sorted({key for row in run.rows(stage.name) for key in row if key.startswith("task/")})[: len(style.SERIES)]
    data = [(key.removeprefix("task/"), *run.series(stage.name, "step", key)) for key in keys]
    data = [(name, xs, ys) for name, xs, ys in data if len(xs) > 1]
    if not data:
        return []
    shares = all(0 <= y <= 1 for _, _, ys in data for y in ys)

    def draw(axes: Any) -> None:
        ends = []
        for index, (name, xs, ys) in enumerate(data):
            kind = style.look(index + 2)  # not the hues of the first models
            bold = smoothed(ys, _window(len(ys)))
            axes.plot(*_thin(xs, bold), color=kind.color, linestyle=kind.dash)
            ends.append((bold[-1], words.clean(name, 24), kind.color))
        axes.set_xlabel("step")
        _whole_axis(axes.xaxis)
        axes.set_ylabel("share of samples" if shares else "mean over samples")
        axes.margins(x=0)
        if shares:
            axes.set_ylim(-0.02, 1.02)
            style.percent_axis(axes.yaxis)
        style.end_labels(axes, ends)

    caption = f"Traits of the samples as the task counts them, mean over {_window(len(data[0][1]))} steps."
    return [Plan("traits", f"How {stage.name} answers", caption, draw)]


def _loss(run: Run, looks: Looks) -> list[Plan]:
    """Validation loss against training compute, a line a pre-training stage, its end marked."""
    stages = _of_kind(run, "pretrain")
    data = [(stage, *run.series(stage.name, "flops", "valid_loss")) for stage in stages]
    data = [
        (stage, [x for x in xs if x > 0], [y for x, y in zip(xs, ys, strict=True) if x > 0]) for stage, xs, ys in data
    ]
    data = [(stage, xs, ys) for stage, xs, ys in data if xs]
    if not data:
        return []

    def draw(axes: Any) -> None:
        axes.set_xscale("log")
        ends = []
        for stage, xs, ys in data:
            kind = looks[stage.name]
            axes.plot(*_thin(xs, ys), color=kind.color, linestyle=kind.dash, linewidth=1.3)
            if stage.done:
                axes.plot(xs[-1:], ys[-1:], color=kind.color, marker=kind.mark, markersize=6.5, linestyle="none")
            size = f" · {words.si(stage.parameters)}" if stage.parameters else ""
            ends.append((ys[-1], words.clean(stage.name, 24) + size, kind.color))
        style.power_axis(axes.xaxis)
        axes.set_xlabel("training compute (FLOPs)")
        axes.set_ylabel("validation loss (nats a token)")
        style.end_labels(axes, ends)

    caption = "Beside a name: its weights. The mark is the annealed end; along a line the learning rate is still high, so only ends compare sizes fairly."
    return [Plan("loss", "Loss against compute", caption, draw)]


def _accuracy(run: Run, looks: Looks, task: str, split: str) -> list[Plan]:
    """pass@k and maj@k against k on one split, a colour and a mark a model, with intervals."""
    data: dict[tuple[str, str], list[tuple[int, Estimate]]] = {}
    for row in run.shown:
        match = re.fullmatch(r"(pass|maj)@(\d{1,6})", row.metric)
        if match and (row.task, row.split) == (task, split) and int(match[2]) > 0:
            data.setdefault((row.stage, match[1]), []).append((int(match[2]), row.estimate))
    if not data:
        return []
    models = [name for name in evaluated(run) if any(stage == name for stage, _ in data)]
    ks = sorted({k for points in data.values() for k, _ in points})

    def draw(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        ends = []
        for (name, family), points in data.items():
            points.sort(key=lambda point: point[0])
            kind, solid = looks[name], family == "pass"
            # Models stand side by side, not on top of each other, so that every interval is seen.
            shift = 1.035 ** (2 * models.index(name) - len(models) + (1 if solid else 2))
            xs, ys = [k * shift for k, _ in points], [e.value for _, e in points]
            lows, highs = (
                [max(0.0, e.value - e.low) for _, e in points],
                [max(0.0, e.high - e.value) for _, e in points],
            )
            axes.errorbar(xs, ys, yerr=(lows, highs), color=kind.color, marker=kind.mark, markersize=5, linewidth=1.3, elinewidth=1.1, linestyle="-" if solid else (0, (2.5, 1.5)), markerfacecolor=kind.color if solid else "none")  # fmt: skip
            ends.append((ys[-1], f"{words.clean(name, 18)} {family}@k", kind.color))
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_xlim(ks[0] / 1.25, ks[-1] * 1.25)
        axes.set_ylim(-0.02, 1.04)
        style.percent_axis(axes.yaxis)
        axes.set_xlabel("k (samples a problem)")
        axes.set_ylabel("problems solved")
        style.end_labels(axes, ends)

    caption = "pass@k (filled): any of k samples is right. maj@k (hollow): the most frequent answer is right. Bars: intervals over problems."
    return [Plan("accuracy", f"Accuracy on {task} / {split}", caption, draw)]


def _whole_axis(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True))


def _si_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda x, _: words.si(x)))
