"""The report's heat maps: IoU by class and variant, and the confusion matrix."""

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.reporting.compare import row_shares
from pipeline.reporting.groups import Study
from pipeline.reporting.plots import INK, STYLE
from pipeline.reporting.words import DASH


def class_plot(study: Study) -> Figure | None:
    """IoU of each class (rows) for each setting (columns); absent classes are left blank."""
    compared = study.compared
    if not compared:
        return None
    classes = compared[0].evaluation.classes
    values = np.array([[_nan(group.iou("single", c)) for group in compared] for c in classes])
    size = (2.0 + 0.95 * len(compared), 1.6 + 0.27 * len(classes))
    names = [group.label for group in compared]
    return _heat(values, classes, names, size, "IoU, %", decimals=1, vmax=100)


def confusion_plot(matrix: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """The row-normalised confusion matrix: percent of each true class."""
    side = 2.0 + 0.34 * len(classes)
    shares = row_shares(matrix)
    figure = _heat(shares, classes, classes, (side, side), "% of the true class", decimals=0)
    figure.axes[0].set_xlabel("prediction")
    figure.axes[0].set_ylabel("truth")
    return figure


def _heat(
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    size: tuple[float, float],
    title: str,
    decimals: int,
    vmax: float = 100.0,
) -> Figure:
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=vmax, aspect="auto")
        # parse_math: a "$" in a class name is a dollar.
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", parse_math=False)
        axes.set_yticks(range(len(rows)), rows, parse_math=False)
        axes.tick_params(length=0)
        axes.set_title(title, loc="left", fontsize=10)
        for (i, j), value in np.ndenumerate(values):
            text = DASH if math.isnan(value) else f"{value:.{decimals}f}"
            if decimals == 0 and value < 0.5:
                text = ""
            colour = "white" if value > 0.6 * vmax else INK
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    return figure


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
