import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.evaluation.confusion import ConfusionMatrix, read_csv
from pipeline.evaluation.figures import MODES, Cost, Figures


def matrix(hits: int) -> ConfusionMatrix:
    """`hits` of 10 pixels right; the third class is absent."""
    counts = np.array([[hits, 10 - hits, 0], [0, 10, 0], [0, 0, 0]], np.int64)
    return ConfusionMatrix(3, counts)


@pytest.fixture
def figures() -> Figures:
    return Figures(
        dataset="shapes",
        split="test",
        images=4,
        void=255,
        classes=["background", "disc", "ring"],
        palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0]],
        matrices={mode: matrix(hits) for mode, hits in zip(MODES, (5, 7, 6, 9), strict=True)},
        cost=Cost(
            params_m=4.5, gmacs=5.8, peak_mib=75.8, ms_per_image=31.0, size=513, device="cpu"
        ),
        evaluate=EvaluateConfig(scales=[0.75, 1.0], pad_to=513),
        crf=CrfConfig(),
    )


def test_files_hold_what_the_report_reads(figures: Figures, tmp_path: Path) -> None:
    figures.write(tmp_path)
    content = json.loads((tmp_path / "figures.json").read_text())
    assert set(content) == {
        "dataset", "split", "images", "void", "classes", "palette", "modes", "cost", "settings",
    }  # fmt: skip
    assert set(content["modes"]) == {"single", "single_crf", "ms_flip", "ms_flip_crf"}
    for mode in content["modes"].values():
        assert set(mode) == {"miou", "pixel_accuracy", "iou"}
        assert list(mode["iou"]) == content["classes"]
        assert mode["iou"]["ring"] is None
    assert set(content["cost"]) == {
        "params_m", "gmacs", "peak_mib", "ms_per_image", "size", "device",
    }  # fmt: skip
    assert content["settings"] == {
        "scales": [0.75, 1.0],
        "flip": True,
        "pad_to": 513,
        "crf": {
            "w1": 4.0, "sigma_alpha": 67.0, "sigma_beta": 3.0,
            "w2": 3.0, "sigma_gamma": 1.0, "iterations": 10,
            "backend": "lattice", "normalisation": "symmetric",
        },
    }  # fmt: skip
    for mode_name in MODES:
        names, counts = read_csv(tmp_path / f"confusion_{mode_name}.csv")
        assert names == content["classes"]
        assert counts == figures.matrices[mode_name]


def test_metrics_are_flat_and_of_their_mode(figures: Figures) -> None:
    metrics = json.loads(json.dumps(figures.metrics(), allow_nan=False))
    assert set(metrics) == {
        "miou", "miou_crf", "miou_ms_flip", "miou_ms_flip_crf", "crf_gain", "pixel_accuracy",
        "params_m", "gmacs", "peak_mib", "ms_per_image", "images", "iou",
    }  # fmt: skip
    assert metrics["miou"] == pytest.approx((50 + 100 * 10 / 15) / 2)
    assert metrics["miou_crf"] == pytest.approx((70 + 100 * 10 / 13) / 2)
    assert metrics["miou_ms_flip"] == pytest.approx((60 + 100 * 10 / 14) / 2)
    assert metrics["miou_ms_flip_crf"] == pytest.approx((90 + 100 * 10 / 11) / 2)
    assert metrics["crf_gain"] == pytest.approx(metrics["miou_crf"] - metrics["miou"])
    assert metrics["pixel_accuracy"] == pytest.approx(75)
    assert metrics["iou"]["background"] == pytest.approx(50)
    assert metrics["iou"]["ring"] is None
    assert (metrics["params_m"], metrics["gmacs"], metrics["ms_per_image"]) == (4.5, 5.8, 31.0)
    assert metrics["peak_mib"] == 75.8
    assert metrics["images"] == 4


def test_figures_are_not_rounded(figures: Figures) -> None:
    expected = 100 * 10 / 13
    assert figures.as_dict()["modes"]["single_crf"]["iou"]["disc"] == expected
    assert not math.isclose(expected, round(expected, 6), abs_tol=1e-9)


def test_summary_names_every_mode_with_two_digits(figures: Figures) -> None:
    assert figures.summary() == (
        "mIoU on 4 images of shapes test: single 58.33, single_crf 73.46, ms_flip 65.71, "
        "ms_flip_crf 90.45"
    )
