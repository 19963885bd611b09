import pytest

from pipeline.config.model import check_model
from pipeline.networks.catalogue import (
    DECODER,
    DIGITS,
    PAPERS_SIZE,
    RESNET_101,
    STRIDES,
    Published,
    Row,
    catalogue,
)
from pipeline.networks.overview import Entry, measured, sides


def test_a_printed_figure_knows_its_digits() -> None:
    assert [Published(text, "").digits for text in ("134.3", "58.16", "387")] == [1, 2, 0]
    assert Published("58.16", "").value == 58.16


def test_every_row_can_be_told_from_the_others_and_its_settings_are_allowed() -> None:
    rows = catalogue()
    for row in rows:
        check_model(row.config)
    told = [(row.paper, row.table, row.label, row.config.backbone, row.config.output_stride)
            for row in rows]  # fmt: skip
    assert len(set(told)) == len(told) == len(rows)


def test_every_backbone_and_network_of_the_project_is_in_it() -> None:
    configs = [row.config for row in catalogue()]
    assert {config.backbone for config in configs} == {
        "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "xception41", "xception65",
        "xception71", "timm/mobilenetv1_100", "mobilenet_v2",
    }  # fmt: skip
    assert {config.network for config in configs} == {
        "deeplab", "fcn", "unet", "linknet", "fpn", "pspnet",
    }  # fmt: skip
    assert {config.output_stride for config in configs} == {8, 16, 32, 64, 128, 256}


@pytest.fixture(scope="module")
def printed() -> list[Entry]:
    """The rows of which the papers print a figure, measured."""
    rows = [row for row in catalogue() if row.params or row.multiply_adds or row.field_of_view]
    return list(measured(rows, PAPERS_SIZE))


def test_a_printed_figure_comes_out_or_the_row_says_why_not(printed: list[Entry]) -> None:
    assert len(printed) > 30
    for entry in printed:
        said = f"{entry.row.table}, {entry.row.label}: {entry}"
        assert entry.agrees() != bool(entry.row.difference), said


def test_parameters_and_fields_of_view_all_come_out(printed: list[Entry]) -> None:
    for entry in printed:
        params, view = entry.row.params, entry.row.field_of_view
        if params is not None:
            assert f"{entry.params_m:.{params.digits}f}" == params.text
        if view is not None:
            assert str(entry.field_of_view) == view.text


def test_multiply_adds_are_never_far_off(printed: list[Entry]) -> None:
    offs = [abs(entry.off) for entry in printed if entry.off is not None]
    assert max(offs) < 0.06
    assert sum(off < 0.005 for off in offs) > len(offs) / 2


def twice_the_side(row: Row) -> int:
    """What the layers between the authors' place of a ResNet's stride and torchvision's cost more.

    Of the block before: the last 3x3 and 1x1; of the block after: the first 1x1.
    """
    total = 0
    for side in sides(row, PAPERS_SIZE):
        fine, stride, width = (side - 1) // 4 + 1, 4, 64
        while stride < row.config.output_stride:
            coarse = (fine - 1) // 2 + 1
            weights = 9 * width**2 + width * 4 * width + 4 * width * 2 * width
            total += weights * (fine**2 - coarse**2)
            fine, stride, width = coarse, 2 * stride, 2 * width
    return total * (2 if row.flip else 1)


def test_the_strides_place_is_what_a_resnet_costs_more(printed: list[Entry]) -> None:
    explained = [entry for entry in printed if entry.row.difference in (STRIDES, DECODER)]
    assert len(explained) == 7
    for entry in explained:
        assert entry.row.multiply_adds is not None
        wanted = entry.row.multiply_adds.value
        if entry.row.difference == DECODER:
            wanted = 81.02 + (297.92 - 276.18)
            assert f"{wanted:.2f}" in DECODER
        without = entry.gmacs_in_tensorflow - twice_the_side(entry.row) / 1e9
        assert without == pytest.approx(wanted, rel=0.005)
    assert RESNET_101.stem == "3x3"


def test_half_a_mobilenet_costs_what_the_release_says_to_the_digits_it_prints(
    printed: list[Entry],
) -> None:
    (entry,) = [entry for entry in printed if entry.row.difference == DIGITS]
    assert entry.gmacs_in_tensorflow == pytest.approx(0.875, rel=0.01)
    assert f"{1 - entry.gmacs_in_tensorflow / 0.88:.1%}".replace("%", " %") in DIGITS
    assert f"{1 - entry.gmacs_in_tensorflow / 0.875:.1%}".replace("%", " %") in DIGITS
