"""A picture of mIoU over the CRF's settings: a heat map for each w1, and where the search ended.

The figure is made without pyplot, so there is no global state and no display.
"""

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pipeline.files import write_whole
from pipeline.inference.search.grid import Point, Trial

INK, RULE = "#1c2126", "#d5d9dd"
_STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
#: Inches a panel.
PANEL = (4.4, 3.0)
#: More labels of an axis run into each other.
MOST_TICKS = 10
#: Cells of a panel that still have room for their figure.
MOST_NUMBERS = 80
#: Drawn over light and dark cells alike.
_FOUND: Any = {"marker": "*", "s": 130, "facecolor": "#D55E00", "edgecolor": "white", "zorder": 5}
_GIVEN: Any = {"marker": "o", "s": 70, "facecolor": "none", "linewidth": 2, "zorder": 4}
_FINER: Any = {"marker": "o", "s": 9, "color": "white", "edgecolor": INK, "linewidth": 0.4}


def draw_surface(
    trials: Sequence[Trial], found: Trial, without: float, title: str, path: Path
) -> None:
    """Save a heat map of the first round, sigma_alpha by sigma_beta, for each of its w1.

    Args:
        trials: of all rounds; the later ones are dots in the panel of the nearest w1.
        found: the chosen one, a star; the settings as given (round 0) are a ring.
        without: mIoU without the CRF.
        title: what was searched.
        path: a PNG.
    """
    first = [trial for trial in trials if trial.round == 1]
    # The rough figures where there are any: only they are of the whole grid.
    rough = any(trial.rough for trial in first)
    grid = {trial.point: trial.miou for trial in first if trial.rough == rough}
    w1s, alphas, betas = (sorted(set(axis)) for axis in zip(*grid, strict=True))
    scale = Normalize(min(grid.values()), max(grid.values()))
    with matplotlib.rc_context(_STYLE):
        columns = len(w1s) if len(w1s) <= 3 else 2 if len(w1s) == 4 else 3
        rows = math.ceil(len(w1s) / columns)
        size = (columns * PANEL[0] + 1, rows * PANEL[1] + 1.4)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(w1s) :]:
            panel.set_visible(False)
        for panel, w1 in zip(panels, w1s, strict=False):
            mious = np.array([[grid[Point(w1, a, b)] for a in alphas] for b in betas])
            _heat_map(panel, alphas, betas, mious, scale)
            panel.set_title(f"w1 = {w1:g}", loc="left", fontweight="bold")
            _mark(panel, [trial for trial in trials if _nearest(w1s, trial.point.w1) == w1], found)
        shown = [panel for panel in panels if panel.get_visible()]
        label = "mIoU, first round, on images of half the size" if rough else "mIoU, first round"
        figure.colorbar(ScalarMappable(scale, "viridis"), ax=shown, label=label)
        _explain(figure, trials, found, without, title)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110, facecolor="white", metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _heat_map(
    axes: Axes,
    alphas: Sequence[float],
    betas: Sequence[float],
    mious: npt.NDArray[np.float64],
    scale: Normalize,
) -> None:
    axes.pcolormesh(
        _edges(alphas), _edges(betas), mious, norm=scale, cmap="viridis", edgecolor="white", lw=0.5
    )
    axes.set_xticks(alphas[:: math.ceil(len(alphas) / MOST_TICKS)])
    axes.set_yticks(betas[:: math.ceil(len(betas) / MOST_TICKS)])
    axes.set_xlabel("sigma_alpha, pixels")
    axes.set_ylabel("sigma_beta, levels")
    if mious.size > MOST_NUMBERS:
        return
    for row, beta in enumerate(betas):
        for column, alpha in enumerate(alphas):
            miou = mious[row, column]
            colour = "white" if scale(miou) < 0.6 else INK
            # Below the middle, where the marks are.
            axes.annotate(
                f"{miou:.2f}",
                (alpha, beta),
                (0, -5),
                textcoords="offset points",
                ha="center",
                va="top",
                color=colour,
                size=7,
            )


def _mark(axes: Axes, trials: Sequence[Trial], found: Trial) -> None:
    finer = [trial.point for trial in trials if trial.round > 1]
    axes.scatter([point.sigma_alpha for point in finer], [p.sigma_beta for p in finer], **_FINER)
    for trial in trials:
        place = trial.point.sigma_alpha, trial.point.sigma_beta
        if trial.round == 0:
            axes.scatter(*place, edgecolor="white", **{**_GIVEN, "linewidth": 4})
            axes.scatter(*place, edgecolor="#D55E00", **_GIVEN)
        if trial is found:
            axes.scatter(*place, **_FOUND)


def _explain(
    figure: Figure, trials: Sequence[Trial], found: Trial, without: float, title: str
) -> None:
    given = next(trial for trial in trials if trial.round == 0)
    handles = [
        figure.axes[0].scatter([], [], edgecolor="#D55E00", **_GIVEN),
        figure.axes[0].scatter([], [], **_FOUND),
        figure.axes[0].scatter([], [], **_FINER),
    ]
    words = [f"given: {_words(given)}", f"found: {_words(found)}", "finer rounds"]
    figure.suptitle(f"{title}\nmIoU {without:.2f} without the CRF", fontweight="bold", size=11)
    figure.legend(handles, words, loc="outside lower center")


def _words(trial: Trial) -> str:
    w1, alpha, beta = trial.point
    return f"w1 {w1:g}, sigma_alpha {alpha:g}, sigma_beta {beta:g}, mIoU {trial.miou:.2f}"


def _nearest(values: Sequence[float], wanted: float) -> float:
    return min(values, key=lambda value: abs(value - wanted))


def _edges(values: Sequence[float]) -> list[float]:
    """The borders of cells around the values."""
    if len(values) == 1:
        return [values[0] - 0.5, values[0] + 0.5]
    between = [(low + high) / 2 for low, high in pairwise(values)]
    return [2 * values[0] - between[0], *between, 2 * values[-1] - between[-1]]
