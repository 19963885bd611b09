import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from pipeline.errors import UserError
from pipeline.evaluation.server import CITYSCAPES_IDS, SERVERS, VOC_CLASSES, write_submission
from pipeline.paths import PROJECT

Labels = npt.NDArray[np.uint8]


def manifest(name: str) -> dict[str, Any]:
    content = yaml.safe_load((PROJECT / "data" / "manifests" / f"{name}.yaml").read_text())
    assert isinstance(content, dict)
    return content


def predictions(classes: int, ids: tuple[str, ...]) -> dict[str, Labels]:
    rng = np.random.default_rng(0)
    return {
        id: rng.integers(0, classes, (7 + index, 9)).astype(np.uint8)
        for index, id in enumerate(ids)
    }


def test_voc_gets_palette_pngs_of_class_numbers_in_its_folders(tmp_path: Path) -> None:
    maps = predictions(21, ("2008_000001", "2010_000002"))
    colours = np.array([entry["color"] for entry in manifest("pascal_voc_2012")["classes"]])
    path, count = write_submission("voc2012", tmp_path, maps.items(), VOC_CLASSES)
    assert (path, count) == (tmp_path / "voc2012-comp6.tgz", 2)
    with tarfile.open(path, "r:gz") as archive:
        assert archive.getnames() == [
            f"results/VOC2012/Segmentation/comp6_test_cls/{id}.png" for id in maps
        ]
        for member, (_, labels) in zip(archive, maps.items(), strict=True):
            content = archive.extractfile(member)
            assert content is not None
            picture = Image.open(io.BytesIO(content.read()))
            assert picture.mode == "P"
            assert np.array_equal(np.asarray(picture), labels)
            assert np.array_equal(np.asarray(picture.convert("RGB")), colours[labels])


def test_cityscapes_gets_label_ids_under_names_that_its_scripts_find(tmp_path: Path) -> None:
    classes = tuple(CITYSCAPES_IDS)
    maps = predictions(19, ("berlin_000000_000019", "bonn_000003_000019"))
    path, _ = write_submission("cityscapes", tmp_path, maps.items(), classes)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{id}_pred_labelIds.png" for id in maps]
        for name, labels in zip(archive.namelist(), maps.values(), strict=True):
            picture = Image.open(io.BytesIO(archive.read(name)))
            assert picture.mode == "L"
            ids = np.array([CITYSCAPES_IDS[entry] for entry in classes])
            assert np.array_equal(np.asarray(picture), ids[labels])


def test_the_servers_numbers_are_those_of_the_manifests() -> None:
    labels = manifest("cityscapes")["labels"]
    assert {name: id for id, name in labels["map"].items()} == CITYSCAPES_IDS
    named = [entry["name"] for entry in manifest("pascal_voc_2012")["classes"]]
    assert tuple(named) == VOC_CLASSES


def test_the_numbers_follow_the_names_and_not_the_places(tmp_path: Path) -> None:
    labels = np.array([[0, 1]], np.uint8)
    path, _ = write_submission(
        "cityscapes", tmp_path, [("a_000000_000000", labels)], ["car", "road"]
    )
    with zipfile.ZipFile(path) as archive:
        picture = Image.open(io.BytesIO(archive.read(archive.namelist()[0])))
        assert np.asarray(picture).tolist() == [[26, 7]]


def test_the_same_predictions_give_the_same_zip(tmp_path: Path) -> None:
    maps = predictions(19, ("a_000000_000000",))
    written = [
        write_submission("cityscapes", tmp_path / name, maps.items(), tuple(CITYSCAPES_IDS))
        for name in "ab"
    ]
    assert written[0][0].read_bytes() == written[1][0].read_bytes()


def test_what_a_server_cannot_take_is_said(tmp_path: Path) -> None:
    labels = np.zeros((2, 2), np.uint8)
    with pytest.raises(UserError, match="server=kitti: one of voc2012, cityscapes"):
        write_submission("kitti", tmp_path, [], ["road"])
    with pytest.raises(UserError, match="no class disc, ring; the network must be trained on"):
        write_submission("voc2012", tmp_path, [], ["background", "disc", "ring"])
    twice = [("a", labels), ("a", labels)]
    with pytest.raises(UserError, match="a: predicted twice"):
        write_submission("voc2012", tmp_path, twice, VOC_CLASSES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("server", list(SERVERS))
def test_an_interrupted_archive_leaves_the_old_one(tmp_path: Path, server: str) -> None:
    classes = list(SERVERS[server].numbers)
    labels = np.zeros((2, 2), np.uint8)

    def interrupted() -> Iterator[tuple[str, Labels]]:
        yield "a", labels
        raise KeyboardInterrupt

    path, _ = write_submission(server, tmp_path, [("old", labels)], classes)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_submission(server, tmp_path, interrupted(), classes)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
