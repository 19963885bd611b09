"""The band around the borders of the objects, in which mIoU is taken for a trimap curve.

A pixel lies in the band of width w if the square of side 2w + 1 around it holds a pixel of another
label, void being a label too. Where every object is ringed by void, as in PASCAL VOC, that is the
papers' band: the void boundary dilated by w pixels (Kohli et al. 2009; Krähenbühl and Koltun, NIPS
2011, section 5; v3+, arXiv 1802.02611, section 4.3). Where labels touch, as in Cityscapes and
CamVid, it is the band around the line between them. Void pixels are in no band: they are not
scored.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_cdt

from pipeline.evaluation.confusion import mean_iou

#: Of the papers' curves, in pixels.
WIDTHS = tuple(range(1, 41))
#: The distance from a border where there is none.
FAR = np.iinfo(np.int32).max


def border_distance(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Chessboard distance of each pixel to the nearest of another label.

    Args:
        labels: H x W, class numbers and void.

    Returns:
        H x W, pixels, at least 1; FAR where all is one label.
    """
    # The way of a king to the nearest other label leaves its own at the last step: the distance is
    # one more than that to the nearest pixel that has another label among its eight neighbours.
    inside = ~_touching_another(labels)
    if inside.all():
        return np.full(labels.shape, FAR, np.int32)
    distance: npt.NDArray[np.int32] = distance_transform_cdt(inside, metric="chessboard")
    return distance + 1


def _touching_another(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which pixels have a neighbour, of eight, of another label; H x W."""
    touching = np.zeros(labels.shape, np.bool_)
    for here, there in (
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        differ = labels[here] != labels[there]
        touching[here] |= differ
        touching[there] |= differ
    return touching


def band_index(
    labels: npt.NDArray[np.uint8], widths: Sequence[int] = WIDTHS
) -> npt.NDArray[np.intp]:
    """The narrowest band that holds each pixel, as a place in `widths`; len(widths): none.

    Args:
        labels: H x W, class numbers and void.
        widths: in pixels, rising.
    """
    place = np.searchsorted(np.asarray(widths), np.arange(widths[-1] + 2))
    return place[np.minimum(border_distance(labels), widths[-1] + 1)]


def band_mious(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """MIoU in percent inside each band, over the classes that occur in that band.

    Args:
        counts: 3 x C x W, the pixels of each class that are hit, true and predicted in each band.

    Returns:
        W figures; NaN for a band without a pixel.
    """
    return mean_iou(counts.transpose(2, 0, 1))


def band_accuracies(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Percent of the pixels inside each band that are predicted right; NaN without a pixel."""
    hits, true = counts[0].sum(axis=0), counts[1].sum(axis=0)
    return np.divide(100.0 * hits, true, out=np.full(hits.shape, np.nan), where=true > 0)
