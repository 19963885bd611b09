"""The report's plots: Figures that are saved as PNG and as SVG for the page.

Figures are made without pyplot, so there is no global state and no display.
"""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.reporting.callouts import name_points
from pipeline.reporting.compare import pareto_front
from pipeline.reporting.effects import CRF, Effect
from pipeline.reporting.groups import Group, Study, miou_in

#: Okabe and Ito's colours, which stay apart for colour-blind readers, without black and yellow,
#: which vanish on a dark or a light page. Markers and dashes tell variants apart besides.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))

#: Ink and rule as drawn; in SVG they become the page's own, which follow light and dark.
INK, RULE = "#1c2126", "#d5d9dd"
#: Of lines that are read on light and dark alike.
SOFT = "#8a9299"
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
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",
    "figure.dpi": 100,
}
#: Inches; at 100 dots an inch a panel is legible at the width of a phone.
PANEL = (4.8, 3.6)
COSTS = {"gmacs": "GMACs", "ms_per_image": "ms an image"}


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the setting at this place of the list."""
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


def cost_plot(study: Study, costs: Sequence[str]) -> Figure | None:
    """MIoU against cost, one panel for each of `costs` (keys of COSTS), with the Pareto front.

    None where there are not two settings to compare.
    """
    known = [
        cost
        for cost in costs
        if any(getattr(group.cost, cost) is not None for group in study.compared)
    ]
    if not known or len(study.compared) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(known))
        for axes, cost in zip(panels, known, strict=True):
            _cost_panel(axes, study, cost)
        figure.draw_without_rendering()
        for axes in panels:
            name_points(axes)
    return figure


def _cost_panel(axes: Axes, study: Study, cost: str) -> None:
    shown = [g for g in study.compared if getattr(g.cost, cost) is not None]
    points = [(float(getattr(group.cost, cost)), group.miou) for group in shown]
    front = pareto_front(points)
    axes.plot(*zip(*[points[i] for i in front], strict=True), color=SOFT, lw=1.2, zorder=2)
    for index, (group, (x, y)) in enumerate(zip(shown, points, strict=True)):
        style = look(study.groups.index(group))
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
            label=group.label,
        )
        spread = group.spread(miou_in("single"))
        if spread is not None:
            axes.plot([x, x], [y - spread, y + spread], color=style["color"], lw=1.3)
    _spread_out(axes, axes.xaxis, [x for x, _ in points], 10)
    axes.margins(0.16, 0.18)
    sizes = {group.cost.size for group in shown}
    axes.set_xlabel(COSTS[cost] + (f", {sizes.pop()} px" if len(sizes) == 1 else ""))
    axes.set_ylabel("mIoU, %")


def curves_plot(study: Study, what: Sequence[str]) -> Figure | None:
    """Learning curves, one panel for each of `what` ("val_miou", "train_loss").

    A setting with several seeds has the line of their mean, in the band from least to most. None
    where nothing has two points to join.
    """
    what = [column for column in what if any(len(_curve(g, column)) > 1 for g in study.groups)]
    if not what:
        return None
    words = {"val_miou": "mIoU on val, %", "train_loss": "training loss"}
    drawn = [group for group in study.groups if any(_curve(group, column) for column in what)]
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(what), named=drawn)
        for axes, column in zip(panels, what, strict=True):
            for group in drawn:
                _curve_line(axes, _curve(group, column), group.label, study.groups.index(group))
            axes.set_xlabel("iteration")
            axes.set_ylabel(words[column])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            values = [v for g in drawn for found in _curve(g, column).values() for v in found]
            if column == "train_loss" and min(values) > 0:
                _spread_out(axes, axes.yaxis, values, 4)
        handles, names = panels[0].get_legend_handles_labels()
        columns = _legend_columns(names, len(what))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)
    return figure


def _spread_out(axes: Axes, axis: Axis, values: Sequence[float], ratio: float) -> None:
    """A logarithmic axis where the largest value is more than `ratio` times the least."""
    if max(values) <= ratio * max(min(values), 1e-9):
        return
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _curve_line(axes: Axes, curve: dict[int, list[float]], name: str, index: int) -> None:
    if not curve:
        return
    style, steps, values = look(index), list(curve), list(curve.values())
    axes.plot(steps, [mean(v) for v in values], ms=4.5, lw=1.6, label=name, mfc="none", **style)
    if any(len(v) > 1 for v in values):
        least, most = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(steps, least, most, color=style["color"], alpha=0.16, lw=0)


def _curve(group: Group, column: str) -> dict[int, list[float]]:
    """Iteration -> the figures of all runs, where each of them has one."""
    found: dict[int, list[float]] = {}
    for variant in group.variants:
        for row in variant.history:
            if (value := getattr(row, column)) is not None:
                found.setdefault(row.iteration, []).append(value)
    return {i: found[i] for i in sorted(found) if len(found[i]) == len(group.variants)}


def borders_plot(study: Study, what: Sequence[str]) -> Figure | None:
    """MIoU in the band around the borders by its width (v3+, Figure 5), one panel for each.

    Args:
        study: one line for each setting that is compared.
        what: "miou", without the CRF solid and with it dotted; "gain", what the CRF adds.
    """
    compared = [group for group in study.compared if "single_crf" in group.evaluation.modes]
    if not compared:
        return None
    words = {"miou": "mIoU in the band, %", "gain": "CRF gain in the band, points"}
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(what), named=compared)
        for axes, which in zip(panels, what, strict=True):
            for group in compared:
                _borders_line(axes, group, study.groups.index(group), which)
            if which == "gain":
                axes.axhline(0, color=SOFT, lw=1, zorder=1)
            axes.set_xlabel("width of the band, px")
            axes.set_ylabel(words[which])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        handles, names = panels[0].get_legend_handles_labels()
        columns = _legend_columns(names, len(what))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)
    return figure


def _borders_line(axes: Axes, group: Group, index: int, which: str) -> None:
    """One setting's line, with a mark every few pixels that tells it apart."""
    widths = list(group.evaluation.tally.trimap_widths)
    without, refined = group.band("single"), group.band("single_crf")
    style = look(index) | {"ms": 4.5, "lw": 1.6, "mfc": "none", "markevery": (index % 5, 5)}
    if which == "gain":
        axes.plot(widths, refined - without, label=group.label, **style)
        return
    axes.plot(widths, without, label=group.label, **style)
    axes.plot(widths, refined, lw=1.3, ls=(0, (1, 1.2)), color=style["color"])


