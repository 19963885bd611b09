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
    #: Scored by the quick approximation, which only tells what is worth scoring in full.
    rough: bool = False


#: Points to their mIoU, in the same order.
Score = Callable[[Sequence[Point]], Sequence[float]]

#: Of a grid scored roughly, the share that is scored again in full, and its least number.
PROMISING, LEAST_PROMISING = 1 / 8, 8


def coarse_to_fine(
    axes: Sequence[Sequence[float]], rounds: int, score: Score, rough: Score | None = None
) -> list[Trial]:
    """Score a grid, then ever finer ones around the best (v1, section 5; v2, section 4).

    Every round scores its centre again, so the best of the last is the best of all that were
    scored in full. Of equals, the first counts: the least w1, then sigma_alpha, then sigma_beta.

    Args:
        axes: the first round's w1, sigma_alpha and sigma_beta, in growing order; no round leaves
            their ranges, and an axis of one value is kept as it is.
        rounds: 1 is the grid alone.
        score: is called once a round.
        rough: a quicker one for the grid, of which only the most promising points are then scored
            in full; None: all are.

    Returns:
        All trials, in the order in which they were scored.
    """
    levels = [list(axis) for axis in axes]
    points = [Point(*values) for values in product(*levels)]
    trials: list[Trial] = []
    if rough is not None and len(points) > LEAST_PROMISING:
        trials = [Trial(1, *pair, rough=True) for pair in zip(points, rough(points), strict=True)]
        points = promising(trials)
    for number in range(1, rounds + 1):
        scored = [Trial(number, *pair) for pair in zip(points, score(points), strict=True)]
        trials += scored
        centre = best(scored).point
        candidates = [around(axis, value) for axis, value in zip(levels, centre, strict=True)]
        levels = [sorted({*known, *new}) for known, new in zip(levels, candidates, strict=True)]
        points = [Point(*values) for values in product(*candidates)]
    return trials


def promising(rough: Sequence[Trial]) -> list[Point]:
    """The best points of a grid that was scored roughly, in the grid's order."""
    count = max(LEAST_PROMISING, round(PROMISING * len(rough)))
    taken = set(sorted(rough, key=lambda trial: -trial.miou)[:count])
    return [trial.point for trial in rough if trial in taken]


def around(levels: Sequence[float], centre: float) -> list[float]:
    """The value `centre` of an axis, and what lies halfway to its neighbours there."""
    place = list(levels).index(centre)
    near = levels[max(0, place - 1) : place + 2]
    return sorted([centre, *((low + high) / 2 for low, high in pairwise(near))])


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of the greatest mIoU, the first of equals."""
    return max(trials, key=lambda trial: trial.miou)
