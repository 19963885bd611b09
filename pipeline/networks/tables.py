"""The catalogue's figures as tables: for a terminal, in Markdown, in JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.models.weights import WeightSet
from pipeline.networks.catalogue import Published
from pipeline.networks.overview import Entry

TITLES = {
    "v1": "DeepLab v1, arXiv 1412.7062",
    "v2": "DeepLab v2, arXiv 1606.00915",
    "v3": "DeepLab v3, arXiv 1706.05587",
    "v3+": "DeepLab v3+, arXiv 1802.02611",
    "MobileNetV2": "MobileNetV2 with DeepLab v3, arXiv 1801.04381",
    "others": "Others",
}
COLUMNS = ("Network", "Backbone", "OS", "Params, M", "paper", "GMACs", "as TF", "paper", "off, %",
           "FOV", "paper", "RF", "MiB", "note")  # fmt: skip
#: These are words, and lie to the left.
WORDS = ("Network", "Backbone", "Table", "note")
#: These are left out where all their cells are empty.
IF_ANY = ("paper", "off, %", "note")
WEIGHT_COLUMNS = ("model.weights", "Backbone", "From", "As stated there")


class Part(NamedTuple):
    """A paper's tables: the columns that have anything in them, and (table, cells) rows."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def legend(size: int) -> list[str]:
    """What the columns say, a line each."""
    return [
        f"GMACs: billions of multiply-adds of one {size} x {size} image; in rows MS and flip, of "
        "all scales, and both ways round.",
        "as TF: with TensorFlow's padding of atrous convolutions, which the papers' figures have "
        "in them; off: how much more that is than the paper's.",
        "FOV: field of view of the head, in pixels (v2, Table 1): from the first to the last tap "
        "of its widest branch, and the 32 that a tap stands for; image: it pools over the whole "
        "image besides.",
        "RF: receptive field of one score, in pixels: all that it depends on, through all layers; "
        "image: means over the whole image besides.",
        "MiB: peak memory of a forward pass of one image, of the largest in rows MS: float32, "
        "weights and the maps alive at the same time, without what libraries set aside.",
    ]


def notes(entries: Iterable[Entry]) -> list[str]:
    """The differences from printed figures, each once; a table's notes are numbers in this."""
    return list(dict.fromkeys(entry.row.difference for entry in entries if entry.row.difference))


def parts(entries: Sequence[Entry]) -> Iterator[Part]:
    """The rows paper by paper."""
    differences = notes(entries)
    for paper, group in groupby(entries, lambda entry: entry.row.paper):
        rows = [(entry.row.table, _cells(entry, differences)) for entry in group]
        kept = [
            number
            for number, name in enumerate(COLUMNS)
            if name not in IF_ANY or any(cells[number] for _, cells in rows)
        ]
        yield Part(
            TITLES[paper],
            [COLUMNS[number] for number in kept],
            [(table, [cells[number] for number in kept]) for table, cells in rows],
        )


def _cells(entry: Entry, differences: Sequence[str]) -> list[str]:
    row, off = entry.row, entry.off
    return [
        row.label,
        row.config.backbone,
        str(row.config.output_stride),
        f"{entry.params_m:.{row.params.digits if row.params else 2}f}",
        _printed(row.params),
        f"{entry.gmacs:.2f}",
        f"{entry.gmacs_in_tensorflow:.2f}",
        _printed(row.multiply_adds),
        "" if off is None else f"{100 * off:+.2f}",
        str(entry.field_of_view or ""),
        _printed(row.field_of_view),
        str(entry.receptive_field or ""),
        f"{entry.peak_mib:.0f}",
        f"[{differences.index(row.difference) + 1}]" if row.difference else "",
    ]


def _printed(figure: Published | None) -> str:
    return "" if figure is None else figure.text


def _weight_cells(one: WeightSet) -> list[str]:
    width = "" if one.width == 1.0 else f", width {one.width}"
    stem = "" if one.stem == "7x7" else f", stem {one.stem}"
    network = f", {one.settings['network']}" if "network" in one.settings else ""
    return [one.name, one.backbone + width + stem + network, one.publisher, one.metric]


def as_json(entries: Iterable[Entry], size: int) -> str:
    """All figures, unrounded, with every network's settings."""
    return json.dumps({"size": size, "networks": [entry.as_dict() for entry in entries]}, indent=2)


def as_markdown(entries: Sequence[Entry], weights: Sequence[WeightSet], size: int) -> str:
    """The tables of all papers, what their columns say, the differences and the weights."""
    lines = [f"- {line}" for line in legend(size)]
    for title, columns, rows in parts(entries):
        lines += ["", f"## {title}", "", *_markdown_head(["Table", *columns])]
        lines += [_markdown_row([table, *cells]) for table, cells in rows]
    if differences := notes(entries):
        lines += ["", "## Notes", ""]
        lines += [f"{number}. {text}" for number, text in enumerate(differences, start=1)]
    lines += ["", "## Known weights", "", *_markdown_head(WEIGHT_COLUMNS)]
    lines += [_markdown_row(_weight_cells(one)) for one in weights]
    return "\n".join([*lines, ""])


def _markdown_head(columns: Sequence[str]) -> list[str]:
    words = (*WORDS, *WEIGHT_COLUMNS)
    marks = ["---" if name in words else "---:" for name in columns]
    return [_markdown_row(columns), _markdown_row(marks)]


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def as_tables(entries: Sequence[Entry], weights: Sequence[WeightSet], size: int) -> RenderableType:
    """The same for a terminal."""
    shown: list[RenderableType] = []
    for title, columns, rows in parts(entries):
        table = _table(title)
        for name in columns:
            table.add_column(name, justify="left" if name in WORDS else "right")
        for name, group in groupby(rows, lambda row: row[0]):
            table.add_section()
            table.add_row(Text(name, style="italic"))
            for _, cells in group:
                table.add_row(*map(Text, cells))
        shown.append(table)
    shown += [Text(line) for line in legend(size)]
    shown += [Text(f"[{number}] {text}") for number, text in enumerate(notes(entries), start=1)]
    table = _table("Known weights")
    for name in WEIGHT_COLUMNS:
        table.add_column(name)
    for one in weights:
        table.add_row(*map(Text, _weight_cells(one)))
    return Group(*shown, table)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")
