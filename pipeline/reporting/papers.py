"""Our figures beside the papers', row by row of their tables (papers.yaml)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from pipeline.evaluation.trimap import band_mious
from pipeline.reporting.load import Evaluation, Variant
from pipeline.reporting.tables import Cell, Column, Table
from pipeline.reporting.words import listing, number, signed

FIGURES = Path(__file__).with_name("papers.yaml")
#: The side of the image at which the papers state multiply-adds.
COST_SIZE = 513
#: Overrides that leave a row what it is.
HARMLESS = ("experiment=", "seed=", "trainer.", "hydra.")


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper: what it is, and what is printed in it."""

    name: str
    source: str
    #: In the paper.
    place: str
    title: str
    dataset: str
    split: str
    #: Row -> measure -> figure.
    rows: Mapping[str, Mapping[str, float]]
    #: Row -> the row above which its `band` is stated.
    over: Mapping[str, str] = field(default_factory=dict)
    #: Figures that no row can give: (row, measure -> figure, why).
    elsewhere: Sequence[tuple[str, Mapping[str, float], str]] = ()


@dataclass(frozen=True)
class Comparison:
    """One table of a paper with our figures in it."""

    title: str
    note: str
    table: Table


@dataclass(frozen=True)
class _Ours:
    """The variants of one row: what they score, and what keeps them from being the paper's row."""

    variants: Sequence[Variant]
    #: Data and settings that are others than the paper's, in words.
    differs: str = ""
    #: Whether our figures and the paper's may be subtracted.
    comparable: bool = True

    def value(self, read: Callable[[Evaluation], float | None]) -> float | None:
        """The mean over the variants that were evaluated."""
        found = self._values(read)
        return mean(found) if found else None

    def state(self, read: Callable[[Evaluation], float | None]) -> str:
        """Why there is no figure, or of how many runs it is the mean, and how they spread."""
        if not any(variant.evaluation for variant in self.variants):
            return next((v.state for v in self.variants), "not run")
        found = self._values(read)
        return f"± {number(stdev(found))} over {len(found)} runs" if len(found) > 1 else ""

    def _values(self, read: Callable[[Evaluation], float | None]) -> list[float]:
        values = [read(variant.evaluation) for variant in self.variants if variant.evaluation]
        return [value for value in values if value is not None]


def _miou(mode: str) -> Callable[[Evaluation], float | None]:
    def read(evaluation: Evaluation) -> float | None:
        scores = evaluation.modes.get(mode)
        return scores.miou if scores else None

    return read


def _narrowest_band(evaluation: Evaluation) -> float | None:
    mious = band_mious(evaluation.tally.trimap["single"])
    return float(mious[0]) if len(mious) and not math.isnan(mious[0]) else None


#: Measure -> (how it is said, digits, how ours is read).
MEASURES: dict[str, tuple[str, int, Callable[[Evaluation], float | None]]] = {
    "miou": ("mIoU", 2, _miou("single")),
    "miou_crf": ("mIoU, CRF", 2, _miou("single_crf")),
    "miou_ms": ("mIoU, MS", 2, _miou("ms_flip")),
    "miou_ms_flip": ("mIoU, MS + flip", 2, _miou("ms_flip")),
    "miou_ms_crf": ("mIoU, MS, CRF", 2, _miou("ms_flip_crf")),
    "band": ("mIoU in the narrowest band, gain", 1, _narrowest_band),
    "params_m": ("params, M", 2, lambda e: e.cost.params_m),
    "gmacs": ("GMACs", 2, lambda e: e.cost.gmacs if e.cost.size == COST_SIZE else None),
}
COLUMNS = [
    Column("Row", "file in conf/experiment/", numeric=False),
    Column("What", numeric=False),
    Column("Paper", "as printed"),
    Column("Ours"),
    Column("Difference", "ours minus the paper's; a dash where the data or settings are others"),
    Column("Paper's step", "points above the first row of the table that has this figure"),
    Column("Our step", "the same between our runs"),
]


def load_papers(path: Path = FIGURES) -> dict[str, PaperTable]:
    """All tables by name, in the order of the papers."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: PaperTable(
            name=name,
            source=content["sources"][table["source"]],
            place=table["place"],
            title=table["title"],
            dataset=table["dataset"],
            split=table["split"],
            rows={row: _measures(figures) for row, figures in table["rows"].items()},
            over={row: known["over"] for row, known in table["rows"].items() if "over" in known},
            elsewhere=[
                (
                    entry["row"],
                    _measures({k: v for k, v in entry.items() if k not in ("row", "reason")}),
                    content["reasons"][entry["reason"]],
                )
                for entry in table.get("elsewhere", [])
            ],
        )
        for name, table in content["tables"].items()
    }


def _measures(figures: Mapping[str, Any]) -> dict[str, float]:
    return {measure: value for measure, value in figures.items() if measure != "over"}


def row_of(variant: Variant) -> tuple[str, str] | None:
    """The (table, row) that a variant runs, by its override `experiment=TABLE/ROW`; else None."""
    if variant.config is None:
        return None
    found = None
    for word in variant.config.overrides:
        key, _, value = word.lstrip("+").partition("=")
        if key == "experiment":
            table, _, row = value.partition("/")
            found = table, row
    return found


def comparisons(variants: Sequence[Variant]) -> list[Comparison]:
    """The papers' tables of which a variant is a row; rows without a variant are "not run"."""
    by_row: dict[tuple[str, str], list[Variant]] = {}
    for variant in variants:
        if (place := row_of(variant)) is not None:
            by_row.setdefault(place, []).append(variant)
    named = {table for table, _ in by_row}
    return [
        _comparison(
            table, {row: _ours(table, by_row.get((table.name, row), [])) for row in table.rows}
        )
        for table in load_papers().values()
        if table.name in named and any(table.rows.values())
    ]


