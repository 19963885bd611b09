import pytest
from runs_tree import CLASSES, PLANS, plant, write_search

from pipeline.reporting.effects import effects
from pipeline.reporting.groups import Study
from pipeline.reporting.load import Variant, load_variant
from pipeline.reporting.tables import (
    changes_table,
    classes_table,
    confusion_table,
    effects_table,
    gains_table,
    searches_table,
)
from pipeline.reporting.words import DASH, signed


def test_an_absent_class_has_a_dash_and_no_colour(study: Study) -> None:
    table = classes_table(study)
    rows = {row[0].text: row[1:] for row in table.rows}
    assert list(rows) == CLASSES and table.foot[0].text == "mean"
    assert {(cell.text, cell.heat, cell.note) for cell in rows["ghost"]} == {(DASH, None, "")}
    assert all(cell.heat == cell.value for cell in rows["ring"])
    assert [cell.value for cell in table.foot[1:]] == [group.miou for group in study.compared]


def test_gains_by_class_are_with_the_crf_minus_without(study: Study) -> None:
    table = gains_table(study)
    row = next(row for row in table.rows if row[0].text == "square")
    for cell, group in zip(row[1:], study.compared, strict=True):
        modes = group.evaluation.modes
        before, after = (modes[mode].iou["square"] for mode in ("single", "single_crf"))
        assert before is not None and after is not None
        assert cell.value == pytest.approx(after - before)
        inside = [group.band_ious(mode, 5)[3] for mode in ("single_crf", "single")]
        assert cell.note == signed(float(inside[0] - inside[1]))
        assert cell.heat is not None and (cell.heat < 0) == (after < before)
    assert [cell.value for cell in table.foot[1:]] == [
        group.evaluation.crf_gain for group in study.compared
    ]


def test_effects_name_why_they_may_be_chance(seeds: Study) -> None:
    table = effects_table(effects(seeds))
    names = [column.name for column in table.columns]
    rows = {row[0].text: dict(zip(names, row, strict=True)) for row in table.rows}
    assert rows["Output stride"]["May be chance"].text == "no"
    assert "spread over seeds" in rows["Decoder"]["May be chance"].text
    assert rows["CRF"]["Pairs"].text == "3" and " to " in rows["CRF"]["Pairs"].note
    assert rows["Output stride"]["± seeds"].value is not None


def test_one_seed_does_not_rule_chance_out(study: Study) -> None:
    table = effects_table(effects(study))
    said = {row[0].text: row[-1].text for row in table.rows}
    assert said["Backbone"] == "not by the images; one seed"


def test_pairs_are_listed_where_there_are_several(seeds: Study) -> None:
    bought = effects(seeds)
    assert len(changes_table(bought).rows) == sum(len(effect.changes) for effect in bought)
    assert changes_table(bought[:1]).rows == []


def test_rows_of_the_confusions_are_shares(study: Study) -> None:
    rows = confusion_table(study.compared[0]).rows
    for row in rows[:-1]:
        assert sum(float(cell.value or 0) for cell in row[1:]) == pytest.approx(100)
    assert {cell.text for cell in rows[-1][1:]} == {DASH}


def test_found_settings_of_the_crf_stand_beside_those_given(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = plant(tmp_path_factory.mktemp("searched")).runs
    write_search(root / PLANS[0].name / "crf")
    variants: list[Variant] = [load_variant(plan.name, root / plan.name) for plan in PLANS[:2]]
    (row,) = searches_table(variants).rows
    assert [cell.text for cell in row] == [
        "v3-os16", "2", "30", "5", "50.00", "51.50", "52.25", "7", "search.w1",
    ]  # fmt: skip
    assert row[1].note == "given 4"