def effects_plot(effects: Sequence[Effect]) -> Figure | None:
    """What each change bought: the mean over its pairs, each pair, and where the mean lies.

    None where no setting differs from another.
    """
    if not any(effect.setting != CRF for effect in effects):
        return None
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(PANEL[0], 0.75 + 0.5 * len(effects)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, lw=1, zorder=1)
        for place, effect in enumerate(effects):
            _effect_line(axes, place, effect)
        axes.set_ylim(len(effects) - 0.4, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("points of mIoU")
    return figure


def _effect_line(axes: Axes, place: int, effect: Effect) -> None:
    miou, colour = effect.miou, COLOURS[0] if effect.setting != CRF else COLOURS[1]
    if miou.interval is not None:
        axes.hlines(place, miou.interval.low, miou.interval.high, color=colour, lw=1.6)
    if miou.spread is not None:
        ends = miou.points - miou.spread, miou.points + miou.spread
        axes.hlines(place, *ends, color=colour, lw=6, alpha=0.25)
    if len(effect.changes) > 1:
        each = [change.miou.points for change in effect.changes]
        axes.scatter(each, [place] * len(each), s=22, facecolors="none", edgecolors=colour)
    face = "none" if miou.doubts else colour
    axes.scatter(
        [miou.points], [place], s=50, marker="D", facecolors=face, edgecolors=colour, zorder=3
    )
    # Above its line and from the left edge: at the width of a phone there is no room beside.
    axes.annotate(
        f"{effect.setting}: {effect.said}",
        (0, place - 0.24),
        xycoords=("axes fraction", "data"),
        fontsize=8.5,
        va="bottom",
        parse_math=False,
    )


def _panels(count: int, named: Sequence[Group] = ()) -> tuple[Figure, list[Axes]]:
    """So many beside each other, with room for a legend of these below."""
    rows = math.ceil(len(named) / _legend_columns([group.label for group in named], count))
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1] + 0.2 * rows), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _legend_columns(names: Sequence[str], panels: int) -> int:
    """As many as fit under the panels, at most two a panel; a letter takes about 0.075 inches."""
    width = 0.7 + 0.075 * max(map(len, names), default=0)
    return min(2 * panels, max(1, int(PANEL[0] * panels / width)))
