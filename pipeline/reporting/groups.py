"""Variants that differ in nothing but the seed, taken together: means, spreads, differences."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Interval, difference_interval, miou_interval
from pipeline.evaluation.confusion import class_ious
from pipeline.evaluation.trimap import band_mious
from pipeline.reporting.load import Cost, Evaluation, Variant

#: The files' settings -> what two runs share.
Read = Callable[[Evaluation], float | None]


def miou_in(mode: str) -> Read:
    """Reads the mIoU of a mode; None where it was not scored."""

    def read(evaluation: Evaluation) -> float | None:
        scores = evaluation.modes.get(mode)
        return scores.miou if scores else None

    return read


def crf_gain(evaluation: Evaluation) -> float | None:
    """Reads what the CRF adds at a single scale."""
    return evaluation.crf_gain


@dataclass(frozen=True)
class Group:
    """One setting: a variant, or several that differ in nothing but the seed."""

    name: str
    #: At least one; several only if all are evaluated.
    variants: tuple[Variant, ...]
    #: Points of mIoU: the spread over seeds of the study's other settings, which stands in for that
    #: of a single run.
    borrowed: float | None = None
    #: What all names of the study begin with.
    common: str = ""

    @property
    def label(self) -> str:
        """The name without that, for drawings and the heads of columns."""
        return self.name.removeprefix(self.common)

    @property
    def first(self) -> Variant:
        """The run that is shown where only one can be: pictures, settings."""
        return self.variants[0]

    @property
    def config(self) -> Config | None:
        """What all runs share, but for the seed."""
        return self.first.config

    @property
    def runs(self) -> list[Evaluation]:
        """The evaluations; none, or one of each variant."""
        return [v.evaluation for v in self.variants if v.evaluation is not None]

    @property
    def evaluation(self) -> Evaluation:
        """The first run's, for what all runs share; the group has to be evaluated."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:
        """Of the runs, in rising order."""
        return sorted(v.config.seed for v in self.variants if v.config is not None)

    @property
    def cost(self) -> Cost:
        """What an image costs; milliseconds are the mean over runs on the first one's device."""
        first = self.evaluation.cost
        costs = [run.cost.ms_per_image for run in self.runs if run.cost.device == first.device]
        known = [cost for cost in costs if cost is not None]
        return replace(first, ms_per_image=mean(known) if known else None)

    def mean(self, read: Read) -> float | None:
        """The mean over the runs; None where one of them has no such figure."""
        values = self._values(read)
        return mean(values) if values else None

    def spread(self, read: Read) -> float | None:
        """The standard deviation over the runs; None for a single one."""
        values = self._values(read)
        return stdev(values) if len(values) > 1 else None

    @property
    def miou(self) -> float:
        """That by which settings are ranked: single scale, no CRF; NaN if not evaluated."""
        value = self.mean(miou_in("single"))
        return math.nan if value is None else value

    def interval(self, mode: str = "single") -> Interval | None:
        """Where the mean mIoU of a mode lies, by the images."""
        if any(mode not in run.modes for run in self.runs):
            return None
        if len(self.runs) == 1:
            return self.evaluation.modes[mode].interval
        return miou_interval(side_by_side([self], mode))

    def iou(self, mode: str, name: str) -> float | None:
        """The mean IoU of a class; None where it is absent or the mode was not scored."""
        return self.mean(lambda run: run.modes[mode].iou.get(name) if mode in run.modes else None)

    def band(self, mode: str) -> NDArray[np.float64]:
        """The mean mIoU in the bands around the borders, for each width."""
        return np.mean([band_mious(run.tally.trimap[mode]) for run in self.runs], axis=0)

    def band_ious(self, mode: str, width: int) -> NDArray[np.float64]:
        """The mean IoU of each class in the band of one width; NaN where a class is not in it."""
        place = self.evaluation.tally.trimap_widths.index(width)
        return np.mean(
            [class_ious(run.tally.trimap[mode][..., place]) for run in self.runs], axis=0
        )

    def confusion(self, mode: str = "single") -> NDArray[np.int64]:
        """Pixels of all runs, rows = truth, columns = prediction."""
        return np.sum([run.confusion(mode) for run in self.runs], axis=0, dtype=np.int64)

    def _values(self, read: Read) -> list[float]:
        values = [read(run) for run in self.runs]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else []


@dataclass(frozen=True)
class Study:
    """What the report compares."""

    #: Every setting in the order of the variants, evaluated or not.
    groups: list[Group]
    #: Those that were scored on the same images and classes, most of them.
    compared: list[Group]

    @property
    def variants(self) -> list[Variant]:
        """All of them."""
        return list(chain.from_iterable(group.variants for group in self.groups))

    @property
    def elsewhere(self) -> list[Variant]:
        """Evaluated on other images or classes, so not compared."""
        return [group.first for group in self.groups if group.runs and group not in self.compared]

    @property
    def repeated(self) -> list[Group]:
        """The settings that were trained with several seeds."""
        return [group for group in self.compared if len(group.runs) > 1]

    @property
    def spread(self) -> float | None:
        """The standard deviation of mIoU over seeds, pooled over the settings run repeatedly."""
        return pooled_spread(self.compared)


