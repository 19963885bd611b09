import json
from dataclasses import replace

import pytest
from rich.console import Console

from pipeline.config import ModelConfig
from pipeline.models.weights import known_weights
from pipeline.networks.catalogue import Published, Row
from pipeline.networks.field_of_view import Field
from pipeline.networks.overview import Entry
from pipeline.networks.tables import as_json, as_markdown, as_tables, parts

SEEN = Field(608, image=True)
FIRST = Entry(
    Row("v3", "Table 1", "alpha", ModelConfig(backbone="resnet50")),
    39.05,
    71.25,
    75.5,
    SEEN,
    SEEN,
    99.6,
)
SECOND = replace(
    FIRST,
    row=replace(
        FIRST.row,
        paper="v3+",
        label="beta",
        params=Published("39.0", "here"),
        multiply_adds=Published("70", "here"),
        difference="because",
    ),
    receptive_field=None,
)
ENTRIES = [FIRST, SECOND, replace(SECOND, row=replace(SECOND.row, label="gamma"))]


def test_columns_that_a_paper_fills_with_nothing_are_left_out() -> None:
    v3, plus = parts(ENTRIES)
    assert v3.columns == ["Network", "Backbone", "OS", "Params, M", "GMACs", "as TF", "FOV", "RF",
                          "MiB"]  # fmt: skip
    assert v3.rows == [
        ("Table 1", ["alpha", "resnet50", "16", "39.05", "71.25", "75.50", "608, image",
                     "608, image", "100"]),
    ]  # fmt: skip
    assert [name for name in plus.columns if name not in v3.columns] == [
        "paper", "paper", "off, %", "note",
    ]  # fmt: skip


def test_a_printed_figure_stands_beside_ours_with_its_digits_and_the_note() -> None:
    cells = list(parts(ENTRIES))[1].rows[0][1]
    assert cells[3:9] == ["39.0", "39.0", "71.25", "75.50", "70", "+7.86"]
    assert cells[-3:] == ["", "100", "[1]"]


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_everything_is_said_once(form: str) -> None:
    if form == "markdown":
        text = as_markdown(ENTRIES, known_weights(), 65)
    else:
        console = Console(width=160)
        with console.capture() as capture:
            console.print(as_tables(ENTRIES, known_weights(), 65))
        text = capture.get()
    for once in ("alpha ", "beta ", "gamma ", "because", "65 x 65 image", "imagenet_caffe"):
        assert text.count(once) == 1, once
    for title in ("DeepLab v3, arXiv", "DeepLab v3+, arXiv", "Known weights"):
        assert text.count(title) == 1, title


def test_the_rows_of_a_markdown_table_are_as_wide_as_its_head() -> None:
    lines = as_markdown(ENTRIES, known_weights(), 65).splitlines()
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths[:3] == [11] * 3
    assert widths[3:7] == [15] * 4
    assert set(widths[7:]) == {5}


def test_json_holds_unrounded_figures_and_all_settings() -> None:
    content = json.loads(as_json(ENTRIES, 65))
    one, two, _ = content["networks"]
    assert content["size"] == 65
    assert one["gmacs"] == 71.25
    assert one["row"]["config"]["multi_grid"] is None
    assert one["receptive_field"] == {"pixels": 608, "image": True}
    assert two["receptive_field"] is None
    assert two["off"] == 75.5 / 70 - 1
    assert two["agrees"] is False
