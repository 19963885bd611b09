import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.datasets.statistics import (
    ImageStatistics,
    measure,
    missing_in_train,
    read_statistics,
    summarise,
)

CLASSES = ("background", "cat", "dog")


def one(seed: int, height: int = 6, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.choice(np.array([0, 1, 255], dtype=np.uint8), (height, width))


@given(arrays(np.uint8, (4, 5, 3)), arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 255])))
def test_counts_are_those_of_the_pixels(image: np.ndarray, label: np.ndarray) -> None:
    counted = measure(image, label, classes=3)
    assert counted.size == (5, 4)
    assert counted.pixels.tolist() == [(label == value).sum() for value in (0, 1, 2, 255)]
    whole = image.reshape(-1, 3).astype(np.int64)
    np.testing.assert_array_equal(counted.colour_sum, whole.sum(axis=0))
    np.testing.assert_array_equal(counted.colour_squares, (whole**2).sum(axis=0))


def test_mean_and_std_are_over_all_pixels_of_train() -> None:
    pairs = [one(0), one(1, height=9), one(2)]
    measured = [measure(*pair, classes=3) for pair in pairs]
    statistics = summarise({"train": measured[:2], "val": measured[2:]}, CLASSES)
    pixels = np.concatenate([image.reshape(-1, 3) for image, _ in pairs[:2]]) / 255
    assert statistics["mean"] == pytest.approx(pixels.mean(axis=0))
    assert statistics["std"] == pytest.approx(pixels.std(axis=0))


def test_splits_are_summarised() -> None:
    label = np.array([[0, 0, 0, 1], [255, 255, 255, 255]], dtype=np.uint8)
    image = np.zeros((2, 4, 3), dtype=np.uint8)
    first = measure(image, label, classes=3)
    second = measure(image, np.zeros_like(label), classes=3)
    summary = summarise({"train": [first, second]}, CLASSES)["splits"]["train"]
    assert summary == {
        "images": 2,
        "sizes": {"4x2": 2},
        "void": 0.25,
        "frequency": {"background": 11 / 12, "cat": 1 / 12, "dog": 0.0},
        "images_with_class": {"background": 2, "cat": 1, "dog": 0},
    }


def test_split_of_nothing_but_void_gives_valid_json() -> None:
    void = np.full((2, 2), 255, dtype=np.uint8)
    measured = measure(np.zeros((2, 2, 3), dtype=np.uint8), void, classes=3)
    statistics = summarise({"train": [measured]}, CLASSES)
    json.dumps(statistics, allow_nan=False)
    assert statistics["splits"]["train"]["void"] == 1.0


def test_class_that_never_occurs_in_train_is_told() -> None:
    def showing(value: int) -> list[ImageStatistics]:
        label = np.full((2, 2), value, dtype=np.uint8)
        return [measure(np.zeros((2, 2, 3), dtype=np.uint8), label, classes=3)]

    statistics = summarise({"train": showing(1), "val": showing(2)}, CLASSES)
    assert missing_in_train(statistics) == ["background", "dog"]


def test_statistics_are_read_as_they_were_written(tmp_path: Path) -> None:
    statistics = summarise({"train": [measure(*one(0), classes=3)]}, CLASSES)
    (tmp_path / "statistics.json").write_text(json.dumps(statistics), encoding="utf-8")
    assert read_statistics(tmp_path) == statistics
