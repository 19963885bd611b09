import json
import sys
from dataclasses import replace

import pytest

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.network import build_model
from pipeline.networks.__main__ import main
from pipeline.networks.catalogue import PAPERS_SIZE, SCALES, Published, Row
from pipeline.networks.cost import count_multiply_adds, count_parameters, peak_memory
from pipeline.networks.field_of_view import Field
from pipeline.networks.overview import Entry, measured, rows_at, sides

CONFIG = ModelConfig(backbone="mobilenet_v2", output_stride=16)
ROW = Row("v3", "Table 0", "single", CONFIG, classes=4)
FLIPPED = replace(ROW, label="flipped", scales=SCALES, flip=True)


def test_figures_are_those_of_the_functions() -> None:
    (entry,) = measured([ROW], 65)
    model = build_model(CONFIG, 4)
    counted = count_multiply_adds(model, 65)
    assert entry.params_m == count_parameters(model) / 1e6
    assert (entry.gmacs, entry.gmacs_in_tensorflow) == (counted[0] / 1e9, counted[1] / 1e9)
    assert entry.peak_mib == peak_memory(model, 65) / 2**20
    assert entry.field_of_view == Field(608, image=True)
    assert entry.receptive_field == Field(1067, image=True)


def test_several_scales_and_flips_are_summed_and_the_largest_takes_the_memory() -> None:
    (entry,) = measured([FLIPPED], 65)
    model = build_model(CONFIG, 4)
    assert sides(FLIPPED, 65) == [33, 49, 65, 81, 97, 113]
    total = sum(count_multiply_adds(model, side).direct for side in sides(FLIPPED, 65))
    assert entry.gmacs == 2 * total / 1e9
    assert entry.peak_mib == peak_memory(model, 113) / 2**20


def test_scaled_sides_are_padded_as_at_test_time_and_a_single_one_is_not() -> None:
    assert sides(ROW, 500) == [500]
    assert sides(FLIPPED, 500) == [257, 385, 513, 625, 753, 881]


def entry_with(row: Row, **figures: float) -> Entry:
    values = {"params_m": 4.52, "gmacs": 5.36, "gmacs_in_tensorflow": 5.82, "peak_mib": 76.0}
    field = Field(608, image=True)
    return Entry(row, **values | figures, field_of_view=field, receptive_field=field)


@pytest.mark.parametrize(
    ("printed", "figures", "agrees"),
    [
        ({"params": "4.52"}, {"params_m": 4.5249}, True),
        ({"params": "4.52"}, {"params_m": 4.5251}, False),
        ({"multiply_adds": "5.8"}, {"gmacs_in_tensorflow": 5.857}, True),
        ({"multiply_adds": "5.8"}, {"gmacs_in_tensorflow": 5.859}, False),
        ({"field_of_view": "608"}, {}, True),
        ({"field_of_view": "224"}, {}, False),
        ({}, {}, True),
    ],
)
def test_a_row_agrees_to_the_digits_printed(
    printed: dict[str, str], figures: dict[str, float], agrees: bool
) -> None:
    params, billions, view = (
        Published(printed[name], "here") if name in printed else None
        for name in ("params", "multiply_adds", "field_of_view")
    )
    row = replace(ROW, params=params, multiply_adds=billions, field_of_view=view)
    assert entry_with(row, **figures).agrees() is agrees


def test_another_size_or_output_stride_has_no_printed_multiply_adds() -> None:
    printed = Published("1", "here")
    row = replace(ROW, params=printed, multiply_adds=printed, difference="why")
    assert rows_at([row], PAPERS_SIZE, None) == rows_at([row], PAPERS_SIZE, 16) == [row]
    for moved in (rows_at([row], 65, None), rows_at([row], PAPERS_SIZE, 8)):
        assert (moved[0].params, moved[0].multiply_adds, moved[0].difference) == (printed, None, "")


def test_rows_that_an_output_stride_makes_the_same_are_one_and_impossible_ones_left_out() -> None:
    printed = Published("1", "here")
    finer = replace(ROW, config=replace(CONFIG, output_stride=8), multiply_adds=printed)
    linknet = ModelConfig(network="linknet", backbone="resnet18", output_stride=32)
    rows = [ROW, finer, replace(ROW, config=linknet)]
    assert rows_at(rows, PAPERS_SIZE, None) == rows
    # The one that the paper has at this output stride keeps its figure.
    assert rows_at(rows, PAPERS_SIZE, 8) == [finer]


@pytest.mark.parametrize(
    ("size", "output_stride", "said"),
    [
        (32, None, "--size=32: must be 33 to 16385"),
        (10**9, None, "--size=1000000000"),
        (65, 7, "--output-stride=7: no network"),
    ],
)
def test_what_cannot_be_counted_is_refused(size: int, output_stride: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rows_at([ROW], size, output_stride)


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pipeline.networks", *words])
    main()


def test_the_command_prints_figures_that_can_be_read_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(monkeypatch, "--paper", "MobileNetV2", "--size", "33", "--output-stride", "16", "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["size"] == 33
    networks = {one["row"]["config"]["backbone"]: one for one in printed["networks"]}
    assert set(networks) == {"timm/mobilenetv1_100", "mobilenet_v2", "resnet101"}
    assert networks["resnet101"]["field_of_view"] == {"pixels": 608, "image": True}
    assert round(networks["resnet101"]["params_m"], 2) == 58.16
    assert networks["resnet101"]["row"]["params"]["source"] == "MobileNetV2, Table 7"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "5"], "--size=5"),
        (["--size", "large"], "argument --size: invalid int value: 'large'"),
        (["--paper", "v4"], "--paper=v4: did you mean"),
    ],
)
def test_the_command_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        called(monkeypatch, *words)
    assert "\n" not in str(error.value)
