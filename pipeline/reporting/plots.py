"""The report's plots: Figures that are saved as PNG and as SVG for the page.

Figures are made without pyplot, so there is no global state and no display.
"""

import io
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from pipeline.reporting.compare import border_curve, comparable, evaluation_of, pareto_front
from pipeline.reporting.load import Variant

#: Okabe and Ito's colours, which stay apart for colour-blind readers, without black and yellow,
#: which vanish on a dark or a light page. Markers and dashes tell variants apart besides.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))

#: Ink and rule as drawn; in SVG they become the page's own, which follow light and dark.
INK, RULE = "#1c2126", "#d5d9dd"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "figure.dpi": 100,
}
#: Inches; at 100 dots an inch a panel is legible at the width of a phone.
PANEL = (4.8, 3.6)
COSTS = {"gmacs": "GMACs", "ms_per_image": "ms an image"}


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the variant at this place of the list."""
    round_ = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[round_ % len(DASHES)],
    }


def svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element that takes its ink from the page.

    Args:
        figure: what to draw.
        name: stands before every id inside, which makes them unique on a page.
    """
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])
    return text.replace(INK, "currentColor").replace(RULE, "var(--rule)")


def save(figure: Figure, path: Path) -> None:
    """Save the figure on white, as PNG or JPEG by the file's ending."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=160, facecolor="white")


def cost_plot(variants: Sequence[Variant], costs: Sequence[str]) -> Figure | None:
    """MIoU against cost, one panel for each of `costs` (keys of COSTS), with the Pareto front.

    None where there are not two variants to compare.
    """
    compared = comparable(variants)
    known = [
        cost
        for cost in costs
        if any(getattr(evaluation_of(v).cost, cost) is not None for v in compared)
    ]
    if not known or len(compared) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(known))
        for axes, cost in zip(panels, known, strict=True):
            _cost_panel(axes, variants, compared, cost)
        figure.draw_without_rendering()
        for axes in panels:
            _name_points(axes)
    return figure


def _cost_panel(
    axes: Axes, variants: Sequence[Variant], compared: Sequence[Variant], cost: str
) -> None:
    shown = [v for v in compared if getattr(evaluation_of(v).cost, cost) is not None]
    points = [(float(getattr(evaluation_of(v).cost, cost)), v.miou) for v in shown]
    front = pareto_front(points)
    axes.plot(*zip(*[points[i] for i in front], strict=True), color="#8a9299", lw=1.2, zorder=2)
    for index, (variant, (x, y)) in enumerate(zip(shown, points, strict=True)):
        style = look(list(variants).index(variant))
        face = style["color"] if index in front else "none"
        axes.scatter(
            [x],
            [y],
            s=52,
            marker=style["marker"],
            facecolors=face,
            edgecolors=style["color"],
            linewidths=1.6,
            zorder=3,
            label=variant.name,
        )
    xs = [x for x, _ in points]
    if max(xs) > 10 * max(min(xs), 1e-9):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.16, 0.18)
    sizes = {evaluation_of(v).cost.size for v in shown}
    axes.set_xlabel(COSTS[cost] + (f", {sizes.pop()} px" if len(sizes) == 1 else ""))
    axes.set_ylabel("mIoU, %")


def _name_points(axes: Axes) -> None:
    """Write each point's name where it covers least: other names, points, the front, edges."""
    frame = axes.get_window_extent()
    points = [axes.transData.transform(c.get_offsets()[0]) for c in axes.collections]  # type: ignore[index]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    corners = [
        corner for line in axes.lines for corner in axes.transData.transform(line.get_xydata())
    ]
    for one, other in pairwise(corners):
        along = [one + (other - one) * step / 24 for step in range(25)]
        taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in along]
    for collection, (x, y) in zip(axes.collections, points, strict=True):
        name = str(collection.get_label())
        width, height = 7.2 * len(name) * 0.86, 13.0
        places = [
            (x + 9, y - height / 2, "left", "center", 9, 0),
            (x - 9 - width, y - height / 2, "right", "center", -9, 0),
            (x - width / 2, y + 8, "center", "bottom", 0, 8),
            (x - width / 2, y - 8 - height, "center", "top", 0, -8),
            (x + 4, y + 8, "left", "bottom", 4, 8),
            (x - 4 - width, y - 8 - height, "right", "top", -4, -8),
            (x + 4, y - 8 - height, "left", "top", 4, -8),
            (x - 4 - width, y + 8, "right", "bottom", -4, 8),
        ]

        def covered(place: tuple[Any, ...], size: tuple[float, float] = (width, height)) -> float:
            box = (place[0], place[1], place[0] + size[0], place[1] + size[1])
            outside = size[0] * size[1] - _overlap(box, tuple(frame.extents))
            return sum(_overlap(box, other) for other in taken) + 4 * outside

        left, bottom, horizontal, vertical, dx, dy = min(places, key=covered)
        taken.append((left, bottom, left + width, bottom + height))
        axes.annotate(
            name,
            tuple(axes.transData.inverted().transform((x, y))),
            xytext=(dx * 0.72, dy * 0.72),  # dots to points
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=8.5,
        )


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def curves_plot(variants: Sequence[Variant], what: Sequence[str]) -> Figure | None:
    """Learning curves, one panel for each of `what` ("val_miou", "train_loss").

    None where nothing has two points to join.
    """
    what = [column for column in what if any(len(_curve(v, column)) > 1 for v in variants)]
    if not what:
        return None
    words = {"val_miou": "mIoU on val, %", "train_loss": "training loss"}
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(what), legend_rows=math.ceil(len(variants) / 2))
        for axes, column in zip(panels, what, strict=True):
            for index, variant in enumerate(variants):
                if known := _curve(variant, column):
                    axes.plot(*zip(*known, strict=True), ms=4.5, lw=1.6, label=variant.name,
                              mfc="none", **look(index))  # fmt: skip
            axes.set_xlabel("iteration")
            axes.set_ylabel(words[column])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2 * len(what), fontsize=9)
    return figure


