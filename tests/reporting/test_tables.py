import pytest
from runs_tree import CLASSES, NAMES, plant

from pipeline.reporting.compare import evaluation_of
from pipeline.reporting.load import Variant, load_variants
from pipeline.reporting.tables import (
    classes_table,
    confusion_table,
    runs_table,
    settings_table,
)
from pipeline.reporting.words import DASH


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> list[Variant]:
    return load_variants(NAMES, plant(tmp_path_factory.mktemp("tree")).runs)


def test_an_absent_class_has_a_dash_and_no_colour(variants: list[Variant]) -> None:
    rows = {row[0].text: row[1:] for row in classes_table(variants).rows}
    assert list(rows) == [*CLASSES, "mean"]
    assert {(cell.text, cell.heat, cell.note) for cell in rows["ghost"]} == {(DASH, None, "")}
    assert all(cell.heat == cell.value for cell in rows["ring"])


def test_rows_of_the_confusions_are_shares(variants: list[Variant]) -> None:
    rows = confusion_table(evaluation_of(variants[0])).rows
    for row in rows[:-1]:
        assert sum(float(cell.value or 0) for cell in row[1:]) == pytest.approx(100)
    assert {cell.text for cell in rows[-1][1:]} == {DASH}


def test_settings_that_agree_stand_once_and_others_name_their_variants(
    variants: list[Variant],
) -> None:
    values = {row[0].text: row[1].text for row in settings_table(variants).rows}
    assert values["train.iterations"] == "600"
    assert values["evaluate.scales"] == "[0.5, 1.0, 1.5]"
    assert values["crf.w1"] == "4.0"
    assert values["version of torch"] == "2.9.0"
    first = variants[0]
    assert first.config is not None
    first.config.seed = 3
    values = {row[0].text: row[1].text for row in settings_table(variants[:2]).rows}
    assert values["seed"] == "3 (v3-os16); 0 (v3-os8)"
    first.config.seed = 0


def test_runs_can_be_found_again(variants: list[Variant]) -> None:
    row = [cell.text for cell in runs_table(variants).rows[0]]
    assert row == ["v3-os16", "evaluated", "6 min 12 s", "cpu", "sig-v3-os16", "v3-os16-0123",
                   "d1d1d1d1d1d1", "network 12 s, crf 1 min 21 s"]  # fmt: skip
