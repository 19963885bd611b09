"""What the figures say: the best setting, by how much, at what cost; which costs pay off."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.reporting.groups import Difference, Group, Study, crf_gain, difference, miou_in
from pipeline.reporting.load import Variant
from pipeline.reporting.words import number


@dataclass(frozen=True)
class Headline:
    """The answer in figures."""

    best: Group
    #: The second best, and what the best is ahead of it.
    next: Group | None
    lead: Difference | None
    gmacs: float | None
    milliseconds: float | None
    #: The highest mIoU of all modes, and who has it: (setting, mode).
    highest: tuple[Group, str]
    #: The least and the greatest gain by the CRF.
    crf_gains: tuple[float, float] | None


def headline(study: Study) -> Headline | None:
    """Who has the highest mIoU, by how much, at what cost; None if nothing is evaluated."""
    if not study.compared:
        return None
    ranked = sorted(study.compared, key=lambda group: -group.miou)
    best, follower = ranked[0], ranked[1] if len(ranked) > 1 else None
    modes = [
        (value, group, mode)
        for group in ranked
        for mode in group.evaluation.modes
        if (value := group.mean(miou_in(mode))) is not None
    ]
    gains = [gain for group in ranked if (gain := group.mean(crf_gain)) is not None]
    _, group, mode = max(modes, key=lambda found: found[0])
    return Headline(
        best=best,
        next=follower,
        lead=difference(follower, best) if follower else None,
        gmacs=cost_ratio(follower, best, "gmacs") if follower else None,
        milliseconds=cost_ratio(follower, best, "ms_per_image") if follower else None,
        highest=(group, mode),
        crf_gains=(min(gains), max(gains)) if gains else None,
    )


def best_run(study: Study) -> tuple[Variant, str]:
    """The run to take home: of the setting with the highest mIoU, over its seeds, the best one.

    Returns:
        It, and why in one line.

    Raises:
        UserError: nothing is evaluated, or not everything on the same images.
    """
    found = headline(study)
    if found is None:
        raise UserError("no variant is evaluated; run `dvc repro`, or name a variant")
    scored = [group.evaluation for group in study.groups if group.runs]
    seen = sorted({f"{one.dataset} {one.split}, {one.images} images" for one in scored})
    if study.elsewhere:
        raise UserError(f"the variants are scored on different data ({'; '.join(seen)}); name one")
    best = max(found.best.variants, key=lambda variant: variant.miou)
    seeds = len(found.best.runs)
    of = f"best of {len(scored)} evaluated settings" if found.next else "the only evaluated setting"
    figure = f"mIoU {number(found.best.miou)} %"
    if seeds > 1:
        figure = (
            f"mean mIoU {number(found.best.miou)} % over {seeds} seeds, its own {number(best.miou)}"
        )
    beaten = f"; {found.next.name} has {number(found.next.miou)}" if found.next else ""
    return best, f"{best.name}: {of}, {figure}{beaten}"


def cost_ratio(before: Group, after: Group, name: str) -> float | None:
    """How many times more `after` costs; None unless both were measured alike.

    GMACs are stated at a size, milliseconds at a size on a device.
    """
    one, other = before.cost, after.cost
    if one.size != other.size or (name == "ms_per_image" and one.device != other.device):
        return None
    numbers = getattr(one, name), getattr(other, name)
    if None in numbers or not numbers[0]:
        return None
    return float(numbers[1] / numbers[0])


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (cost, score) points that no other beats on both, cheapest first.

    Of equal points the first stays.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def best_index(values: Sequence[float | None], highest: bool = True) -> set[int]:
    """Which of the values are the best; some may tie, and none is where all are the same."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2:
        return set()
    best = max(known) if highest else min(known)
    return {index for index, value in enumerate(values) if value == best}


def largest_confusions(
    matrix: NDArray[np.int64], classes: Sequence[str], count: int = 5
) -> list[tuple[str, str, float]]:
    """The wrong predictions that take the most of their true class.

    Args:
        matrix: pixels [truth, prediction].
        classes: their names.
        count: how many at most.

    Returns:
        (truth, prediction, percent of the truth's pixels), the largest first.
    """
    shares = row_shares(matrix)
    wrong = [
        (float(shares[i, j]), i, j)
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j and shares[i, j] > 0
    ]
    largest = sorted(wrong, key=lambda item: -item[0])[:count]
    return [(classes[i], classes[j], share) for share, i, j in largest]


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent of each true class that was predicted as each class; NaN rows for absent classes."""
    totals = matrix.sum(axis=1, keepdims=True).astype(np.float64)
    totals[totals == 0] = np.nan
    return 100.0 * matrix / totals
