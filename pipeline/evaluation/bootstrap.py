"""How far a mIoU is to be trusted: percentile bootstrap over the images (Efron 1979).

Whole images are drawn with replacement, since the pixels of one image belong together, and the
figure is taken anew from the sum of their counts. The interval says how the figure would move with
other images of the same kind. It says nothing about another training of the same network: that is
the spread over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.confusion import mean_iou

RESAMPLES = 1000
#: Percent of the resamples that lie inside an interval.
LEVEL = 95.0

#: N x 3 x C, or N times 3 x C: of each image the pixels of each class that are hit, true and
#: predicted, as in `Tally.per_image`.
ImageCounts = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with a confidence of LEVEL percent."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The figure is this much to either side uncertain."""
        return (self.high - self.low) / 2

    def holds(self, value: float) -> bool:
        """Whether a value lies inside: for a difference and 0, whether it may be chance."""
        return self.low <= value <= self.high


def miou_interval(
    counts: ImageCounts, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The confidence interval of mIoU in percent.

    A class that no image of a resample shows is absent from that resample's mean, as it would be
    from a split that lacks it: where a class hangs on one or two images, so does the figure, and
    the interval is wide and lopsided. Over few images it is too narrow, as any bootstrap.

    Args:
        counts: by image.
        resamples: how many.
        seed: of the draws; the same draws for the same number of images.

    Returns:
        None below two images, which have no spread.
    """
    if len(counts) < 2:
        return None
    return _interval(_mious(counts, _draws(len(counts), resamples, seed)))


def difference_interval(
    counts: ImageCounts, reference: ImageCounts, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The confidence interval of mIoU(counts) - mIoU(reference), in points, on the same images.

    Both are drawn together (paired), so that what is common to them, hard and easy images, drops
    out: a difference can be certain that is smaller than the interval of either.

    Args:
        counts: by image.
        reference: of the same images in the same order.
        resamples: how many.
        seed: of the draws.

    Returns:
        None below two images.
    """
    if len(counts) != len(reference):
        raise ValueError(f"{len(counts)} and {len(reference)} images cannot be paired")
    if len(counts) < 2:
        return None
    draws = _draws(len(counts), resamples, seed)
    return _interval(_mious(counts, draws) - _mious(reference, draws))


def _draws(images: int, resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """How often each resample holds each image, resamples x images."""
    drawn = np.random.default_rng(seed).integers(images, size=(resamples, images))
    drawn += np.arange(resamples)[:, None] * images
    counts = np.bincount(drawn.ravel(), minlength=resamples * images)
    return counts.reshape(resamples, images).astype(np.float64)


def _mious(counts: ImageCounts, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """MIoU of each resample. Sums of pixels are whole numbers below 2^53, exact in float64."""
    images = np.asarray(counts, np.float64)
    sums = draws @ images.reshape(len(images), -1)
    return mean_iou(sums.reshape(len(draws), *images.shape[1:]))


def _interval(figures: npt.NDArray[np.float64]) -> Interval | None:
    """The middle LEVEL percent; None if no resample has a figure."""
    known = figures[~np.isnan(figures)]
    if not known.size:
        return None
    low, high = np.percentile(known, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Interval(float(low), float(high))
