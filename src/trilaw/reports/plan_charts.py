"""Two pictures of a plan, from the plain data that its `to_json` gives: where a chip's memory goes, and the roofline of serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trilaw.reports import style, words
from trilaw.reports.style import look, power_axis

Data = Mapping[str, Any]


def train_picture(data: Data, path: Path) -> None:
    """The memory of the fullest chip by part, as one bar beside what may be filled. Raises as `_write` does."""

    def draw(axes: Any) -> None:
        parts = {name: size for name, size in data["memory_parts"].items() if name not in ("total", "stage") and size}
        left, labels = 0.0, []
        for index, (name, size) in enumerate(parts.items()):
            axes.barh(0, size / 1e9, left=left, height=0.5, color=look(index).color, edgecolor="white", linewidth=1.2)
            labels.append((left + size / 2e9, f"{name} {size / 1e9:.1f}", look(index).color))
            left += size / 1e9
        capacity = data["memory_capacity"] / 1e9
        axes.axvline(capacity, color=style.MUTED, linestyle=(0, (4, 2)), linewidth=1)
        axes.annotate(
            f"may be filled: {capacity:.1f}",
            (capacity, -0.55),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            color=style.MUTED,
            fontsize=8.5,
        )
        for index, (x, text, color) in enumerate(
            labels
        ):  # at four heights, so that small parts do not cover each other
            height = 0.42 + 0.17 * (index % 4)
            axes.plot([x, x], [0.25, height - 0.03], color=color, linewidth=0.7)
            axes.text(x, height, text, ha="center", va="bottom", color=color, fontsize=8.5, backgroundcolor="white")
        axes.set_ylim(-0.7, 1.2)
        axes.set_xlim(0, max(capacity, left) * 1.03)
        axes.set_yticks([])
        axes.grid(False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("GB of the fullest chip")

    title = f"{data['model']} on {data['count']:,} {data['chip']}, {data['precision']}: {data['layout']['words']}"
    _write(path, title, draw, (7.2, 2.5))


def serve_picture(data: Data, path: Path) -> None:
    """The roofline: FLOP/s that the kernels of a prompt's and of a decoding pass reach, under the chip's ceilings. Raises as `_write` does."""
    roof = data["roofline"]

    def draw(axes: Any) -> None:
        peaks = {roof["products"]: roof["matmul_flops_per_second"], "attention": roof["attention_flops_per_second"]}
        reading, dots = roof["memory_bytes_per_second"], roof["kernels"]
        at = [dot["flops_per_byte"] for dot in dots] + [peak / reading for peak in peaks.values()]
        low, high = min(at) / 4, max(at) * 4
        for index, (name, peak) in enumerate(peaks.items()):
            ridge = peak / reading
            shape = look(index)
            axes.plot(
                [low, ridge, high], [low * reading, peak, peak], color=shape.color, linewidth=1.4, linestyle=shape.dash
            )
            axes.annotate(
                f"{name}: {_speed(peak)}",
                (high, peak),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color=shape.color,
                fontsize=8.5,
            )
        for dot in dots:
            shape = look(0 if dot["kernel"] == "weights" else 1)
            axes.plot(
                [dot["flops_per_byte"]], [dot["flops_per_second"]], marker=shape.mark, color=shape.color, markersize=6
            )
            axes.annotate(
                f"{dot['pass']}, {dot['kernel']}",
                (dot["flops_per_byte"], dot["flops_per_second"]),
                xytext=(7, -12),
                textcoords="offset points",
                ha="left",
                color=style.INK,
                fontsize=8.5,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(
            min(low * reading, min((dot["flops_per_second"] for dot in dots), default=1.0)) / 2, max(peaks.values()) * 3
        )
        power_axis(axes.xaxis)
        power_axis(axes.yaxis)
        axes.set_xlabel("FLOPs a byte read")
        axes.set_ylabel("FLOP/s of a chip, links left out")

    title = f"{data['model']} on {data['count']:,} {data['chip']}, {data['layout']}, {words.plain(data['batch'])} sequences a replica"
    _write(path, title, draw, (6.4, 3.8))


def _speed(flops: float) -> str:
    unit, size = next(((u, s) for u, s in (("P", 1e15), ("T", 1e12)) if flops >= 0.9995 * s), ("G", 1e9))
    return f"{flops / size:.3g} {unit}FLOP/s"


def _write(path: Path, title: str, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    """One figure as .svg or .png. Raises RequestError for another suffix, RunError if it cannot be written."""
    style.check_picture(path)
    with style.styled() as figure_class:
        figure = figure_class(figsize=size, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(words.clean(title, 120), fontsize=9.5, loc="left", pad=8)
        style.save(figure, path)
