"""The tables of the settings: what each is, costs and scores."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import atrous_rates
from pipeline.evaluation.bootstrap import LEVEL
from pipeline.networks.field_of_view import field_of_view
from pipeline.reporting.compare import best_index
from pipeline.reporting.effects import aspp_name, crf_change, on_off
from pipeline.reporting.groups import Group, Read, Study, crf_gain, miou_in
from pipeline.reporting.load import MODES
from pipeline.reporting.tables import Cell, Column, Table, number_cell
from pipeline.reporting.words import (
    DASH,
    NBSP,
    listing,
    number,
    plus_minus,
    signed,
    signed_span,
    span,
)

#: The order in which the modes are shown, and how.
SCORES = {
    "single": Column("mIoU", "%, single scale, no CRF"),
    "single_crf": Column("CRF", "mIoU, %, single scale and CRF"),
    "ms_flip": Column("MS + flip", "mIoU, %, scales and flip averaged"),
    "ms_flip_crf": Column("MS + flip + CRF", "mIoU, %, scales and flip averaged, then CRF"),
}


@dataclass(frozen=True)
class _Figure:
    """One column of figures: how each is read, said and ranked."""

    column: Column
    read: Callable[[Group], float | None]
    #: The figure and its spread over seeds, in words.
    say: Callable[[Group, float | None], str] = lambda _, value: number(value)
    note: Callable[[Group], str] = lambda _: ""
    highest: bool = True
    #: Whether the settings' figures were taken alike.
    ranked: bool = True

    def cells(self, study: Study) -> list[Cell]:
        """A cell for each setting; the best of those compared stands out."""
        values = [self.read(group) if group.runs else None for group in study.groups]
        rivals = [
            value if self.ranked and group in study.compared else None
            for value, group in zip(values, study.groups, strict=True)
        ]
        best = best_index(rivals, self.highest)
        return [
            Cell(
                self.say(group, value),
                value,
                index in best,
                self.note(group) if group.runs else "",
            )
            for index, (value, group) in enumerate(zip(values, study.groups, strict=True))
        ]


def variants_table(study: Study) -> Table:
    """One row a setting: what it scores, costs and is; those not run too.

    The figures come first: on a phone there is room for the name and two of them.
    """
    name = Column("Variant", "name in params.yaml, without the seed where there are several", False)
    identity = [
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
    figures = [*_scores(study), *_costs(study)]
    names = [Cell(group.name, group.name, note=_state(group)) for group in study.groups]
    by_column = [names, *(figure.cells(study) for figure in figures)]
    rows = [
        [*cells, *_identity(group)]
        for cells, group in zip(zip(*by_column, strict=True), study.groups, strict=True)
    ]
    return Table([name, *(figure.column for figure in figures), *identity], rows)


def _costs(study: Study) -> list[_Figure]:
    costs = [group.cost for group in study.compared]
    size = len({cost.size for cost in costs}) == 1
    time = size and len({cost.device for cost in costs}) == 1
    return [
        _cost(Column("GMACs", "billions of multiply-adds an image"), "gmacs", size),
        _cost(Column("ms/image", "milliseconds an image"), "ms_per_image", time),
        _cost(Column("Params, M", "millions of parameters"), "params_m", ranked=True),
        _cost(
            Column("Peak MiB", "memory of a forward pass: weights and maps alive at once, float32"),
            "peak_mib",
            size,
        ),
    ]


def _cost(column: Column, name: str, ranked: bool) -> _Figure:
    return _Figure(column, lambda group: getattr(group.cost, name), highest=False, ranked=ranked)


def _scored(study: Study) -> list[str]:
    """The modes; those over scales and flip only where a setting is scored over any."""
    runs = [group.evaluation.settings for group in study.groups if group.runs]
    alone = all(run.get("scales") == [1.0] and not run.get("flip") for run in runs)
    return [mode for mode in SCORES if not (runs and alone and mode.startswith("ms_flip"))]


def _scores(study: Study) -> list[_Figure]:
    gain = _Figure(
        Column("CRF gain", "points: CRF minus mIoU"),
        lambda group: group.mean(crf_gain),
        lambda group, value: _with_spread(group, crf_gain, signed(value)),
        _gain_interval,
    )
    return [*(_score(mode, SCORES[mode]) for mode in _scored(study)), gain]


def _score(mode: str, column: Column) -> _Figure:
    read = miou_in(mode)
    return _Figure(
        column,
        lambda group: group.mean(read),
        lambda group, value: plus_minus(value, group.spread(read)),
        lambda group: span(group.interval(mode)),
    )


def _with_spread(group: Group, read: Read, said: str) -> str:
    spread = group.spread(read)
    return said if spread is None else f"{said}{NBSP}±{NBSP}{number(spread)}"


def _gain_interval(group: Group) -> str:
    change = crf_change(group)
    return signed_span(change.miou.interval, 1) if change else ""


def variants_note(study: Study) -> str:
    """How the figures of the variants' table were taken."""
    costs = [group.cost for group in study.compared]
    if not costs:
        return ""
    sizes = sorted({f"{cost.size} x {cost.size} px" for cost in costs})
    devices = sorted({str(cost.device) for cost in costs})
    seeds = (
        " Variants that differ in nothing but the seed are one row: the mean ± the standard "
        "deviation over seeds."
        if study.repeated
        else ""
    )
    over = (
        ", MS + flip: averaged over scales and mirrored images"
        if "ms_flip" in _scored(study)
        else ""
    )
    common = study.compared[0].common
    short = f' Drawings and heads of columns leave out "{common}".' if common else ""
    return (
        f"mIoU in percent{over}. With each goes "
        f"where it lies with {LEVEL:.0f}{NBSP}% confidence, by a bootstrap over the images.{seeds} "
        f"GMACs, memory and ms for an image of {listing(sizes)}, ms on {listing(devices)}.{short}"
    )


