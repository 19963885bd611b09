import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.pictures import TEXT, pair
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.previews import SIDE, draw_augmentations, draw_samples
from pipeline.datasets.transforms import TrainTransform


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    raw = tiny.write_raw(tmp_path / "raw")
    return prepare(tiny.write_manifest(tmp_path), raw, tmp_path / "out")


def transform(data: Prepared) -> TrainTransform:
    return TrainTransform(9, 0.5, 2.0, 0.25, flip=True, photometric=True, fill=data.mean)


def test_samples_show_an_image_beside_its_overlay(data: Prepared, tmp_path: Path) -> None:
    draw_samples(data, tmp_path / "samples.png", count=2)
    sheet = np.asarray(Image.open(tmp_path / "samples.png"))
    image = read_image(data.image_path("train_0000"))
    label = read_label(data.label_path("train_0000"))
    cell = np.asarray(pair(image, label, data.palette, "train_0000", SIDE))
    np.testing.assert_array_equal(sheet[10 : 10 + cell.shape[0], 10 : 10 + cell.shape[1]], cell)


def test_samples_come_from_every_split(data: Prepared, tmp_path: Path) -> None:
    sizes = []
    for count in (1, 4, 12):
        draw_samples(data, tmp_path / "samples.png", count=count)
        sizes.append(Image.open(tmp_path / "samples.png").height)
    # 1, then 2 + 2, then all that there are: 4 + 2 images in rows of three.
    assert sizes[0] < sizes[1] == sizes[2]


def test_augmentations_are_the_same_for_the_same_seed(data: Prepared, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_augmentations(data, transform(data), tmp_path / f"{name}.png", seed)
    first, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert first == same
    assert first != other


def test_augmentations_are_views_of_the_split(data: Prepared, tmp_path: Path) -> None:
    for split in ("train", "val"):
        draw_augmentations(data, transform(data), tmp_path / f"{split}.png", split=split)
    assert (tmp_path / "train.png").read_bytes() != (tmp_path / "val.png").read_bytes()


def test_images_with_classes_not_yet_shown_come_first(data: Prepared, tmp_path: Path) -> None:
    ids = data.ids("train")
    rare = dataclasses.replace(data, shows=dict.fromkeys(data.shows, (0,)) | {ids[2]: (0, 1, 2)})
    draw_samples(rare, tmp_path / "samples.png", count=1)
    sheet = np.asarray(Image.open(tmp_path / "samples.png"))
    image, label = read_image(data.image_path(ids[2])), read_label(data.label_path(ids[2]))
    cell = np.asarray(pair(image, label, data.palette, ids[2], SIDE))
    np.testing.assert_array_equal(sheet[10 : 10 + cell.shape[0], 10 : 10 + cell.shape[1]], cell)


def test_legend_says_the_shares_of_the_split(data: Prepared, tmp_path: Path) -> None:
    sheets = []
    for split in ("train", "val"):
        draw_samples(data, tmp_path / "samples.png", split)
        sheets.append(np.asarray(Image.open(tmp_path / "samples.png")))
    height = 4 * (TEXT + 9)
    np.testing.assert_array_equal(sheets[0][:-height], sheets[1][:-height])
    assert (sheets[0][-height:] != sheets[1][-height:]).any()


def test_drawing_leaves_generators_and_threads_alone(data: Prepared, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    draw_augmentations(data, transform(data), tmp_path / "a.png")
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads
