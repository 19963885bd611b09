import pytest
from runs_tree import NAMES, PLANS, plant

from pipeline.reporting.compare import comparable, evaluation_of
from pipeline.reporting.load import MODES, Variant, load_variants
from pipeline.reporting.variants import measures_table, variants_note, variants_table
from pipeline.reporting.words import DASH, signed_span, span


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Variant]:
    return load_variants(NAMES, plant(tmp_path_factory.mktemp("tree")).runs)


def test_cells_hold_the_files_own_figures(variants: list[Variant]) -> None:
    table = variants_table(variants)
    names = [column.name for column in table.columns]
    assert all(len(row) == len(names) for row in table.rows)
    for plan, row, variant in zip(PLANS, table.rows, variants, strict=False):
        cells = dict(zip(names, row, strict=True))
        modes = evaluation_of(variant).modes
        assert cells["GMACs"].value == plan.gmacs
        assert cells["Peak MiB"].value == plan.peak_mib
        assert cells["mIoU"].value == modes["single"].miou
        assert cells["CRF gain"].value == modes["single_crf"].miou - modes["single"].miou


def test_the_best_is_the_highest_score_and_the_lowest_cost(variants: list[Variant]) -> None:
    table = variants_table(variants)
    names = [column.name for column in table.columns]
    best = {
        name: {row[0].text for row in table.rows if row[names.index(name)].best} for name in names
    }
    assert best["mIoU"] == {"v3-resnet50"}
    assert best["GMACs"] == best["ms/image"] == best["Params, M"] == {"v3-noatrous"}


def test_a_variant_that_was_not_run_has_dashes_and_says_so(variants: list[Variant]) -> None:
    row = variants_table(variants).rows[-1]
    assert (row[0].text, row[0].note) == ("missing", "not run")
    assert {cell.text for cell in row[1:]} == {DASH}


def test_rates_and_what_they_see_are_shown_as_they_are_built(variants: list[Variant]) -> None:
    notes = {row[0].text: row[4].note for row in variants_table(variants).rows}
    assert notes["v3-os16"] == "rates 6-12-18; sees 608 px and the image"
    assert notes["v3-os8"] == "rates 12-24-36; sees 608 px and the image"
    assert notes["v3-noatrous"] == "sees 32 px and the image"


def test_each_miou_and_gain_goes_with_its_interval(variants: list[Variant]) -> None:
    table = variants_table(variants)
    names = [column.name for column in table.columns]
    for row, variant in zip(table.rows, comparable(variants), strict=False):
        cells, evaluation = dict(zip(names, row, strict=True)), evaluation_of(variant)
        interval = evaluation.modes["single"].interval
        assert interval is not None and interval.holds(evaluation.modes["single"].miou)
        assert cells["mIoU"].note == span(interval) != ""
        gain = evaluation.crf_gain_interval
        assert cells["CRF gain"].note == signed_span(gain, 1) != ""
    assert "95\u00a0% confidence" in variants_note(variants)


def test_every_mode_has_all_its_measures(variants: list[Variant]) -> None:
    rows = measures_table(variants).rows
    assert len(rows) == len(PLANS) * len(MODES)
    first = evaluation_of(variants[0]).tally.matrices["single"]
    assert [cell.value for cell in rows[0][2:]] == [
        first.miou(), first.frequency_weighted_iou(), first.pixel_accuracy(),
        first.mean_accuracy(),
    ]  # fmt: skip
