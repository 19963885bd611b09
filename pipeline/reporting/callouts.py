"""Names beside the points of a plot, where they cover least."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes

#: Left, bottom, right, top, in dots.
Box = tuple[float, float, float, float]


def name_points(axes: Axes) -> None:
    """Write each point's name where it covers least: other names, points, lines, edges.

    Args:
        axes: drawn once, so that its limits are known; each point is a collection of its own, whose
            label is its name.
    """
    left, bottom, right, top = axes.get_window_extent().extents
    frame: Box = (float(left), float(bottom), float(right), float(top))
    points = [axes.transData.transform(c.get_offsets()[0]) for c in axes.collections]  # type: ignore[index]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for line in axes.lines:
        for one, other in pairwise(axes.transData.transform(line.get_xydata())):
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
        covered = [
            _covered((left, bottom, left + width, bottom + height), taken, frame)
            for left, bottom, *_ in places
        ]
        left, bottom, horizontal, vertical, dx, dy = places[covered.index(min(covered))]
        taken.append((left, bottom, left + width, bottom + height))
        axes.annotate(
            name,
            tuple(axes.transData.inverted().transform((x, y))),
            xytext=(dx * 0.72, dy * 0.72),  # dots to points
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=8.5,
            parse_math=False,
        )


def _covered(box: Box, taken: Sequence[Box], frame: Box) -> float:
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
    return sum(_overlap(box, other) for other in taken) + 4 * outside


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