def _ours(table: PaperTable, variants: Sequence[Variant]) -> _Ours:
    """Runs of one row; those with the same changes as the first one count."""
    differences = [_difference(table, variant) for variant in variants]
    alike = [v for v, d in zip(variants, differences, strict=True) if d == differences[0]]
    return _Ours(alike, *differences[0]) if differences else _Ours([])


def _difference(table: PaperTable, variant: Variant) -> tuple[str, bool]:
    """What a run has otherwise than the paper's row, and whether figures may be subtracted."""
    config = variant.config
    words = [word.lstrip("+") for word in config.overrides] if config else []
    changed = [word for word in words if not word.startswith(HARMLESS)]
    found = variant.evaluation
    elsewhere = found is not None and (found.dataset, found.split) != (table.dataset, table.split)
    if found is not None and elsewhere:
        changed = [f"{found.dataset}, {found.split}", *changed]
    scaled = any(word.startswith("scale=") for word in words)
    return "; ".join(changed), not (elsewhere or scaled)


def _comparison(table: PaperTable, ours: Mapping[str, _Ours]) -> Comparison:
    first: dict[str, str] = {}
    for row, figures in table.rows.items():
        for measure in figures:
            first.setdefault(measure, row)
    rows = [
        _line(table, ours, row, measure, first[measure])
        for row, figures in table.rows.items()
        for measure in figures
    ]
    return Comparison(
        title=f"{table.source}, {table.place}: {table.title}",
        note=" ".join(_notes(table, ours)),
        table=Table(COLUMNS, rows),
    )


def _line(
    table: PaperTable, ours: Mapping[str, _Ours], row: str, measure: str, first: str
) -> list[Cell]:
    said, digits, read = MEASURES[measure]
    paper, mine = table.rows[row][measure], ours[row]
    value = _value(table, ours, row, measure)
    off = value - paper if value is not None and mine.comparable else None
    steps: list[float | None] = [None, None]
    if row != first and measure.startswith("miou"):
        start = _value(table, ours, first, measure)
        alike = ours[first].differs == mine.differs
        steps[0] = paper - table.rows[first][measure]
        steps[1] = value - start if value is not None and start is not None and alike else None
    own = "" if mine.differs == _shared(ours) else mine.differs
    note = "; ".join(filter(None, [mine.state(read), own]))
    return [
        Cell(row, row),
        Cell(said, said, note=f"over {table.over[row]}" if measure == "band" else ""),
        Cell(number(paper, digits), paper),
        Cell(number(value, digits), value, note=note),
        Cell(signed(off, digits), off),
        *(Cell(signed(step, digits), step) for step in steps),
    ]


def _shared(ours: Mapping[str, _Ours]) -> str:
    """What the runs of several rows all have otherwise than the paper's, which is said once."""
    found = [mine.differs for mine in ours.values() if mine.variants]
    return found[0] if len(found) > 1 and len(set(found)) == 1 else ""


def _value(table: PaperTable, ours: Mapping[str, _Ours], row: str, measure: str) -> float | None:
    """Our figure; that of the band is a gain over another row."""
    read = MEASURES[measure][2]
    value = ours[row].value(read)
    if measure != "band":
        return value
    below = ours[table.over[row]].value(read)
    return value - below if value is not None and below is not None else None


def _notes(table: PaperTable, ours: Mapping[str, _Ours]) -> Iterator[str]:
    yield f"The paper: {table.dataset}, {table.split}."
    missing = [row for row, mine in ours.items() if not any(v.evaluation for v in mine.variants)]
    if missing:
        yield f"Not run: {len(missing)} of {len(ours)} rows ({listing(missing)})."
    if shared := _shared(ours):
        yield f"Ours: {shared}."
    if any(mine.variants and not mine.comparable for mine in ours.values()):
        yield (
            "Of other data or scaled down, only the steps between rows say something, and little "
            "where the runs are short."
        )
    for reason in dict.fromkeys(why for *_, why in table.elsewhere):
        names = [row for row, _, why in table.elsewhere if why == reason]
        yield f"Left out ({reason}): {listing(names)}."
