"""What is in a data set: pixels and images of every class, colours, sizes."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VOID = 255


@dataclass(frozen=True)
class ImageStatistics:
    """The counts of one image; whole numbers, so that any order of adding gives the same sums."""

    #: (width, height) in pixels.
    size: tuple[int, int]
    #: Pixels of each class, then of void; int64, classes + 1.
    pixels: np.ndarray
    #: Sum and sum of squares of red, green and blue, 0..255; int64, 3.
    colour_sum: np.ndarray
    colour_squares: np.ndarray


def measure(image: np.ndarray, label: np.ndarray, classes: int) -> ImageStatistics:
    """Count one image.

    Args:
        image: uint8 RGB, H x W x 3.
        label: uint8 H x W, 0..classes - 1 and 255.
        classes: how many there are.
    """
    counts = np.bincount(label.ravel(), minlength=VOID + 1)
    values = np.arange(256)
    histograms = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)])
    return ImageStatistics(
        size=(label.shape[1], label.shape[0]),
        pixels=np.append(counts[:classes], counts[VOID]),
        colour_sum=histograms @ values,
        colour_squares=histograms @ values**2,
    )


def summarise(
    splits: Mapping[str, Sequence[ImageStatistics]], classes: Sequence[str]
) -> dict[str, Any]:
    """The statistics of a data set, ready for JSON.

    Args:
        splits: the counts of every image of each split; `train` gives mean and std.
        classes: the classes' names.

    Returns:
        `mean` and `std` of RGB in [0, 1] over train, and for each split `images`, `sizes`
        ("WxH" -> images), `void` (share of all pixels), and for each class `frequency` (share of
        the pixels that are not void) and `images_with_class`.
    """
    train = splits["train"]
    pixels = sum(statistics.size[0] * statistics.size[1] for statistics in train)
    mean = np.sum([statistics.colour_sum for statistics in train], axis=0) / pixels / 255
    squares = np.sum([statistics.colour_squares for statistics in train], axis=0) / pixels / 255**2
    std = np.sqrt(np.maximum(squares - mean**2, 0.0))
    return {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "splits": {name: _summary(split, classes) for name, split in splits.items()},
    }


def read_statistics(folder: Path) -> dict[str, Any]:
    """What `summarise` gave for the training-ready set in this folder."""
    statistics: dict[str, Any] = json.loads((folder / "statistics.json").read_text("utf-8"))
    return statistics


def missing_in_train(statistics: Mapping[str, Any]) -> list[str]:
    """The classes that no training image shows."""
    images = statistics["splits"]["train"]["images_with_class"]
    return [name for name, count in images.items() if count == 0]


def _summary(split: Sequence[ImageStatistics], classes: Sequence[str]) -> dict[str, Any]:
    pixels = np.stack([statistics.pixels for statistics in split])
    totals = pixels.sum(axis=0)
    labelled = max(1, int(totals[:-1].sum()))
    sizes = Counter(statistics.size for statistics in split)
    return {
        "images": len(split),
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(sizes.items())},
        "void": float(totals[-1] / totals.sum()),
        "frequency": {
            name: float(total / labelled) for name, total in zip(classes, totals, strict=False)
        },
        "images_with_class": {
            name: int(count) for name, count in zip(classes, (pixels > 0).sum(axis=0), strict=False)
        },
    }
