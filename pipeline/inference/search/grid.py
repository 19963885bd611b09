"""Coarse to fine: a whole grid first, then half the step around the best so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple


class Point(NamedTuple):
    """What is searched; the rest of the CRF's settings is fixed."""

    w1: float
    sigma_alpha: float
    sigma_beta: float


@dataclass(frozen=True)
class Trial:
    """A point that was scored."""

    #: 0: the settings as they were given, before the search.
    round: int
    point: Point
    #: Percent.
    miou: float


#: The number of the round and its points to their mIoU, in the same order.
Score = Callable[[int, Sequence[Point]], Sequence[float]]


def coarse_to_fine(axes: Sequence[Sequence[float]], rounds: int, score: Score) -> list[Trial]:
    """Score a grid, then ever finer ones around the best (v1, section 5.1; v2, section 4.1).

    Every round scores its centre again, so the best of the last is the best of all that were
    scored alike. Of equals, the first counts: the least w1, then sigma_alpha, then sigma_beta.

    Args:
        axes: the first round's w1, sigma_alpha and sigma_beta, in growing order; no round leaves
            their ranges, and an axis of one value is kept as it is.
        rounds: 1 is the grid alone.
        score: is called once a round.

    Returns:
        All trials, in the order in which they were scored.
    """
    levels = [list(axis) for axis in axes]
    candidates = levels
    trials: list[Trial] = []
    for number in range(1, rounds + 1):
        points = [Point(*values) for values in product(*candidates)]
        mious = score(number, points)
        scored = [Trial(number, *pair) for pair in zip(points, mious, strict=True)]
        trials += scored
        centre = best(scored).point
        candidates = [around(axis, value) for axis, value in zip(levels, centre, strict=True)]
        levels = [sorted({*known, *new}) for known, new in zip(levels, candidates, strict=True)]
    return trials


def around(levels: Sequence[float], centre: float) -> list[float]:
    """The value `centre` of an axis, and what lies halfway to its neighbours there."""
    place = list(levels).index(centre)
    near = levels[max(0, place - 1) : place + 2]
    return sorted([centre, *((low + high) / 2 for low, high in pairwise(near))])


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of the greatest mIoU, the first of equals."""
    return max(trials, key=lambda trial: trial.miou)


def most_points(axes: Sequence[Sequence[float]], rounds: int) -> int:
    """How many points `coarse_to_fine` scores at most."""
    first, finer = 1, 1
    for axis in axes:
        first *= len(axis)
        finer *= min(3, 2 * len(axis) - 1)
    return first + (rounds - 1) * finer
