"""The images on which the compared networks disagree most, by their label maps."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.cores import core_count
from pipeline.datasets.images import read_label
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.reporting.groups import Group

Labels = NDArray[np.uint8]
#: Images that are looked at, spread over the split: more would take minutes for the same strips.
LOOKED_AT = 500
#: Pixels of the longer side at which label maps are compared.
SIDE = 128


@dataclass(frozen=True)
class Disagreement:
    """One image and how far the networks are apart on it."""

    id: str
    #: Percent of the scored pixels on which two networks differ, on average over all pairs; of a
    #: single network, on which it is wrong.
    percent: float


def label_map(group: Group, mode: str, id: str) -> Path:
    """Where the label map of a setting's first run lies."""
    return group.evaluation.labels / mode / f"{id}.png"


def most_disagreed(
    groups: Sequence[Group], data: Prepared, count: int
) -> tuple[list[Disagreement], int]:
    """The images on which the groups' first runs disagree most, single scale, no CRF.

    Args:
        groups: one or more, scored on the same images.
        data: the truth, for the pixels that are scored.
        count: how many at most.

    Returns:
        The most disagreed on first; and how many images were looked at. Images of which a label map
        is missing, or of another size than the truth, are left out.
    """
    ids = spread_over(groups[0].evaluation.ids, LOOKED_AT)

    def measure(id: str) -> Disagreement | None:
        if id not in data.images:
            return None
        paths = [label_map(group, "single", id) for group in groups]
        try:
            truth, *maps = (read_label(path) for path in (data.label_path(id), *paths))
        except UserError:
            return None
        if any(found.shape != truth.shape for found in maps):
            return None
        step = max(1, -(-max(truth.shape) // SIDE))
        percent = disagreement([found[::step, ::step] for found in maps], truth[::step, ::step])
        return None if percent is None else Disagreement(id, percent)

    # Decoding leaves Python's lock alone.
    with ThreadPoolExecutor(core_count()) as pool:
        found = [one for one in pool.map(measure, ids) if one is not None]
    return sorted(found, key=lambda one: (-one.percent, one.id))[:count], len(found)


def disagreement(maps: Sequence[Labels], truth: Labels, void: int = 255) -> float | None:
    """Percent of the scored pixels on which two maps differ, on average over all pairs of maps.

    Args:
        maps: H x W class numbers; a single one is compared with the truth.
        truth: H x W class numbers and void.
        void: what is not scored.

    Returns:
        None where no pixel is scored.
    """
    scored = truth != void
    if not scored.any():
        return None
    stack = np.stack([found[scored] for found in maps])
    if len(stack) == 1:
        return 100.0 * float((stack[0] != truth[scored]).mean())
    # Of n maps of which n_c say class c, sum of n_c * (n_c - 1) ordered pairs agree.
    agreeing = np.zeros(stack.shape[1], np.int64)
    for number in np.unique(stack):
        votes = (stack == number).sum(axis=0)
        agreeing += votes * (votes - 1)
    return 100.0 * (1.0 - float(agreeing.mean()) / (len(stack) * (len(stack) - 1)))


def spread_over(ids: Sequence[str], count: int) -> list[str]:
    """So many of the ids at equal distances; all if there are no more."""
    if len(ids) <= count:
        return list(ids)
    return [ids[place * len(ids) // count] for place in range(count)]
