"""The three laws as pictures: what was measured, the fitted curve with its 90% band, and how it goes on beyond the data (dashed).

They are drawn from the plain data that `Findings.to_json` gives, which also stands in a run folder, so that a page needs no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError
from trilaw.reports import style, words
from trilaw.reports.style import end_labels, look, percent_axis

Data = Mapping[str, Any]
Draw = Callable[[Any], None]
Drawing = tuple[str, str, str, Draw]  # key, title, caption, how


def drawings(data: Data) -> list[Drawing]:
    """What there is to draw, in the order of the laws."""
    laws = data["laws"]
    found: list[Drawing] = []
    losses = data["measured"]
    if len(losses["losses"]) > 1:
        caption = "Each dot is a model at its annealed end"
        if laws.get("pretrain"):
            caption += (
                "; the line is the law at the best split of a budget, with its 90 % band, dashed beyond the data."
            )
        else:
            caption += ". No law describes them, so no line is drawn."
        if losses["known_entropy"] is not None:
            caption += " Dotted: the entropy of the program that wrote the text; no model goes below it."
        title = "Law 1: what pre-training buys"
        found.append(("law1", title, caption, lambda axes: _pretrain(axes, losses, laws.get("pretrain"))))
    if laws.get("posttrain"):
        sources = "; ".join(dict.fromkeys(fit["source"] for fit in laws["posttrain"].values() if fit.get("source")))
        caption = (
            f"Dots: {sources or 'share solved'}. Line: the fitted sigmoid with its 90 % band, dashed beyond the data."
        )
        found.append(
            (
                "law2",
                "Law 2: what reinforcement learning buys",
                caption,
                lambda axes: _posttrain(axes, laws["posttrain"]),
            )
        )
    if laws.get("testtime"):
        caption = "Share of problems with a right sample among k, dashed beyond the samples drawn; thin: right by plurality vote."
        found.append(("law3", "Law 3: what more samples buy", caption, lambda axes: _testtime(axes, laws["testtime"])))
    return found


def picture(data: Data, path: Path) -> None:
    """All laws in one figure, as .svg or .png. Raises RequestError for another suffix or nothing to draw, RunError if it cannot be written."""
    style.check_picture(path)
    found = drawings(data)
    if not found:
        raise RequestError("There is no fitted law to draw.")
    with style.styled() as figure_class:
        figure = figure_class(figsize=(4.2 * len(found), 3.5), layout="constrained", facecolor="white")
        for index, (_, title, _, draw) in enumerate(found):
            axes = figure.add_subplot(1, len(found), index + 1)
            draw(axes)
            axes.set_title(title, fontsize=9.5, loc="left", pad=8)
        style.save(figure, path)


def _band(axes: Any, curve: Sequence[Data], x: str, last: float, color: str, *, thin: bool = False) -> None:
    """The curve with its band; solid up to `last`, dashed beyond."""
    xs = [dot[x] for dot in curve]
    ys = [dot["value"] for dot in curve]
    inside = [i for i, at in enumerate(xs) if at <= last * 1.001]
    cut = (inside[-1] if inside else 0) + 1
    width = 1.0 if thin else 1.7
    axes.plot(xs[:cut], ys[:cut], color=color, linewidth=width)
    axes.plot(xs[cut - 1 :], ys[cut - 1 :], color=color, linewidth=width, linestyle=(0, (4, 2)))
    axes.fill_between(
        xs, [dot["low"] for dot in curve], [dot["high"] for dot in curve], color=color, alpha=0.14, linewidth=0
    )


def _pretrain(axes: Any, measured: Data, fit: Data | None) -> None:
    dots = measured["losses"]
    sizes = sorted({dot["parameters"] for dot in dots})
    few = len(sizes) <= 8
    if fit:
        _band(axes, fit["curve"], "flops", max(dot["flops"] for dot in dots), style.SLATE)
    for index, size in enumerate(sizes):
        line = sorted((dot["flops"], dot["loss"]) for dot in dots if dot["parameters"] == size)
        shape = look(index)
        axes.plot(
            [x for x, _ in line],
            [y for _, y in line],
            color=shape.color,
            marker=shape.mark,
            markersize=4.5,
            linewidth=0.7,
            label=f"{words.si(size)} weights" if few else None,
        )
    if measured["known_entropy"]:
        axes.axhline(measured["known_entropy"], color=style.MUTED, linestyle=(0, (1, 1.5)), linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_log(axes.yaxis)
    style.power_axis(axes.xaxis)
    axes.set_xlabel("FLOPs of pre-training")
    axes.set_ylabel("loss, nats a token")
    if few:
        axes.legend(frameon=False, fontsize=7.5)


def _plain_log(axis: Any) -> None:
    """Numbers such as 1.2 on a log axis that spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axis.set_minor_formatter(NullFormatter())


def _posttrain(axes: Any, fits: Mapping[str, Data]) -> None:
    ends = []
    for index, (name, fit) in enumerate(fits.items()):
        shape = look(index)
        dots = fit["measured"]
        last = max(dot["compute"] for dot in dots)
        _band(axes, fit["curve"], "compute", last, shape.color)
        shown = [dot for dot in dots if dot["compute"] > 0]
        axes.plot(
            [dot["compute"] for dot in shown],
            [dot["value"] for dot in shown],
            color=shape.color,
            marker=shape.mark,
            markersize=4,
            linestyle="none",
        )
        ends.append((fit["curve"][-1]["value"], words.clean(name, 24), shape.color))
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    percent_axis(axes.yaxis)
    style.power_axis(axes.xaxis)
    axes.set_xlabel("FLOPs of reinforcement learning")
    axes.set_ylabel("share solved")
    end_labels(axes, ends)


def _testtime(axes: Any, models: Mapping[str, Data]) -> None:
    ends = []
    for index, (name, fit) in enumerate(models.items()):
        shape = look(index)
        axes.plot(
            [dot["k"] for dot in fit["measured"]],
            [dot["value"] for dot in fit["measured"]],
            color=shape.color,
            marker=shape.mark,
            markersize=4,
            linestyle="none",
        )
        if fit["coverage"]:
            _band(axes, fit["coverage"]["curve"], "k", fit["samples"], shape.color)
            ends.append((fit["coverage"]["curve"][-1]["value"], words.clean(name, 24), shape.color))
        if fit["votes"]:
            _band(axes, fit["votes"]["curve"], "k", fit["samples"], shape.color, thin=True)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    percent_axis(axes.yaxis)
    style.power_axis(axes.xaxis)
    axes.set_xlabel("samples a problem")
    axes.set_ylabel("share solved")
    end_labels(axes, ends)
