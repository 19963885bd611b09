"""The report's tables as cells; the page and the Markdown print the same ones."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.reporting.compare import (
    Change,
    best_index,
    comparable,
    evaluation_of,
    largest_confusions,
    row_shares,
)
from pipeline.reporting.load import Evaluation, Variant
from pipeline.reporting.words import (
    DASH,
    duration,
    number,
    signed,
    signed_span,
    times,
)


@dataclass(frozen=True)
class Cell:
    """One figure or word; `value` is what it is sorted by, unrounded."""

    text: str
    value: float | str | None = None
    best: bool = False
    #: Small print below or beside.
    note: str = ""
    #: 0..100: how strongly the cell is coloured.
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


def number_cell(value: float | None, best: bool = False, note: str = "") -> Cell:
    """A figure; a dash where there is none."""
    if value is not None and math.isnan(value):
        value = None
    return Cell(number(value), value, best, note)


def changes_table(changes: Sequence[Change]) -> Table:
    """One row a pair that differs in a single setting."""
    columns = [
        Column("Change", numeric=False),
        Column("mIoU", "points, single scale, no CRF"),
        Column("with CRF", "points of mIoU, single scale and CRF"),
        Column("GMACs", "after divided by before"),
        Column("ms/image", "after divided by before"),
        Column("From", numeric=False),
        Column("To", numeric=False),
    ]
    rows = [
        [
            Cell(
                f"{change.setting}: {change.value_before} → {change.value_after}",
                note=f"besides: {'; '.join(change.besides)}" if change.besides else "",
            ),
            Cell(signed(change.miou), change.miou, note=signed_span(change.interval)),
            Cell(signed(change.miou_crf), change.miou_crf),
            Cell(times(change.gmacs), change.gmacs),
            Cell(times(change.milliseconds), change.milliseconds),
            Cell(change.before.name),
            Cell(change.after.name),
        ]
        for change in changes
    ]
    return Table(columns, rows)


def classes_table(variants: Sequence[Variant]) -> Table:
    """IoU of every class, single scale, with what the CRF adds in small print."""
    compared = comparable(variants)
    if not compared:
        return Table([])
    columns = [Column("Class", numeric=False), *(Column(v.name) for v in compared)]
    rows = []
    for name in evaluation_of(compared[0]).classes:
        values = [evaluation_of(v).modes["single"].iou.get(name) for v in compared]
        gains = [evaluation_of(v).crf_gain_of(name) for v in compared]
        rows.append([Cell(name, name), *_scored(values, gains)])
    values = [v.miou for v in compared]
    mean = _scored(values, [evaluation_of(v).crf_gain for v in compared])
    return Table(columns, [*rows, [Cell("mean", "mean"), *mean]])


def _scored(values: Sequence[float | None], gains: Sequence[float | None]) -> list[Cell]:
    best = best_index(values)
    return [
        Cell(number(value), value, i in best, "" if gain is None else signed(gain), value)
        for i, (value, gain) in enumerate(zip(values, gains, strict=True))
    ]


def confusion_table(evaluation: Evaluation, mode: str = "single") -> Table:
    """The confusion matrix in percent of each true class."""
    shares_of = row_shares(evaluation.confusion(mode))
    rows = []
    for name, shares in zip(evaluation.classes, shares_of, strict=True):
        cells = [
            Cell(DASH)
            if math.isnan(share)
            else Cell("" if share < 0.5 else f"{share:.0f}", float(share), heat=float(share))
            for share in shares
        ]
        rows.append([Cell(name), *cells])
    return Table(
        [Column("truth \\ prediction", numeric=False), *map(Column, evaluation.classes)], rows
    )


def confusions_said(evaluation: Evaluation, mode: str = "single") -> list[str]:
    """The largest confusions in words."""
    found = largest_confusions(evaluation.confusion(mode), evaluation.classes)
    return [
        f"{truth} taken for {prediction}: {number(share, 1)} %"
        for truth, prediction, share in found
    ]


def runs_table(variants: Sequence[Variant]) -> Table:
    """Where each variant came from, enough to find and repeat it."""
    names = [
        "Variant", "State", "Training", "Device", "Signature", "MLflow run", "Data", "Evaluation"
    ]  # fmt: skip
    columns = [Column(name, numeric=False) for name in names]
    rows = [
        [
            Cell(v.name),
            Cell(v.state),
            Cell(duration(v.run.get("seconds"))),
            Cell(_or_dash(v.run.get("device"))),
            Cell(_or_dash(v.run.get("signature"))),
            Cell(_or_dash(v.run.get("run_id"))[:12]),
            Cell(_or_dash(v.run.get("data_digest"))[:12]),
            Cell(_seconds(v.evaluation)),
        ]
        for v in variants
    ]
    return Table(columns, rows)


def _seconds(evaluation: Evaluation | None) -> str:
    """Where an evaluation's time went, in words."""
    parts = evaluation.seconds.items() if evaluation else ()
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts) or DASH


def settings_table(variants: Sequence[Variant]) -> Table:
    """Training, evaluation, CRF and versions: one value where all agree, else who has which."""
    parts: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for name, value in _settings(variant).items():
            parts.setdefault(name, {})[variant.name] = value
    rows = [[Cell(name), Cell(_agreed(values))] for name, values in parts.items()]
    return Table([Column("Setting", numeric=False), Column("Value", numeric=False)], rows)


def _settings(variant: Variant) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if variant.config is not None:
        found["seed"] = variant.config.seed
        found["weights"] = variant.config.model.weights or "random"
        found |= {f"train.{key}": value for key, value in asdict(variant.config.train).items()}
    if variant.evaluation is not None:
        for key, value in variant.evaluation.settings.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            found |= {f"{key}.{name}" if name else f"evaluate.{key}": v for name, v in inner}
        found["cost.device"] = variant.evaluation.cost.device
    versions = variant.run.get("versions")
    if isinstance(versions, dict):
        found |= {f"version of {name}": version for name, version in versions.items()}
    return found


def _agreed(values: dict[str, Any]) -> str:
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(_said(value), []).append(name)
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _or_dash(value: Any) -> str:
    return DASH if value is None else str(value)
