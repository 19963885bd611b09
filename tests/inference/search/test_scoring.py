import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from coarse_maps import coarse_maps
from PIL import Image

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.dense_crf import DenseCrfSettings, refine_labels
from pipeline.inference.search.scoring import Scorer, by_filters

BASE = DenseCrfSettings(w1=4, sigma_alpha=12, sigma_beta=9, iterations=3)
#: Interleaved on purpose: what shares filters does not stand together.
SETTINGS = [
    BASE,
    dataclasses.replace(BASE, sigma_beta=20),
    dataclasses.replace(BASE, w1=9, w2=1),
    dataclasses.replace(BASE, sigma_beta=20, w1=9),
    dataclasses.replace(BASE, iterations=6),
    dataclasses.replace(BASE, mode="fast"),
]


def test_settings_are_grouped_by_the_filters_that_they_share() -> None:
    assert by_filters(SETTINGS) == [[0, 2, 4], [1, 3], [5]]


def test_shared_filters_give_the_same_labels_as_filters_of_their_own(shapes: Prepared) -> None:
    ids, maps = shapes.ids("test"), coarse_maps(shapes)
    together = Scorer(shapes, ids, maps, workers=1).matrices(SETTINGS)
    for settings, shared in zip(SETTINGS, together, strict=True):
        alone = ConfusionMatrix(len(shapes.classes), void=shapes.void)
        for id in ids:
            labels = refine_labels(maps(id), read_image(shapes.image_path(id)), settings)
            alone.update(read_label(shapes.label_path(id)), labels)
        assert shared == alone
    assert len({matrix.counts.tobytes() for matrix in together}) == len(SETTINGS)


def test_the_counts_are_the_same_on_any_number_of_threads(shapes: Prepared) -> None:
    ids, maps = shapes.ids("train"), coarse_maps(shapes)
    none, one, two = (Scorer(shapes, ids, maps, number).matrices(SETTINGS) for number in range(3))
    assert none == one == two


def test_no_iterations_are_the_networks_own_labels(shapes: Prepared) -> None:
    ids, maps = shapes.ids("test"), coarse_maps(shapes)
    alone = ConfusionMatrix(len(shapes.classes), void=shapes.void)
    for id in ids:
        alone.update(read_label(shapes.label_path(id)), maps(id).argmax(axis=0))
    without = dataclasses.replace(BASE, iterations=0)
    assert Scorer(shapes, ids, maps, workers=2).matrices([without]) == [alone]


def test_an_image_is_read_once_for_all_settings(shapes: Prepared) -> None:
    asked, told, maps = list[str](), list[int](), coarse_maps(shapes)

    def counted(id: str) -> npt.NDArray[np.float32]:
        asked.append(id)
        return maps(id)

    ids = shapes.ids("test")
    Scorer(shapes, ids, counted, workers=2).matrices(SETTINGS, lambda: told.append(len(asked)))
    assert sorted(asked) == sorted(ids)
    assert len(told) == len(ids)


def test_an_image_of_another_size_than_its_logits_is_named(shapes: Prepared) -> None:
    id, maps = shapes.ids("test")[0], coarse_maps(shapes)
    with pytest.raises(UserError, match=rf"{id}\.\w+: its label or its logits have"):
        Scorer(shapes, [id], lambda id: maps(id)[:, 1:], workers=0).matrices([BASE])


def test_a_label_that_holds_what_is_no_class_is_named(
    shapes: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("wrong")
    id = shapes.ids("test")[0]
    maps = coarse_maps(shapes)(id)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.open(shapes.image_path(id)).save(folder / "images" / shapes.images[id])
    Image.fromarray(np.full(maps.shape[1:], 99, np.uint8)).save(folder / "labels" / f"{id}.png")
    wrong = dataclasses.replace(shapes, folder=folder)
    with pytest.raises(UserError, match=rf"{id}\.png: value 99 is neither a class"):
        Scorer(wrong, [id], lambda _: maps, workers=1).matrices([BASE])