def measures_table(study: Study) -> Table:
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
            Cell(MODES[mode], MODES[mode]),
            number_cell(scores.miou, note=span(scores.interval)),
            number_cell(scores.fw_iou),
            number_cell(scores.pixel_accuracy),
            number_cell(scores.mean_accuracy),
        ]
        for group in study.compared
        for variant, run in zip(group.variants, group.runs, strict=True)
        for mode in _scored(study)
        if (scores := run.modes.get(mode)) is not None
    ]
    return Table(columns, rows)


def _identity(group: Group) -> list[Cell]:
    """The cells that say what a setting is."""
    if group.config is None:
        return [Cell(DASH) for _ in range(5)]
    model = group.config.model
    rates = "-".join(map(str, atrous_rates(model)))
    notes = [f"rates {rates}"] if rates else []
    if (seen := field_of_view(model)) is not None:
        notes.append(f"sees {seen.pixels} px{' and the image' if seen.image else ''}")
    aspp = aspp_name(model).split(", rates")[0]
    architecture = str(group.first.architecture)
    return [
        Cell(architecture, architecture),
        Cell(model.backbone, model.backbone),
        Cell(str(model.output_stride), model.output_stride, note=_run_at(group)),
        Cell(aspp, aspp, note="; ".join(notes)),
        Cell(on_off(model.decoder), on_off(model.decoder)),
    ]


def _run_at(group: Group) -> str:
    """The output stride of the evaluation, where it is another than that of training."""
    stride = group.evaluation.settings.get("output_stride") if group.runs else None
    known = stride is not None and group.config and stride != group.config.model.output_stride
    return f"run at {stride}" if known else ""


def _state(group: Group) -> str:
    if not group.runs:
        return group.first.state
    return f"seeds {listing([str(seed) for seed in group.seeds])}" if len(group.runs) > 1 else ""
