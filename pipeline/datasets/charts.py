"""Charts of what is in a training-ready set: how often each class occurs, how large images are.

Figures are made without pyplot, so there is no global state and no display.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipeline.datasets.prepared import Prepared
from pipeline.datasets.statistics import read_statistics
from pipeline.files import write_whole

#: A split's colour and marker, in the order of the splits: Okabe and Ito's, which colour-blind
#: readers tell apart.
SPLITS = (("#0072B2", "o"), ("#D55E00", "D"), ("#009E73", "^"), ("#CC79A7", "s"), ("#E69F00", "v"))
INK, RULE, ALARM = "#1c2126", "#d5d9dd", "#c0392b"
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 1.5,
}


def draw_classes(data: Prepared, path: Path, split: str = "train") -> None:
    """Each class's share of the pixels (log scale) and of the images, as a PNG.

    Args:
        data: the training-ready set.
        path: the PNG to write.
        split: the one that is learned from. Its shares are bars in the classes' own colours, and
            what it never shows is said in red; the other splits are markers.
    """
    known = read_statistics(data.folder)["splits"]
    splits = {split: known[split]} | known
    rows = len(data.classes) + 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 1.6 + 0.27 * rows), layout="constrained")
        pixels, images = figure.subplots(1, 2, sharey=True)
        _pixel_shares(pixels, data, splits)
        _image_shares(images, data, splits)
        names = [f"{number} {name}" for number, name in enumerate(data.classes)]
        pixels.set_yticks(range(rows), [*names, "255 void"])
        pixels.set_ylim(rows - 0.4, -0.6)
        for axes in (pixels, images):
            axes.tick_params(axis="y", length=0)
        figure.suptitle(f"{data.name}: how often each class occurs", fontweight="bold")
        bar = Patch(facecolor=RULE, edgecolor=INK, linewidth=0.6, label=split)
        marks, _ = pixels.get_legend_handles_labels()
        figure.legend(handles=[bar, *marks], loc="outside upper right", ncols=1 + len(marks))
        _save(figure, path)


def draw_sizes(data: Prepared, crop_size: int, path: Path) -> None:
    """Width against height of all images, and how many have which longer side, as a PNG.

    Args:
        data: the training-ready set.
        crop_size: of training: an unscaled image within its square is padded.
        path: the PNG to write.
    """
    splits = read_statistics(data.folder)["splits"]
    sizes = {name: _sizes(split["sizes"]) for name, split in splits.items()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        places, sides = figure.subplots(1, 2)
        _scatter(places, sizes, crop_size)
        _histogram(sides, sizes, crop_size)
        figure.suptitle(f"{data.name}: sizes of the images", fontweight="bold")
        _save(figure, path)


def _pixel_shares(axes: Axes, data: Prepared, splits: Mapping[str, Any]) -> None:
    shares = {
        name: np.array([100 * split["frequency"][c] for c in data.classes] + [100 * split["void"]])
        for name, split in splits.items()
    }
    positive = np.concatenate([values[values > 0] for values in shares.values()])
    axes.set_xscale("log")
    axes.set_xlim(10 ** np.floor(np.log10(positive.min() * 0.9)), 100)
    axes.set_xlabel("% of the pixels that are not void (void: of all), log scale")
    _bars_and_marks(axes, data, shares)
    axes.xaxis.set_major_formatter("{x:g}")


def _image_shares(axes: Axes, data: Prepared, splits: Mapping[str, Any]) -> None:
    counts = {
        name: np.array([split["images_with_class"][c] for c in data.classes])
        for name, split in splits.items()
    }
    shares = {name: 100 * counts[name] / splits[name]["images"] for name in splits}
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("% of the images that show it (and how many)")
    _bars_and_marks(axes, data, shares)
    first = next(iter(splits))
    ends = np.max([shares[name] for name in splits], axis=0)
    for row, (end, count) in enumerate(zip(ends, counts[first], strict=True)):
        text, colour = (str(count), INK) if count else (f"none in {first}", ALARM)
        axes.annotate(
            text, (end, row), (7, 0), textcoords="offset points", va="center", color=colour
        )


def _bars_and_marks(axes: Axes, data: Prepared, shares: Mapping[str, np.ndarray]) -> None:
    """A bar a class for the first split, a marker for each of the others."""
    for number, (name, values) in enumerate(shares.items()):
        if number == 0:
            colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in data.palette]
            bars = axes.barh(range(len(values)), values, 0.72, edgecolor=INK, linewidth=0.6)
            for bar, colour in zip(bars, [*colours, "white"], strict=False):
                bar.set_facecolor(colour)
            if len(values) > len(colours):
                bars[-1].set_hatch("////")
            continue
        colour, marker = SPLITS[number % len(SPLITS)]
        shown = np.flatnonzero(values)
        look: Any = {"color": colour, "markersize": 5.5, "markeredgecolor": "white"}
        axes.plot(values[shown], shown, marker, label=name, **look)
    axes.grid(False, axis="y")


def _sizes(counts: Mapping[str, int]) -> np.ndarray:
    """Rows of width, height, images; from "WxH" -> images."""
    return np.array([[*map(int, size.split("x")), count] for size, count in counts.items()])


def _scatter(axes: Axes, sizes: Mapping[str, np.ndarray], crop_size: int) -> None:
    """A dot a size, its area that of the share of the images."""
    for number, (name, values) in enumerate(sizes.items()):
        area = 12 + 400 * values[:, 2] / values[:, 2].sum()
        colour = SPLITS[number % len(SPLITS)][0]
        axes.scatter(values[:, 0], values[:, 1], area, color=colour, alpha=0.45, label=name)
    square = Rectangle((0, 0), crop_size, crop_size, fill=False, linestyle="--", edgecolor=INK)
    axes.add_patch(square)
    axes.annotate(f"crop {crop_size}", (0, crop_size), (4, 3), textcoords="offset points")
    end = 1.08 * _largest(sizes, crop_size)
    axes.set(xlabel="width, pixels", ylabel="height, pixels", aspect="equal")
    axes.set(xlim=(0, end), ylim=(0, end))


def _histogram(axes: Axes, sizes: Mapping[str, np.ndarray], crop_size: int) -> None:
    end = 1.08 * _largest(sizes, crop_size)
    axes.hist(
        [values[:, :2].max(axis=1) for values in sizes.values()],
        list(np.linspace(0, end, 28)),
        weights=[values[:, 2] for values in sizes.values()],
        color=[SPLITS[number % len(SPLITS)][0] for number in range(len(sizes))],
        label=[f"{name}: {values[:, 2].sum()} images" for name, values in sizes.items()],
    )
    axes.axvline(crop_size, color=INK, linestyle="--", linewidth=1)
    axes.set(xlabel="longer side, pixels", ylabel="images", xlim=(0, end))
    axes.grid(False, axis="x")
    axes.legend(loc="upper left")


def _largest(sizes: Mapping[str, np.ndarray], crop_size: int) -> int:
    return max(crop_size, *(int(values[:, :2].max()) for values in sizes.values()))


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    write_whole(path, buffer.getvalue())
