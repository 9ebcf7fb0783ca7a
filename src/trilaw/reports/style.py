"""How pictures look: one palette, thin grids, words beside the lines, and SVG that follows the page's light or dark theme.

The hues are Okabe and Ito's, safe for colour-blind eyes ("Color Universal Design", 2008), darkened until text in them reads on white.
Colour never stands alone: each model also has its own mark and dash. Text stays text in the SVG, and for a page each colour becomes a
CSS variable with itself as fallback.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilaw.core.errors import RequestError
from trilaw.core.rundir import write_bytes, write_text
from trilaw.reports import words

INK, MUTED, GRID = "#1f2328", "#59636e", "#e4e7eb"
SLATE = "#4d5761"  # the model that the others are compared with
SERIES = ("#0072b2", "#bd4b00", "#00795a", "#a34a7c", "#8a6100", "#2f6f8f")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    SLATE: "slate",
    **{hue: f"series-{i}" for i, hue in enumerate(SERIES)},
}
_MARKS, _DASHES = "osD^vP", ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

_RC: Any = {  # matplotlib types the keys as a Literal of all 300
    "svg.fonttype": "none",
    "svg.hashsalt": "trilaw",  # equal runs give equal files
    "text.parse_math": False,  # names come from outside: a dollar sign is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one model or quantity is drawn, the same in every chart."""

    color: str
    mark: str
    dash: Any


def look(index: int) -> Look:
    return Look(SERIES[index % len(SERIES)], _MARKS[(index + 1) % len(_MARKS)], _DASHES[index % len(_DASHES)])


BASELINE = Look(SLATE, _MARKS[0], "-")


@contextmanager
def styled() -> Iterator[Any]:
    """matplotlib's pyplot-free Figure class, with the house style in force. Imported here: it takes a second to load."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_RC):
        yield Figure


def end_labels(axes: Any, ends: Sequence[tuple[float, str, str]], *, gap: float = 0.085) -> None:
    """Write the name of each line at the right edge, at the height of its end: (y in data units, text, colour).

    Labels that would touch are moved apart by at least `gap`, a share of the height of the axes. Call it when the limits are final.
    """
    axes.get_ylim()  # matplotlib settles automatic limits only when asked
    placed = sorted(
        (float(axes.transAxes.inverted().transform(axes.transData.transform((1.0, y)))[1]), text, color)
        for y, text, color in ends
    )
    heights = [min(max(height, 0.0), 1.0) for height, _, _ in placed]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    overflow = heights[-1] - max(1.0, gap * (len(heights) - 1)) if heights else 0.0
    if overflow > 0:
        heights[-1] -= overflow
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - gap)
    for height, (_, text, color) in zip(heights, placed, strict=True):
        axes.annotate(
            text,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=8.5,
        )


def percent_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))


def power_axis(axis: Any) -> None:
    """Powers of ten in Unicode: matplotlib's own are set as mathematics, which the house style does not parse."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    narrow = high < 30 * low  # one power of ten alone would be no scale
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: power_label(x)))
    axis.set_minor_formatter(NullFormatter())


def power_label(x: float) -> str:
    if x <= 0:
        return ""
    exponent = math.floor(math.log10(x) + 1e-9)
    factor = round(10.0 ** (math.log10(x) - exponent))
    return words.ten_to(exponent) if factor == 1 else f"{factor}×{words.ten_to(exponent)}"


def svg(figure: Any) -> str:
    """The figure as a complete SVG document."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def check_picture(path: Path) -> None:
    """Raises RequestError unless a picture can have this name. Asked before anything is drawn."""
    if path.suffix not in (".svg", ".png"):
        raise RequestError(f"--picture {path}: give a name that ends in .svg or .png.")


def save(figure: Any, path: Path) -> None:
    """A figure as a file, by the suffix of its name. Raises RunError if it cannot be written."""
    if path.suffix == ".svg":
        write_text(path, svg(figure))
        return
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    write_bytes(path, buffer.getvalue())


def inline(document: str, prefix: str, description: str) -> str:
    """An SVG document made fit to stand inside an HTML page beside others of its kind.

    Without XML head, namespaces (HTML knows them) and its page-wide style; ids get `prefix`; colours become CSS variables.
    """
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<style type=\"text/css\">.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href=", "href=")
    body = re.sub(r'(\bid="|href="#|url\(#)', lambda match: match[1] + prefix, body)
    for hue, name in _VARIABLES.items():
        body = body.replace(hue, f"var(--{name}, {hue})")
    width, height = re.findall(r'\b(?:width|height)="([\d.]+)pt"', body)[:2]
    body = body.replace(f' height="{height}pt"', "", 1).replace(
        f' width="{width}pt"', f' role="img" aria-label="{description}"', 1
    )
    return body.strip()
