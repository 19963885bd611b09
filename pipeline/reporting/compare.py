"""What the figures say: the best variant, what each single change bought, which costs pay off."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import ASPP_RATES, Config, ModelConfig
from pipeline.evaluation.bootstrap import Interval, difference_interval
from pipeline.evaluation.trimap import band_mious
from pipeline.reporting.load import Evaluation, Variant

ASPP_NAMES = {
    "none": "none",
    "fc6": "fc6",
    "summed": "v2, summed",
    "v3": "v3",
    "no_pooling": "v3 without image pooling",
    "no_atrous": "v3 without atrous branches",
}


def aspp_name(model: ModelConfig) -> str:
    """The ASPP in words, with its rates where they are not the paper's; a dash where none is."""
    if model.network != "deeplab":
        return "-"
    name = ASPP_NAMES[model.aspp]
    if model.rates is None or tuple(model.rates) == ASPP_RATES[model.aspp]:
        return name
    return f"{name}, rates {'-'.join(map(str, model.rates))}"


def on_off(value: bool) -> str:
    """A switch in words."""
    return "yes" if value else "no"


#: The settings whose single change is reported: words -> what is compared, as it is shown.
SETTINGS: dict[str, Callable[[ModelConfig], str]] = {
    "Output stride": lambda model: str(model.output_stride),
    "Backbone": lambda model: model.backbone,
    "ASPP": aspp_name,
    "Decoder": lambda model: on_off(model.decoder),
}
#: Fields of ModelConfig that SETTINGS speaks for.
_SPOKEN_FOR = ("backbone", "output_stride", "aspp", "rates", "decoder")


@dataclass(frozen=True)
class Change:
    """Two variants that differ in one setting, the cheaper first, and what the change bought."""

    setting: str
    before: Variant
    after: Variant
    value_before: str
    value_after: str
    #: Points of mIoU, single scale, without and with the CRF.
    miou: float
    miou_crf: float | None
    #: Where `miou` lies, by the images.
    interval: Interval | None
    #: After divided by before; None where one is unknown or they were measured differently.
    gmacs: float | None
    milliseconds: float | None
    #: Settings that differ besides, "key: before -> after".
    besides: list[str]


@dataclass(frozen=True)
class Headline:
    """The answer in figures."""

    best: Variant
    evaluation: Evaluation
    #: How many variants are compared.
    compared: int
    next: Variant | None
    lead: float | None
    #: Where the lead lies, by the images.
    lead_interval: Interval | None
    gmacs: float | None
    milliseconds: float | None
    #: The highest mIoU of all modes, and who has it: (variant, mode).
    highest: tuple[Variant, str]
    #: The least and the greatest gain by the CRF.
    crf_gains: tuple[float, float] | None
    #: Whose gain by the CRF may as well be none, by its interval.
    crf_uncertain: list[Variant]
    seeds: list[int]
    #: Evaluated on other data, so not compared.
    elsewhere: list[Variant]


def evaluation_of(variant: Variant) -> Evaluation:
    """The evaluation of a variant that is known to have one."""
    if variant.evaluation is None:
        raise ValueError(f"{variant.name} has no evaluation")
    return variant.evaluation


def comparable(variants: Sequence[Variant]) -> list[Variant]:
    """The largest group that was scored on the same images and classes; the first wins."""
    groups: dict[Any, list[Variant]] = {}
    for variant in variants:
        if variant.evaluation is not None:
            groups.setdefault(variant.evaluation.protocol, []).append(variant)
    return max(groups.values(), key=len, default=[])


def headline(variants: Sequence[Variant]) -> Headline | None:
    """Who has the highest mIoU, by how much, at what cost; None if nothing is evaluated."""
    compared = comparable(variants)
    if not compared:
        return None
    ranked = sorted(compared, key=lambda variant: -variant.miou)
    best, follower = ranked[0], ranked[1] if len(ranked) > 1 else None
    modes = [(variant, mode) for variant in ranked for mode in evaluation_of(variant).modes]
    gains = [gain for v in ranked if (gain := evaluation_of(v).crf_gain) is not None]
    return Headline(
        best=best,
        evaluation=evaluation_of(best),
        compared=len(compared),
        next=follower,
        lead=best.miou - follower.miou if follower else None,
        lead_interval=difference(follower, best) if follower else None,
        gmacs=cost_ratio(follower, best, "gmacs") if follower else None,
        milliseconds=cost_ratio(follower, best, "ms_per_image") if follower else None,
        highest=max(modes, key=lambda pair: evaluation_of(pair[0]).modes[pair[1]].miou),
        crf_gains=(min(gains), max(gains)) if gains else None,
        crf_uncertain=[v for v in ranked if _gains_by_chance(evaluation_of(v))],
        seeds=sorted({variant.config.seed for variant in compared if variant.config}),
        elsewhere=[v for v in variants if v.evaluation is not None and v not in compared],
    )


def difference(before: Variant, after: Variant) -> Interval | None:
    """Where the mIoU of `after` minus that of `before` lies, paired by image; single scale."""
    one, other = (evaluation_of(v).tally.per_image["single"] for v in (before, after))
    return difference_interval(other, one)


