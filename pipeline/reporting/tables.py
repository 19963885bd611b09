"""The report's tables as cells; the page and the Markdown print the same ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.reporting.compare import best_index, largest_confusions, row_shares
from pipeline.reporting.effects import Effect
from pipeline.reporting.groups import Difference, Group, Study, crf_gain
from pipeline.reporting.load import Variant
from pipeline.reporting.words import (
    DASH,
    number,
    signed,
    signed_span,
    times,
)

#: What a search of the CRF looks for -> its unit.
CRF_SETTINGS = {"w1": "a weight", "sigma_alpha": "pixels", "sigma_beta": "levels of 0..255"}


@dataclass(frozen=True)
class Cell:
    """One figure or word; `value` is what it is sorted by, unrounded."""

    text: str
    value: float | str | None = None
    best: bool = False
    #: Small print below or beside.
    note: str = ""
    #: -100..100: how strongly the cell is coloured, below 0 in the other colour.
    heat: float | None = None


@dataclass(frozen=True)
class Column:
    """A column's head; `hint` says more."""

    name: str
    hint: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells; each row's first cell is its head."""

    columns: list[Column]
    rows: list[list[Cell]] = field(default_factory=list)
    #: Stays below, however the rows are sorted.
    foot: list[Cell] = field(default_factory=list)


def number_cell(value: float | None, best: bool = False, note: str = "") -> Cell:
    """A figure; a dash where there is none."""
    if value is not None and math.isnan(value):
        value = None
    return Cell(number(value), value, best, note)


def effects_table(effects: Sequence[Effect]) -> Table:
    """One row a change of one setting: what it buys on average over its pairs, and costs."""
    columns = [
        Column("Setting", numeric=False),
        Column("Change", numeric=False),
        Column("mIoU", "points, single scale, no CRF: the mean over the pairs"),
        Column("± seeds", "standard deviation over seeds of such a difference"),
        Column("with CRF", "points of mIoU, single scale and CRF"),
        Column("GMACs", "after divided by before"),
        Column("ms/image", "after divided by before"),
        Column("Pairs", "of settings that differ in this, and how far apart they are"),
        Column("May be chance", "why, if so", numeric=False),
    ]
    return Table(columns, [_effect(effect) for effect in effects])


def _effect(effect: Effect) -> list[Cell]:
    points = [change.miou.points for change in effect.changes]
    apart = f"{signed(min(points))} to {signed(max(points))}" if len(points) > 1 else ""
    besides = f"besides: {'; '.join(effect.besides)}" if effect.besides else ""
    return [
        Cell(effect.setting, effect.setting),
        Cell(effect.said, effect.said, note=besides),
        *_difference(effect.miou),
        Cell(signed(effect.miou_crf), effect.miou_crf),
        Cell(times(effect.gmacs), effect.gmacs),
        Cell(times(effect.milliseconds), effect.milliseconds),
        Cell(str(len(points)), len(points), note=apart),
        _chance(effect.miou),
    ]


def changes_table(effects: Sequence[Effect]) -> Table:
    """One row a pair behind the effects; none where every effect is a single pair."""
    columns = [
        Column("Setting", numeric=False),
        Column("Change", numeric=False),
        Column("From", numeric=False),
        Column("To", numeric=False),
        Column("mIoU", "points, single scale, no CRF"),
        Column("± seeds", "standard deviation over seeds of the difference"),
        Column("with CRF", "points of mIoU, single scale and CRF"),
        Column("GMACs", "after divided by before"),
        Column("ms/image", "after divided by before"),
        Column("May be chance", "why, if so", numeric=False),
    ]
    if all(len(effect.changes) == 1 for effect in effects):
        return Table(columns)
    rows = [
        [
            Cell(change.setting, change.setting),
            Cell(effect.said, effect.said, note="; ".join(change.besides)),
            Cell(change.before.name, change.before.name),
            Cell(change.after.name, change.after.name),
            *_difference(change.miou),
            Cell(signed(change.miou_crf), change.miou_crf),
            Cell(times(change.gmacs), change.gmacs),
            Cell(times(change.milliseconds), change.milliseconds),
            _chance(change.miou),
        ]
        for effect in effects
        for change in effect.changes
    ]
    return Table(columns, rows)


def _difference(found: Difference) -> list[Cell]:
    return [
        Cell(signed(found.points), found.points, note=signed_span(found.interval)),
        Cell(number(found.spread), found.spread),
    ]