def _curve(variant: Variant, column: str) -> list[tuple[int, float]]:
    """The validations of a variant that have a figure in this column."""
    rows = [(row.iteration, getattr(row, column)) for row in variant.history]
    return [(x, y) for x, y in rows if y is not None]


def borders_plot(variants: Sequence[Variant], what: Sequence[str]) -> Figure | None:
    """MIoU in the band around the borders by its width (v3+, Figure 5), one panel for each.

    Args:
        variants: one line each, of those that are comparable.
        what: "miou", without the CRF solid and with it dotted; "gain", what the CRF adds.
    """
    compared = [v for v in comparable(variants) if "single_crf" in evaluation_of(v).modes]
    if not compared:
        return None
    words = {"miou": "mIoU in the band, %", "gain": "CRF gain in the band, points"}
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(what), legend_rows=math.ceil(len(compared) / 2))
        for axes, which in zip(panels, what, strict=True):
            for variant in compared:
                _borders_line(axes, variant, list(variants).index(variant), which)
            if which == "gain":
                axes.axhline(0, color="#8a9299", lw=1, zorder=1)
            axes.set_xlabel("width of the band, px")
            axes.set_ylabel(words[which])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2 * len(what), fontsize=9)
    return figure


def _borders_line(axes: Axes, variant: Variant, index: int, which: str) -> None:
    """One variant's line, with a mark every few pixels that tells it apart."""
    evaluation = evaluation_of(variant)
    widths, without = border_curve(evaluation, "single")
    _, refined = border_curve(evaluation, "single_crf")
    style = look(index) | {"ms": 4.5, "lw": 1.6, "mfc": "none", "markevery": (index % 5, 5)}
    if which == "gain":
        axes.plot(widths, refined - without, label=variant.name, **style)
        return
    axes.plot(widths, without, label=variant.name, **style)
    axes.plot(widths, refined, lw=1.3, ls=(0, (1, 1.2)), color=style["color"])


def strip_plot(cells: Sequence[Sequence[tuple[str, bytes | None]]]) -> Figure:
    """Pictures in rows and columns, each under its caption.

    Args:
        cells: rows of (caption, encoded picture), all of one length; None leaves the place empty.
    """
    first = next(data for row in cells for _, data in row if data is not None)
    wide, high = Image.open(io.BytesIO(first)).size
    rows, columns = len(cells), len(cells[0])
    with matplotlib.rc_context(STYLE):
        size = (2.2 * columns, rows * (2.2 * high / wide + 0.3))
        figure = Figure(figsize=size, layout="constrained")
        for place, (caption, data) in enumerate(cell for row in cells for cell in row):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.set_axis_off()
            axes.set_title(caption, fontsize=9, loc="left", parse_math=False)
            if data is not None:
                axes.imshow(np.asarray(Image.open(io.BytesIO(data))))
    return figure


def _panels(count: int, legend_rows: int = 0) -> tuple[Figure, list[Axes]]:
    # A legend under a single panel takes a row for two names; under two panels, for four.
    rows = math.ceil(legend_rows / count)
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1] + 0.2 * rows), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]