def _gains_by_chance(evaluation: Evaluation) -> bool:
    """Whether the CRF changes the figure by less than the images do."""
    interval = evaluation.crf_gain_interval
    return bool(evaluation.crf_gain) and interval is not None and interval.holds(0.0)


def border_curve(evaluation: Evaluation, mode: str) -> tuple[list[int], NDArray[np.float64]]:
    """Widths of the band around the borders in pixels, and the mIoU in each."""
    return list(evaluation.tally.trimap_widths), band_mious(evaluation.tally.trimap[mode])


def cost_ratio(before: Variant, after: Variant, name: str) -> float | None:
    """How many times more `after` costs; None unless both were measured alike.

    GMACs are stated at a size, milliseconds at a size on a device.
    """
    one, other = evaluation_of(before).cost, evaluation_of(after).cost
    if one.size != other.size or (name == "ms_per_image" and one.device != other.device):
        return None
    numbers = getattr(one, name), getattr(other, name)
    if None in numbers or not numbers[0]:
        return None
    return float(numbers[1] / numbers[0])


def single_changes(variants: Sequence[Variant]) -> list[Change]:
    """Every pair that differs in exactly one of SETTINGS and has the same seed.

    Listed by setting, in the order of SETTINGS; within one, by what it bought.
    """
    found = []
    for one, other in combinations(comparable(variants), 2):
        if one.config is None or other.config is None or one.config.seed != other.config.seed:
            continue
        models = one.config.model, other.config.model
        differing = [name for name, say in SETTINGS.items() if say(models[0]) != say(models[1])]
        if len(differing) == 1:
            before, after = _ordered(differing[0], one, other)
            found.append(_change(differing[0], before, after))
    order = list(SETTINGS)
    return sorted(found, key=lambda change: (order.index(change.setting), -change.miou))


def _ordered(setting: str, one: Variant, other: Variant) -> tuple[Variant, Variant]:
    """The plain value before the costly one, so that a change reads as something bought."""

    def rank(variant: Variant) -> tuple[float, float]:
        model, cost = _config(variant).model, evaluation_of(variant).cost
        own = {"Output stride": -model.output_stride, "Decoder": int(model.decoder)}
        return own.get(setting, 0), cost.gmacs if cost.gmacs is not None else math.inf

    return (one, other) if rank(one) <= rank(other) else (other, one)


def _change(setting: str, before: Variant, after: Variant) -> Change:
    say = SETTINGS[setting]
    crf = [evaluation_of(variant).modes.get("single_crf") for variant in (before, after)]
    return Change(
        setting=setting,
        before=before,
        after=after,
        value_before=say(_config(before).model),
        value_after=say(_config(after).model),
        miou=after.miou - before.miou,
        miou_crf=crf[1].miou - crf[0].miou if crf[0] and crf[1] else None,
        interval=difference(before, after),
        gmacs=cost_ratio(before, after, "gmacs"),
        milliseconds=cost_ratio(before, after, "ms_per_image"),
        besides=other_differences(before, after),
    )


def other_differences(before: Variant, after: Variant) -> list[str]:
    """Settings outside SETTINGS that may also explain a difference: model, training, scoring."""
    models = _config(before).model, _config(after).model
    silent = set(_SPOKEN_FOR)
    # Without a decoder its width means nothing, and v2's ASPP has no width.
    if not all(model.decoder for model in models):
        silent.add("low_level_channels")
    if any(model.aspp == "summed" for model in models):
        silent.add("aspp_channels")
    differing = [
        f"{section}.{key}: {value} → {getattr(getattr(_config(after), section), key)}"
        for section in ("model", "train")
        for key, value in vars(getattr(_config(before), section)).items()
        if key not in silent and value != getattr(getattr(_config(after), section), key)
    ]
    old, new = evaluation_of(before).settings, evaluation_of(after).settings
    return differing + [
        f"evaluate {key}: {old.get(key)} → {new.get(key)}"
        for key in sorted(set(old) | set(new))
        # The CRF's settings bear on the figures with the CRF only, which say so themselves.
        if key != "crf" and old.get(key) != new.get(key)
    ]


def _config(variant: Variant) -> Config:
    if variant.config is None:
        raise ValueError(f"{variant.name} has no configuration")
    return variant.config


def seed_spread(variants: Sequence[Variant]) -> tuple[float, list[str]] | None:
    """The widest range of mIoU among variants that differ in nothing but the seed.

    Returns:
        Points of mIoU and the names of those variants; None if no settings were run twice.
    """
    groups: dict[str, list[Variant]] = {}
    for variant in comparable(variants):
        if variant.config is not None:
            groups.setdefault(repr((variant.config.model, variant.config.train)), []).append(
                variant
            )
    spreads = [
        (max(v.miou for v in group) - min(v.miou for v in group), [v.name for v in group])
        for group in groups.values()
        if len({_config(v).seed for v in group}) > 1
    ]
    return max(spreads, default=None)


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
    """Which of the values are the best; all of those that tie, none if there is no choice."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
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
