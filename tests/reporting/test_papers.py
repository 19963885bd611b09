"""Our figures beside the papers', on small evaluations made by hand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config
from pipeline.evaluation.tally import Tally
from pipeline.reporting.load import Cost, Evaluation, Scores, Validation, Variant
from pipeline.reporting.papers import Comparison, comparisons, load_papers, row_of
from pipeline.reporting.words import DASH, MINUS

VOC = "pascal_voc_2012_sbd"


def variant(
    *overrides: str,
    dataset: str = VOC,
    split: str = "val",
    size: int = 513,
    tally: Tally | None = None,
    **mious: float,
) -> Variant:
    """A run of `overrides` that scored `mious`, mode -> mIoU; not evaluated where none is given."""
    config = Config(dataset=dataset, overrides=list(overrides))
    history = [Validation(1, 1.0, 50.0)]
    if not mious:
        return Variant(" ".join(overrides), config, history=history)
    evaluation = Evaluation(
        dataset=dataset,
        split=split,
        ids=["one"],
        held_apart=0,
        classes=["background", "thing"],
        palette=[(0, 0, 0), (255, 0, 0)],
        modes={mode: Scores(miou, None, None, None, None, {}) for mode, miou in mious.items()},
        cost=Cost(params_m=20.0, gmacs=80.02, size=size),
        seconds={},
        settings={},
        tally=tally or Tally(2, ["single"]),
        labels=Path("labels"),
    )
    return Variant(" ".join(overrides), config, evaluation, history)


def lines(comparison: Comparison) -> Mapping[tuple[str, str], dict[str, str]]:
    """(row, what) -> column -> text, small print in brackets."""
    names = [column.name for column in comparison.table.columns]
    return {
        (cells[0].text, cells[1].text): {
            name: f"{cell.text} ({cell.note})" if cell.note else cell.text
            for name, cell in zip(names, cells, strict=True)
        }
        for cells in comparison.table.rows
    }


def test_every_figure_of_the_data_file_says_where_it_stands() -> None:
    for table in load_papers().values():
        assert table.source.startswith(("DeepLab v", "MobileNetV2"))
        assert table.place.startswith(("Table ", "section "))
        assert set(table.over.values()) <= set(table.rows)


def test_a_run_stands_beside_the_papers_row_with_the_difference() -> None:
    (found,) = comparisons(
        [
            variant("experiment=v1/large_fov", single=61.0, single_crf=68.14),
            variant("+experiment=v1/deeplab", "seed=1", single=60.3),
            variant("model=deeplab_v3", single=99.0),
        ]
    )
    assert found.title.startswith("DeepLab v1, arXiv 1412.7062, section 5: ")
    table = lines(found)
    crf = table["large_fov", "mIoU, CRF"]
    assert (crf["Paper"], crf["Ours"], crf["Difference"]) == ("67.64", "68.14", "+0.50")
    plain = table["large_fov", "mIoU"]
    assert (plain["Difference"], plain["Paper's step"], plain["Our step"]) == (
        *(f"{MINUS}1.25", "+2.45", "+0.70"),
    )


def test_rows_without_a_run_are_shown_as_not_run() -> None:
    (found,) = comparisons([variant("experiment=v3_table9/batch_4"),
                            variant("experiment=v3_table9/batch_8", single=70.0)])  # fmt: skip
    table = lines(found)
    assert table["batch_4", "mIoU"]["Ours"] == f"{DASH} (not evaluated)"
    assert table["batch_16", "mIoU"]["Ours"] == f"{DASH} (not run)"
    assert table["batch_16", "mIoU"]["Difference"] == DASH
    assert "Not run: 3 of 4 rows (batch_4, batch_12 and batch_16)." in found.note


def test_a_scaled_down_run_is_not_subtracted_but_its_steps_are() -> None:
    words = ["scale=small"]
    runs = [
        variant(f"experiment=v3_table9/batch_{size}", *words, dataset="shapes", split="test",
                single=miou)
        for size, miou in ((4, 10.0), (8, 12.5))
    ]  # fmt: skip
    (found,) = comparisons(runs)
    line = lines(found)["batch_8", "mIoU"]
    assert line["Ours"] == "12.50"
    assert "Ours: shapes, test; scale=small. Of other data or scaled down, only" in found.note
    assert (line["Difference"], line["Paper's step"], line["Our step"]) == (DASH, "+11.33", "+2.50")
    # Said of each row where not all have it.
    runs[0] = variant("experiment=v3_table9/batch_4", single=70.0)
    (found,) = comparisons(runs)
    assert lines(found)["batch_8", "mIoU"]["Ours"] == "12.50 (shapes, test; scale=small)"
    assert "Ours: " not in found.note


def test_another_data_set_is_not_subtracted_without_scale_either() -> None:
    (found,) = comparisons([variant("experiment=v3_table9/batch_4", dataset="own", single=60.0)])
    line = lines(found)["batch_4", "mIoU"]
    assert (line["Ours"], line["Difference"]) == ("60.00 (own, val)", DASH)


def test_a_changed_setting_is_named_beside_the_figure() -> None:
    (found,) = comparisons(
        [variant("experiment=v3_table9/batch_4", "train.iterations=9", single=60.0)]
    )
    assert lines(found)["batch_4", "mIoU"]["Ours"] == "60.00 (train.iterations=9)"


def test_seeds_of_a_row_are_one_figure() -> None:
    runs = [variant("experiment=v3_table9/batch_4", f"seed={s}", single=60.0 + s) for s in (0, 1)]
    (found,) = comparisons(runs)
    assert lines(found)["batch_4", "mIoU"]["Ours"] == f"60.50 (± {0.5**0.5:.2f} over 2 runs)"


def test_multiply_adds_are_compared_at_the_papers_size_only() -> None:
    row = "experiment=v3plus_table3/train_16_eval_16"
    for size, ours, difference in ((513, "80.02", f"{MINUS}1.00"), (129, DASH, DASH)):
        (found,) = comparisons([variant(row, size=size, single=77.0)])
        line = lines(found)["train_16_eval_16", "GMACs"]
        assert (line["Ours"], line["Difference"]) == (ours, difference)


def test_the_band_around_the_borders_is_a_gain_over_the_row_without_decoder() -> None:
    truth = np.zeros((9, 9), np.uint8)
    truth[:, 4:] = 1
    runs = []
    for row, wrong in (("resnet101", 4), ("resnet101_decoder", 0)):
        tally = Tally(2, ["single"])
        guess = truth.copy()
        guess[:wrong, 4] = 0
        tally.add(truth, {"single": guess})
        runs.append(variant(f"experiment=v3plus_trimap/{row}", tally=tally, single=50.0))
    (found,) = comparisons(runs)
    line = found.table.rows[0]
    assert (line[0].text, line[1].note, line[2].text) == (
        *("resnet101_decoder", "over resnet101", "4.8"),
    )
    # Two columns of nine pixels touch the border; four pixels of one are taken for the other.
    assert line[3].value == pytest.approx(100 - 100 * (9 / 13 + 5 / 9) / 2)


def test_what_no_row_can_give_is_named_with_its_reason() -> None:
    (found,) = comparisons([variant("experiment=v3plus_table5/encoder_eval_16", single=79.0)])
    assert "JFT-300M, its images and the weights trained on it are Google's own" in found.note


def test_the_row_of_a_variant_is_read_from_its_overrides() -> None:
    assert row_of(variant("seed=1", "experiment=v1/7x7")) == ("v1", "7x7")
    assert row_of(variant("model=deeplab_v3")) is None
    assert row_of(Variant("never run")) is None