def _chance(found: Difference) -> Cell:
    """What speaks for chance; one seed cannot say."""
    known = "no" if found.spread is not None else "not by the images; one seed"
    said = "; ".join(found.doubts) or known
    return Cell(said, said)


def classes_table(study: Study) -> Table:
    """IoU of every class, single scale, no CRF; the mean is the last row."""
    if not study.compared:
        return Table([])
    columns = [Column("Class", numeric=False), *(Column(g.label) for g in study.compared)]
    rows = [
        [Cell(name, name), *_heated([group.iou("single", name) for group in study.compared])]
        for name in study.compared[0].evaluation.classes
    ]
    mean = _heated([group.miou for group in study.compared])
    return Table(columns, rows, foot=[Cell("mean", "mean"), *mean])


def _heated(values: Sequence[float | None]) -> list[Cell]:
    best = best_index(values)
    return [
        Cell(number(value), value, index in best, heat=value) for index, value in enumerate(values)
    ]


def gains_table(study: Study) -> Table:
    """What the CRF adds to each class's IoU; in small print the same in a narrow band."""
    groups = [group for group in study.compared if group.mean(crf_gain) is not None]
    if not groups:
        return Table([])
    classes, width = groups[0].evaluation.classes, narrow_band(groups[0])
    columns = [Column("Class", numeric=False), *(Column(group.label) for group in groups)]
    rows = [[Cell(name, name)] for name in classes]
    foot = [Cell("mean", "mean")]
    for group in groups:
        inside = group.band_ious("single_crf", width) - group.band_ious("single", width)
        for name, row, gain in zip(classes, rows, inside, strict=True):
            before, after = group.iou("single", name), group.iou("single_crf", name)
            known = None if before is None or after is None else after - before
            row.append(_gain(known, float(gain)))
        foot.append(_gain(group.mean(crf_gain), float(np.nanmean(inside))))
    return Table(columns, rows, foot=foot)


def _gain(value: float | None, inside: float) -> Cell:
    note = "" if value is None or math.isnan(inside) else signed(inside)
    # Ten points colour a cell fully.
    heat = None if value is None else max(-100.0, min(100.0, 10 * value))
    return Cell(signed(value), value, note=note, heat=heat)


def narrow_band(group: Group) -> int:
    """The width in pixels at which gains by class are said: that nearest to 5."""
    return min(group.evaluation.tally.trimap_widths, key=lambda width: abs(width - 5))


def confusion_table(group: Group, mode: str = "single") -> Table:
    """The confusion matrix in percent of each true class."""
    classes = group.evaluation.classes
    rows = []
    for name, shares in zip(classes, row_shares(group.confusion(mode)), strict=True):
        cells = [
            Cell(DASH)
            if math.isnan(share)
            else Cell("" if share < 0.5 else f"{share:.0f}", float(share), heat=float(share))
            for share in shares
        ]
        rows.append([Cell(name), *cells])
    return Table([Column("truth \\ prediction", numeric=False), *map(Column, classes)], rows)


def confusions_said(group: Group, mode: str = "single") -> list[str]:
    """The largest confusions in words."""
    found = largest_confusions(group.confusion(mode), group.evaluation.classes)
    return [
        f"{truth} taken for {prediction}: {number(share, 1)} %"
        for truth, prediction, share in found
    ]


def searches_table(variants: Sequence[Variant]) -> Table:
    """The CRF's settings that a search found for each variant, beside those it was given."""
    columns = [
        Column("Variant", numeric=False),
        *(
            Column(name, f"found; in small print as it was given, {unit}")
            for name, unit in CRF_SETTINGS.items()
        ),
        Column("without CRF", "mIoU, %, on the images of the search"),
        Column("as given", "mIoU, %, on the images of the search"),
        Column("as found", "mIoU, %, on the images of the search"),
        Column("Images", "that the search saw, and that no other figure counts"),
        Column("Best at the end of", "ranges that are worth widening", numeric=False),
    ]
    rows = []
    for variant in variants:
        if (search := variant.search) is None:
            continue
        found = [
            Cell(f"{search.found[key]:g}", search.found[key], note=f"given {search.given[key]:g}")
            for key in CRF_SETTINGS
        ]
        edges = ", ".join(f"search.{key}" for key in search.at_the_edge) or DASH
        rows.append(
            [
                Cell(variant.name, variant.name),
                *found,
                number_cell(search.miou_without),
                number_cell(search.miou_given),
                number_cell(search.miou_found),
                Cell(str(search.images), search.images),
                Cell(edges, edges),
            ]
        )
    return Table(columns, rows)
