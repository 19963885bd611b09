import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.evaluation.bootstrap import difference_interval, miou_interval
from pipeline.evaluation.confusion import read_csv
from pipeline.evaluation.figures import MODES, Cost, Figures
from pipeline.evaluation.tally import Tally, read_counts

#: Of ten pixels of the first class, how many are found in each image, by mode; the ten of the
#: second are found, the third class is absent.
HITS = {"single": (5, 4), "single_crf": (7, 7), "ms_flip": (6, 8), "ms_flip_crf": (9, 9)}


def tally(images: int = 2) -> Tally:
    counted = Tally(3, MODES)
    truth = np.repeat(np.array([[0], [1]], np.uint8), 10, axis=1)
    for image in range(images):
        labels = {mode: truth.copy() for mode in MODES}
        for mode, hits in HITS.items():
            labels[mode][0, hits[image] :] = 1
        counted.add(truth, labels)
    return counted


def first_iou(mode: str) -> float:
    return 100 * sum(HITS[mode]) / 20


def second_iou(mode: str) -> float:
    return 100 * 20 / (20 + 20 - sum(HITS[mode]))


@pytest.fixture
def figures() -> Figures:
    return Figures(
        dataset="shapes",
        split="test",
        classes=["background", "disc", "ring"],
        palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0]],
        ids=["a", "b"],
        tally=tally(),
        cost=Cost(
            params_m=4.5, gmacs=5.8, peak_mib=75.8, ms_per_image=31.0, size=513, device="cpu"
        ),
        evaluate=EvaluateConfig(scales=[0.75, 1.0], pad_to=513),
        crf=CrfConfig(w1=5.0),
        held_apart=3,
        seconds={"network": 1.5, "crf": 0.25},
    )


def test_files_hold_what_the_report_reads(figures: Figures, tmp_path: Path) -> None:
    figures.write(tmp_path)
    content = json.loads((tmp_path / "figures.json").read_text())
    assert set(content) == {
        "dataset", "split", "images", "held_apart", "void", "classes", "palette", "modes",
        "crf_gain_ci", "cost", "seconds", "settings",
    }  # fmt: skip
    assert (content["images"], content["held_apart"], content["void"]) == (2, 3, 255)
    assert set(content["modes"]) == set(MODES)
    for mode in content["modes"].values():
        assert set(mode) == {
            "miou", "miou_ci", "pixel_accuracy", "mean_accuracy", "fw_iou", "iou"
        }  # fmt: skip
        assert list(mode["iou"]) == content["classes"]
        assert mode["iou"]["ring"] is None
    assert set(content["cost"]) == {
        "params_m", "gmacs", "peak_mib", "ms_per_image", "size", "device",
    }  # fmt: skip
    assert content["settings"].pop("crf") == asdict(CrfConfig(w1=5.0))
    evaluate = asdict(EvaluateConfig(scales=[0.75, 1.0], pad_to=513))
    assert content["settings"].items() <= evaluate.items()
    assert {"scales", "flip", "pad_to"} <= set(content["settings"])
    assert "pictures" not in content["settings"]  # it changes no figure
    for mode_name in MODES:
        names, counts = read_csv(tmp_path / f"confusion_{mode_name}.csv")
        assert names == content["classes"]
        assert counts == figures.tally.matrices[mode_name]
    assert read_counts(tmp_path / "counts.npz") == (["a", "b"], figures.tally)


def test_metrics_are_flat_and_of_their_mode(figures: Figures) -> None:
    metrics = json.loads(json.dumps(figures.metrics(), allow_nan=False))
    assert set(metrics) == {
        "miou", "miou_crf", "miou_ms_flip", "miou_ms_flip_crf", "miou_ci", "crf_gain",
        "crf_gain_ci", "fw_iou", "pixel_accuracy", "mean_accuracy", "params_m", "gmacs",
        "peak_mib", "ms_per_image", "images", "held_apart", "seconds", "crf", "iou",
    }  # fmt: skip
    for key, mode in (
        ("miou", "single"),
        ("miou_crf", "single_crf"),
        ("miou_ms_flip", "ms_flip"),
        ("miou_ms_flip_crf", "ms_flip_crf"),
    ):
        assert metrics[key] == pytest.approx((first_iou(mode) + second_iou(mode)) / 2)
    assert metrics["crf_gain"] == pytest.approx(metrics["miou_crf"] - metrics["miou"])
    assert metrics["pixel_accuracy"] == pytest.approx(100 * 29 / 40)
    assert metrics["mean_accuracy"] == pytest.approx((45 + 100) / 2)
    assert metrics["fw_iou"] == pytest.approx(metrics["miou"])  # as many pixels of each class
    assert metrics["iou"]["background"] == pytest.approx(45)
    assert metrics["iou"]["ring"] is None
    assert (metrics["params_m"], metrics["gmacs"], metrics["ms_per_image"]) == (4.5, 5.8, 31.0)
    assert metrics["peak_mib"] == 75.8
    assert (metrics["images"], metrics["held_apart"]) == (2, 3)
    assert metrics["seconds"] == {"network": 1.5, "crf": 0.25}
    assert metrics["crf"]["w1"] == 5.0


def test_intervals_are_those_of_the_images_and_of_the_paired_gain(figures: Figures) -> None:
    metrics, images = figures.metrics(), figures.tally.per_image
    whole = miou_interval(images["single"])
    gain = difference_interval(images["single_crf"], images["single"])
    assert whole is not None and gain is not None
    assert metrics["miou_ci"] == {"low": whole.low, "high": whole.high}
    assert metrics["crf_gain_ci"] == {"low": gain.low, "high": gain.high}
    assert 0 < gain.low < metrics["crf_gain"] < gain.high


def test_one_image_has_figures_without_intervals(figures: Figures) -> None:
    alone = replace(figures, ids=["a"], tally=tally(1))
    assert alone.metrics()["miou_ci"] is None and alone.metrics()["crf_gain_ci"] is None
    assert alone.summary().endswith("ms_flip_crf 90.45")


def test_the_trimap_has_a_row_a_width(figures: Figures, tmp_path: Path) -> None:
    figures.write(tmp_path)
    with (tmp_path / "trimap_single.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["width"]) for row in rows] == list(range(1, 41))
    # The picture is two pixels high: all of it lies at the border, at every width.
    assert {float(row["miou"]) for row in rows} == {figures.metrics()["miou"]}
    assert {float(row["pixel_accuracy"]) for row in rows} == {72.5}


def test_a_band_without_pixels_is_an_empty_cell(figures: Figures, tmp_path: Path) -> None:
    counted = Tally(3, MODES, trimap_widths=(1, 2))
    counted.add(np.zeros((2, 2), np.uint8), {mode: np.zeros((2, 2), np.uint8) for mode in MODES})
    replace(figures, ids=["a"], tally=counted).write(tmp_path)
    assert (tmp_path / "trimap_single.csv").read_text() == "width,miou,pixel_accuracy\n1,,\n2,,\n"


def test_figures_are_not_rounded(figures: Figures) -> None:
    expected = second_iou("single_crf")
    assert figures.as_dict()["modes"]["single_crf"]["iou"]["disc"] == expected
    assert not math.isclose(expected, round(expected, 6), abs_tol=1e-9)


def test_summary_names_every_mode_with_two_digits(figures: Figures) -> None:
    assert figures.summary().startswith(
        "mIoU on 2 images of shapes test: single 54.76, single_crf 73.46, ms_flip 73.46, "
        "ms_flip_crf 90.45 (single: "
    )