@dataclass(frozen=True)
class Difference:
    """Points of mIoU between two settings, and how far to trust them."""

    points: float
    #: By the images, paired.
    interval: Interval | None = None
    #: By the seeds: the standard deviation of the difference of two runs.
    spread: float | None = None

    @property
    def doubts(self) -> list[str]:
        """Why it may be chance, in words; none where nothing speaks for that."""
        found = []
        if self.points and self.spread is not None and abs(self.points) < self.spread:
            found.append("smaller than the spread over seeds")
        if self.points and self.interval is not None and self.interval.holds(0.0):
            found.append("smaller than its uncertainty over images")
        return found


def _common(names: Sequence[str]) -> str:
    """What all names begin with, up to a hyphen: "v3_table2-" of a table's rows."""
    parted = [name.partition("-") for name in names]
    heads, tails = {head for head, _, _ in parted}, [tail for _, _, tail in parted]
    return f"{heads.pop()}-" if len(heads) == 1 < len(names) and all(tails) else ""


def study_of(variants: Sequence[Variant]) -> Study:
    """Group the variants, and find those that can be compared."""
    groups = _grouped(variants)
    kinds: dict[Any, list[Group]] = {}
    for group in groups:
        if group.runs:
            kinds.setdefault(group.evaluation.protocol, []).append(group)
    largest = max(kinds.values(), key=lambda found: sum(len(g.runs) for g in found), default=[])
    typical = pooled_spread(largest)
    common = _common([group.name for group in groups])
    lent = {id(group): replace(group, borrowed=typical, common=common) for group in groups}
    return Study([lent[id(group)] for group in groups], [lent[id(group)] for group in largest])


def difference(before: Group, after: Group, mode: str = "single") -> Difference | None:
    """The mean mIoU of `after` minus that of `before`; None where one has no such mode."""
    means = before.mean(miou_in(mode)), after.mean(miou_in(mode))
    if means[0] is None or means[1] is None:
        return None
    spreads = [_spread(group, mode) for group in (before, after)]
    known = [spread for spread in spreads if spread is not None]
    return Difference(
        points=means[1] - means[0],
        interval=difference_interval(side_by_side([after], mode), side_by_side([before], mode)),
        spread=math.hypot(*known) if len(known) == 2 else None,
    )


def _spread(group: Group, mode: str) -> float | None:
    own = group.spread(miou_in(mode))
    return group.borrowed if own is None and mode == "single" else own


def side_by_side(groups: Sequence[Group], mode: str) -> NDArray[np.int32]:
    """The counts by image of several runs, as if their classes were those of one.

    All runs are of the same images, so the same classes are present in any draw of them: the mean
    over all these classes is the mean of the runs' mIoU. Each group weighs the same.

    Returns:
        N x 3 x (runs * C), as `bootstrap.ImageCounts`.
    """
    most = math.lcm(*(len(group.runs) for group in groups))
    counts = [
        np.asarray(run.tally.per_image[mode])
        for group in groups
        for run in group.runs
        for _ in range(most // len(group.runs))
    ]
    return np.concatenate(counts, axis=2)


def pooled_spread(groups: Sequence[Group]) -> float | None:
    """The standard deviation of mIoU over seeds, over all groups that have several."""
    repeated = [(len(group.runs) - 1, group.spread(miou_in("single"))) for group in groups]
    squares = [(weight, spread**2) for weight, spread in repeated if spread is not None]
    if not squares:
        return None
    return math.sqrt(
        sum(weight * square for weight, square in squares) / sum(weight for weight, _ in squares)
    )


def _grouped(variants: Sequence[Variant]) -> list[Group]:
    found: list[list[Variant]] = []
    for variant in variants:
        for members in found:
            if _same_but_seed(members, variant):
                members.append(variant)
                break
        else:
            found.append([variant])
    names: set[str] = {members[0].name for members in found if len(members) == 1}
    groups = []
    for members in found:
        name = members[0].name if len(members) == 1 else _name(members, names)
        names.add(name)
        groups.append(Group(name, tuple(members)))
    return groups


def _same_but_seed(members: Sequence[Variant], variant: Variant) -> bool:
    kind = _kind(variant)
    seeds = {member.config.seed for member in members if member.config is not None}
    return (
        kind is not None
        and variant.config is not None
        and variant.config.seed not in seeds
        and kind == _kind(members[0])
    )


def _kind(variant: Variant) -> Any:
    """All that decides a figure but the seed; None for what is not evaluated."""
    config, evaluation = variant.config, variant.evaluation
    if config is None or evaluation is None:
        return None
    # What a search found for the CRF belongs to the run, like its weights.
    aside = {"crf"} if variant.search else set()
    settings = {key: value for key, value in evaluation.settings.items() if key not in aside}
    return config.model, config.train, evaluation.protocol, settings


def _name(members: Sequence[Variant], taken: set[str]) -> str:
    """The variants' name without the seed; the first one's where they share none."""
    bare = {_without_seed(member) for member in members}
    name = bare.pop()
    return members[0].name if bare or name in taken else name


def _without_seed(variant: Variant) -> str:
    seed = variant.config.seed if variant.config else 0
    return re.sub(rf"[-_.](?:seed|s)[-_.=]?{seed}(?=$|[-_.])", "", variant.name)
