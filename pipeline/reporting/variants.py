"""The tables of the variants: what each is, costs and scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.config import atrous_rates
from pipeline.evaluation.bootstrap import LEVEL
from pipeline.networks.field_of_view import field_of_view
from pipeline.reporting.compare import (
    aspp_name,
    best_index,
    comparable,
    evaluation_of,
    on_off,
)
from pipeline.reporting.load import MODES, Evaluation, Variant
from pipeline.reporting.tables import Cell, Column, Table, number_cell
from pipeline.reporting.words import (
    DASH,
    NBSP,
    listing,
    number,
    signed,
    signed_span,
    span,
)

#: The order in which the modes are shown, and how.
SCORES = {
    "single": Column("mIoU", "%, single scale, no CRF"),
    "ms_flip": Column("MS + flip", "mIoU, %, scales and flip averaged"),
    "single_crf": Column("CRF", "mIoU, %, single scale and CRF"),
    "ms_flip_crf": Column("MS + flip + CRF", "mIoU, %, scales and flip averaged, then CRF"),
}


@dataclass(frozen=True)
class _Figure:
    """One column of figures: how each is read, said and ranked."""

    column: Column
    read: Callable[[Evaluation], float | None]
    note: Callable[[Evaluation], str] = lambda _: ""
    say: Callable[[float | None], str] = number
    highest: bool = True
    #: Whether the variants' figures were taken alike.
    ranked: bool = True

    def cells(self, variants: Sequence[Variant], compared: Sequence[Variant]) -> list[Cell]:
        """A cell a variant; the best of those compared stands out."""
        found = [variant.evaluation for variant in variants]
        values = [self.read(evaluation) if evaluation else None for evaluation in found]
        rivals = [
            value if self.ranked and variant in compared else None
            for value, variant in zip(values, variants, strict=True)
        ]
        best = best_index(rivals, self.highest)
        return [
            Cell(self.say(value), value, index in best, self.note(evaluation) if evaluation else "")
            for index, (value, evaluation) in enumerate(zip(values, found, strict=True))
        ]


def variants_table(variants: Sequence[Variant]) -> Table:
    """One row a variant: what it is, what it costs, what it scores."""
    compared = comparable(variants)
    columns = [
        Column("Variant", "name in params.yaml", numeric=False),
        Column("Network", "the paper's name for these settings", numeric=False),
        Column("Backbone", numeric=False),
        Column("OS", "output stride: input size divided by feature size"),
        Column(
            "ASPP",
            "atrous spatial pyramid pooling; its rates and field of view as built",
            numeric=False,
        ),
        Column("Decoder", "v3+'s decoder", numeric=False),
    ]
    rows = [_identity(variant) for variant in variants]
    for figure in (*_costs(compared), *_scores()):
        columns.append(figure.column)
        for row, cell in zip(rows, figure.cells(variants, compared), strict=True):
            row.append(cell)
    return Table(columns, rows)


def _costs(compared: Sequence[Variant]) -> list[_Figure]:
    costs = [evaluation_of(variant).cost for variant in compared]
    size = len({cost.size for cost in costs}) == 1
    time = size and len({cost.device for cost in costs}) == 1
    memory = Column("Peak MiB", "memory of a forward pass: weights and maps alive at once, float32")
    return [
        _Figure(
            Column("Params, M", "millions of parameters"),
            lambda evaluation: evaluation.cost.params_m,
            highest=False,
        ),
        _Figure(
            Column("GMACs", "billions of multiply-adds an image"),
            lambda evaluation: evaluation.cost.gmacs,
            highest=False,
            ranked=size,
        ),
        _Figure(memory, lambda evaluation: evaluation.cost.peak_mib, highest=False, ranked=size),
        _Figure(
            Column("ms/image", "milliseconds an image"),
            lambda evaluation: evaluation.cost.ms_per_image,
            highest=False,
            ranked=time,
        ),
    ]


def _scores() -> list[_Figure]:
    gain = _Figure(
        Column("CRF gain", "points: CRF minus mIoU"),
        lambda evaluation: evaluation.crf_gain,
        lambda evaluation: signed_span(evaluation.crf_gain_interval, 1),
        signed,
    )
    return [*(_score(mode, column) for mode, column in SCORES.items()), gain]


def _score(mode: str, column: Column) -> _Figure:
    def miou(evaluation: Evaluation) -> float | None:
        scores = evaluation.modes.get(mode)
        return scores.miou if scores else None

    def interval(evaluation: Evaluation) -> str:
        scores = evaluation.modes.get(mode)
        return span(scores.interval) if scores else ""

    return _Figure(column, miou, interval)


def variants_note(variants: Sequence[Variant]) -> str:
    """How the figures of the variants' table were taken."""
    costs = [evaluation_of(variant).cost for variant in comparable(variants)]
    if not costs:
        return ""
    sizes = sorted({f"{cost.size} x {cost.size} px" for cost in costs})
    devices = sorted({str(cost.device) for cost in costs})
    return (
        f"GMACs, memory and ms for an image of {listing(sizes)}, ms on {listing(devices)}; "
        "mIoU in percent, MS + flip: averaged over scales and mirrored images. With each goes "
        f"where it lies with {LEVEL:.0f}{NBSP}% confidence, by a bootstrap over the images."
    )


def measures_table(variants: Sequence[Variant]) -> Table:
    """Every measure of every mode, one row a variant and mode."""
    columns = [
        Column("Variant", numeric=False),
        Column("Mode", numeric=False),
        Column("mIoU", "%, the mean of the classes' IoU"),
        Column("Frequency-weighted IoU", "%, each class by its share of the pixels"),
        Column("Pixel accuracy", "%, of all pixels"),
        Column("Mean accuracy", "%, the mean over the classes of the pixels found"),
    ]
    rows = [
        [
            Cell(variant.name, variant.name),
            Cell(words, words),
            number_cell(scores.miou, note=span(scores.interval)),
            number_cell(scores.fw_iou),
            number_cell(scores.pixel_accuracy),
            number_cell(scores.mean_accuracy),
        ]
        for variant in comparable(variants)
        for mode, words in MODES.items()
        if (scores := evaluation_of(variant).modes.get(mode)) is not None
    ]
    return Table(columns, rows)


def _identity(variant: Variant) -> list[Cell]:
    """The cells that say what a variant is."""
    note = "" if variant.evaluation else variant.state
    name = Cell(variant.name, variant.name, note=note)
    if variant.config is None:
        return [name, *(Cell(DASH) for _ in range(5))]
    model = variant.config.model
    rates = "-".join(map(str, atrous_rates(model)))
    notes = [f"rates {rates}"] if rates else []
    if (seen := field_of_view(model)) is not None:
        notes.append(f"sees {seen.pixels} px{' and the image' if seen.image else ''}")
    aspp = aspp_name(model).split(", rates")[0]
    return [
        name,
        Cell(str(variant.architecture), variant.architecture),
        Cell(model.backbone, model.backbone),
        Cell(str(model.output_stride), model.output_stride),
        Cell(aspp, aspp, note="; ".join(notes)),
        Cell(on_off(model.decoder), on_off(model.decoder)),
    ]
