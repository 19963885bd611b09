import pytest

from pipeline.config import TrainConfig
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.statistics import read_statistics
from pipeline.errors import UserError
from pipeline.training.class_weights import class_weights, median_frequency


def test_median_frequency_by_hand() -> None:
    # In images of 10 pixels: class 0 has 8 and 8 in two images, class 1 has 2 in one, class 2 has
    # 2 in one, class 3 none. Their frequencies: 16 / 20, 2 / 10, 2 / 10.
    found = median_frequency([0.8, 0.1, 0.1, 0.0], [2, 1, 1, 0])
    assert found == pytest.approx([0.25, 1.0, 1.0, 1.0])


def test_the_trained_split_is_what_counts(shapes: Prepared) -> None:
    config = TrainConfig(split="val", class_weights="median_frequency")
    found = class_weights(config, shapes)
    counted = read_statistics(shapes.folder)["splits"]["val"]
    wanted = median_frequency(
        list(counted["frequency"].values()), list(counted["images_with_class"].values())
    )
    assert found == wanted
    assert found != class_weights(TrainConfig(class_weights="median_frequency"), shapes)


def test_weights_are_none_or_one_for_each_class(shapes: Prepared) -> None:
    assert class_weights(TrainConfig(), shapes) is None
    given = [1, 2.5, *[0.5] * (len(shapes.classes) - 2)]
    assert class_weights(TrainConfig(class_weights=given), shapes) == given
    with pytest.raises(UserError, match=r"train.class_weights: 2 numbers; .* classes: background"):
        class_weights(TrainConfig(class_weights=[1.0, 2.0]), shapes)
