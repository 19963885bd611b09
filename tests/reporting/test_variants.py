from dataclasses import replace

from runs_tree import PLANS

from pipeline.evaluation.bootstrap import difference_interval
from pipeline.reporting.groups import Study, miou_in, study_of
from pipeline.reporting.load import MODES, Variant
from pipeline.reporting.variants import measures_table, variants_note, variants_table
from pipeline.reporting.words import DASH, NBSP, plus_minus, signed_span, span


def test_seeds_are_one_row_of_mean_and_spread(seeds: Study) -> None:
    table = variants_table(seeds)
    names = [column.name for column in table.columns]
    assert [row[0].text for row in table.rows] == ["v3-os16", "v3-os8", "decoder"]
    row, group = table.rows[0], seeds.groups[0]
    assert row[0].note == "seeds 0, 1 and 2"
    cell = row[names.index("mIoU")]
    spread = group.spread(miou_in("single"))
    assert cell.value == group.miou and cell.text == plus_minus(group.miou, spread)
    assert cell.note == span(group.interval()) != ""
    assert NBSP + "±" in row[names.index("CRF gain")].text
    assert len(measures_table(seeds).rows) == 7 * len(MODES)
    assert "one row: the mean ± the standard deviation over seeds" in variants_note(seeds)


def test_cells_hold_the_files_own_figures(study: Study) -> None:
    table = variants_table(study)
    names = [column.name for column in table.columns]
    assert all(len(row) == len(names) for row in table.rows)
    for plan, row, group in zip(PLANS, table.rows, study.groups, strict=False):
        cells = dict(zip(names, row, strict=True))
        modes = group.evaluation.modes
        assert cells["GMACs"].value == plan.gmacs
        assert cells["Peak MiB"].value == plan.peak_mib
        assert cells["mIoU"].value == modes["single"].miou
        assert cells["CRF gain"].value == modes["single_crf"].miou - modes["single"].miou


def test_scales_and_flip_have_no_column_where_nobody_uses_them(variants: list[Variant]) -> None:
    alone = {"scales": [1.0], "flip": False}
    plain = [
        replace(v, evaluation=v.evaluation and replace(v.evaluation, settings=alone))
        for v in variants
    ]
    for some, shown in (([variants[0], *plain[1:]], True), (plain, False)):
        study = study_of(some)
        heads = [column.name for column in variants_table(study).columns]
        assert ("MS + flip" in heads, "MS + flip + CRF" in heads) == (shown, shown)
        assert ("mirrored" in variants_note(study)) == shown
        assert any("MS" in row[1].text for row in measures_table(study).rows) == shown
        assert "CRF" in heads


def test_the_best_is_the_highest_score_and_the_lowest_cost(study: Study) -> None:
    table = variants_table(study)
    names = [column.name for column in table.columns]
    best = {
        name: {row[0].text for row in table.rows if row[names.index(name)].best} for name in names
    }
    assert best["mIoU"] == {"v3-resnet50"}
    assert best["GMACs"] == best["ms/image"] == best["Params, M"] == {"v3-noatrous"}


def test_a_variant_that_was_not_run_has_dashes_and_says_so(study: Study) -> None:
    row = variants_table(study).rows[-1]
    assert (row[0].text, row[0].note) == ("missing", "not run")
    assert {cell.text for cell in row[1:]} == {DASH}


def test_rates_and_what_they_see_are_shown_as_they_are_built(study: Study) -> None:
    notes = {row[0].text: row[-2].note for row in variants_table(study).rows}
    assert notes["v3-os16"] == "rates 6-12-18; sees 608 px and the image"
    assert notes["v3-os8"] == "rates 12-24-36; sees 608 px and the image"
    assert notes["v3-noatrous"] == "sees 32 px and the image"


def test_another_output_stride_at_test_time_is_said(study: Study) -> None:
    first = study.groups[0].first
    assert first.evaluation is not None
    settings = first.evaluation.settings | {"output_stride": 8}
    moved = replace(first, evaluation=replace(first.evaluation, settings=settings))
    (row,) = variants_table(study_of([moved])).rows
    assert (row[-3].text, row[-3].note) == ("16", "run at 8")


def test_each_miou_and_gain_goes_with_its_interval(study: Study) -> None:
    table = variants_table(study)
    names = [column.name for column in table.columns]
    for row, group in zip(table.rows, study.compared, strict=False):
        cells, evaluation = dict(zip(names, row, strict=True)), group.evaluation
        interval = evaluation.modes["single"].interval
        assert interval is not None and interval.holds(evaluation.modes["single"].miou)
        assert cells["mIoU"].note == span(interval) != ""
        images = evaluation.tally.per_image
        gain = difference_interval(images["single_crf"], images["single"])
        assert cells["CRF gain"].note == signed_span(gain, 1) != ""
    assert "95\u00a0% confidence" in variants_note(study)
    assert "leave out" not in variants_note(study)
    rows = study_of([replace(v, name=f"v3_table2-{v.name}") for v in study.variants])
    assert 'heads of columns leave out "v3_table2-".' in variants_note(rows)


def test_every_mode_has_all_its_measures(study: Study) -> None:
    rows = measures_table(study).rows
    assert len(rows) == len(PLANS) * len(MODES)
    first = study.groups[0].evaluation.tally.matrices["single"]
    assert [cell.value for cell in rows[0][2:]] == [
        first.miou(), first.frequency_weighted_iou(), first.pixel_accuracy(),
        first.mean_accuracy(),
    ]  # fmt: skip
