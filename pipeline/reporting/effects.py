"""What each change of one setting bought, pair by pair and on average: the main effects."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import geometric_mean, mean
from typing import Any

from pipeline.config import ASPP_RATES, Config, ModelConfig
from pipeline.evaluation.bootstrap import difference_interval
from pipeline.reporting.compare import cost_ratio
from pipeline.reporting.groups import (
    Difference,
    Group,
    Study,
    crf_gain,
    difference,
    side_by_side,
)
from pipeline.reporting.words import written

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


#: The settings whose change is reported: words -> what is compared, as it is shown.
SETTINGS: dict[str, Callable[[ModelConfig], str]] = {
    "Output stride": lambda model: str(model.output_stride),
    "Backbone": lambda model: model.backbone,
    "ASPP": aspp_name,
    "Decoder": lambda model: on_off(model.decoder),
}
CRF = "CRF"
#: Fields of ModelConfig that SETTINGS speaks for.
_SPOKEN_FOR = ("backbone", "output_stride", "aspp", "rates", "decoder")


@dataclass(frozen=True)
class Change:
    """Two settings that differ in one thing, the plainer first, and what the change bought."""

    setting: str
    value_before: str
    value_after: str
    before: Group
    #: The same for the CRF, which is put on one network.
    after: Group
    #: Single scale, without the CRF; of the CRF itself, its gain.
    miou: Difference
    #: Points, single scale, both with the CRF.
    miou_crf: float | None = None
    #: After divided by before; None where one is unknown or they were measured differently.
    gmacs: float | None = None
    milliseconds: float | None = None
    #: Settings that differ besides, "key: before -> after".
    besides: Sequence[str] = ()


@dataclass(frozen=True)
class Effect:
    """The same change wherever the study has it, on average."""

    changes: Sequence[Change]
    miou: Difference

    @property
    def setting(self) -> str:
        """What is changed."""
        return self.changes[0].setting

    @property
    def said(self) -> str:
        """From what to what."""
        first = self.changes[0]
        return f"{first.value_before} → {first.value_after}"

    @property
    def miou_crf(self) -> float | None:
        """Points on average, with the CRF."""
        values = _known([change.miou_crf for change in self.changes])
        return mean(values) if values else None

    @property
    def gmacs(self) -> float | None:
        """How many times the multiply-adds, on average of the ratios."""
        values = _known([change.gmacs for change in self.changes])
        return geometric_mean(values) if values else None

    @property
    def milliseconds(self) -> float | None:
        """How many times the time an image, on average of the ratios."""
        values = _known([change.milliseconds for change in self.changes])
        return geometric_mean(values) if values else None

    @property
    def besides(self) -> list[str]:
        """What else differs in one of the pairs."""
        return list(dict.fromkeys(text for change in self.changes for text in change.besides))


def effects(study: Study) -> list[Effect]:
    """What each change of one setting buys on average over its pairs, and the CRF.

    Of pairs that differ in other keys besides only those count that differ in the fewest. Listed by
    setting, in the order of SETTINGS, the CRF last; within one, by what it bought.
    """
    alike: dict[tuple[str, str, str], list[Change]] = {}
    for change in [*single_changes(study), *crf_changes(study)]:
        key = change.setting, change.value_before, change.value_after
        alike.setdefault(key, []).append(change)
    clean = [_cleanest(changes) for changes in alike.values()]
    return sorted((Effect(changes, _average(changes)) for changes in clean), key=_place)


def _cleanest(changes: Sequence[Change]) -> list[Change]:
    fewest = min(len(change.besides) for change in changes)
    return [change for change in changes if len(change.besides) == fewest]


def _average(changes: Sequence[Change]) -> Difference:
    if len(changes) == 1:
        return changes[0].miou
    modes = ("single", "single_crf" if changes[0].setting == CRF else "single")
    before = side_by_side([change.before for change in changes], modes[0])
    after = side_by_side([change.after for change in changes], modes[1])
    spreads = _known([change.miou.spread for change in changes])
    return Difference(
        points=mean(change.miou.points for change in changes),
        interval=difference_interval(after, before),
        # How far one pair of runs lies from another pair of other seeds, not how far their mean
        # does: the pairs share runs.
        spread=math.sqrt(mean(spread**2 for spread in spreads)) if spreads else None,
    )


def single_changes(study: Study) -> list[Change]:
    """Every pair that differs in one of SETTINGS, or in one other key, and shares a seed."""
    pairs: dict[tuple[str, frozenset[str]], list[tuple[Group, Group]]] = {}
    for one, other in combinations(study.compared, 2):
        if one.config is None or other.config is None or not set(one.seeds) & set(other.seeds):
            continue
        models = one.config.model, other.config.model
        differing = [name for name, say in SETTINGS.items() if say(models[0]) != say(models[1])]
        others = _others(one, other)
        if len(differing) == 1 or (not differing and len(others) == 1):
            setting = differing[0] if differing else next(iter(others))
            values = frozenset(_values(setting, one, other))
            pairs.setdefault((setting, values), []).append((one, other))
    found = [
        _change(setting, *pair)
        for (setting, _), alike in pairs.items()
        for pair in _directed(setting, alike)
    ]
    return sorted(found, key=_place)


def _place(change: Change | Effect) -> tuple[int, str, float]:
    places = {setting: place for place, setting in enumerate(SETTINGS)} | {CRF: len(SETTINGS) + 1}
    other = "" if change.setting in places else change.setting
    return places.get(change.setting, len(SETTINGS)), other, -change.miou.points


def crf_changes(study: Study) -> list[Change]:
    """What the CRF adds to each network, at a single scale; the largest gain first."""
    found = [change for group in study.compared if (change := crf_change(group)) is not None]
    return sorted(found, key=lambda change: -change.miou.points)


def crf_change(group: Group) -> Change | None:
    """What the CRF adds to one network; None where it was scored without one."""
    gain = group.mean(crf_gain)
    if gain is None:
        return None
    with_crf, without = (side_by_side([group], mode) for mode in ("single_crf", "single"))
    trust = Difference(gain, difference_interval(with_crf, without), group.spread(crf_gain))
    return Change(CRF, "without", "with", group, group, trust)


def _change(setting: str, before: Group, after: Group) -> Change:
    values = _values(setting, before, after)
    others = _others(before, after)
    others.pop(setting, None)
    points = difference(before, after)
    if points is None:
        raise ValueError(f"{before.name} and {after.name} have no figure at a single scale")
    crf = difference(before, after, "single_crf")
    return Change(
        setting=setting,
        value_before=values[0],
        value_after=values[1],
        before=before,
        after=after,
        miou=points,
        miou_crf=crf.points if crf else None,
        gmacs=cost_ratio(before, after, "gmacs"),
        milliseconds=cost_ratio(before, after, "ms_per_image"),
        besides=[f"{key}: {written(old)} → {written(new)}" for key, (old, new) in others.items()],
    )


def _values(setting: str, one: Group, other: Group) -> tuple[str, str]:
    """What the setting is in both, in words."""
    if setting in SETTINGS:
        say = SETTINGS[setting]
        return say(_config(one).model), say(_config(other).model)
    before, after = _others(one, other)[setting]
    return written(before), written(after)


def _directed(setting: str, pairs: Sequence[tuple[Group, Group]]) -> list[tuple[Group, Group]]:
    """Pairs of the same two values, the plain one first, so that a change is something bought.

    Of two backbones and the like the cheaper on average is the plain one: all pairs go one way.
    """
    first = _values(setting, *pairs[0])[0]
    alike = [pair if _values(setting, *pair)[0] == first else pair[::-1] for pair in pairs]

    def rank(groups: Sequence[Group]) -> tuple[float, float]:
        model = _config(groups[0]).model
        own = {"Output stride": -model.output_stride, "Decoder": int(model.decoder)}
        gmacs = _known([group.cost.gmacs for group in groups])
        return own.get(setting, 0), mean(gmacs) if len(gmacs) == len(groups) else math.inf

    ones, others = zip(*alike, strict=True)
    return alike if rank(ones) <= rank(others) else [pair[::-1] for pair in alike]


def _others(before: Group, after: Group) -> dict[str, tuple[Any, Any]]:
    """Keys outside SETTINGS that may also explain a difference: model, training, scoring."""
    models = _config(before).model, _config(after).model
    silent = set(_SPOKEN_FOR)
    # Without a decoder its width means nothing, and v2's ASPP has no width.
    if not all(model.decoder for model in models):
        silent.add("low_level_channels")
    if any(model.aspp == "summed" for model in models):
        silent.add("aspp_channels")
    found = {}
    for section in ("model", "train"):
        old, new = (asdict(getattr(_config(group), section)) for group in (before, after))
        for key in old:
            if key not in silent and old[key] != new[key]:
                found[f"{section}.{key}"] = (old[key], new[key])
    old, new = before.evaluation.settings, after.evaluation.settings
    for key in sorted(set(old) | set(new)):
        # The CRF's settings bear on the figures with the CRF only, which say so themselves.
        if key != "crf" and old.get(key) != new.get(key):
            found[f"evaluate.{key}"] = (old.get(key), new.get(key))
    return found


def _config(group: Group) -> Config:
    if group.config is None:
        raise ValueError(f"{group.name} has no configuration")
    return group.config


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
