import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.decoded import DecodedPairs
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/*"))}


def test_pairs_are_those_of_the_files(shapes: Prepared, tmp_path: Path) -> None:
    pairs = DecodedPairs(shapes, tmp_path)
    for _ in range(2):
        for id in shapes.ids("train"):
            image, label = pairs.read(id)
            np.testing.assert_array_equal(image, read_image(shapes.image_path(id)))
            np.testing.assert_array_equal(label, read_label(shapes.label_path(id)))
    assert len(files(tmp_path)) == 2 * len(shapes.ids("train"))


def test_a_pair_is_decoded_once(shapes: Prepared, tmp_path: Path) -> None:
    id = shapes.ids("train")[0]
    first = DecodedPairs(shapes, tmp_path).read(id)
    gone = dataclasses.replace(shapes, folder=tmp_path / "gone")
    for one, other in zip(first, DecodedPairs(gone, tmp_path).read(id), strict=True):
        np.testing.assert_array_equal(one, other)


def test_writing_to_a_pair_changes_no_file(shapes: Prepared, tmp_path: Path) -> None:
    pairs, id = DecodedPairs(shapes, tmp_path), shapes.ids("train")[0]
    pairs.read(id)
    before = files(tmp_path)
    for array in pairs.read(id):
        array[:] = 7
    assert files(tmp_path) == before


def test_half_a_file_is_decoded_again(shapes: Prepared, tmp_path: Path) -> None:
    pairs, id = DecodedPairs(shapes, tmp_path), shapes.ids("train")[0]
    pairs.read(id)
    whole = files(tmp_path)
    for length in (0, 5, 100, 200):
        for path in tmp_path.glob("*/*"):
            path.write_bytes(path.read_bytes()[:length])
        pairs.read(id)
        assert files(tmp_path) == whole


def test_other_data_of_the_same_name_has_its_own_files(shapes: Prepared, tmp_path: Path) -> None:
    id = shapes.ids("train")[0]
    DecodedPairs(shapes, tmp_path).read(id)
    DecodedPairs(dataclasses.replace(shapes, digest="f" * 64), tmp_path).read(id)
    assert len(files(tmp_path)) == 2
    assert len(list(tmp_path.glob("*/*"))) == 4


def test_a_disk_that_takes_nothing_slows_training_and_does_not_end_it(
    shapes: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    pairs = DecodedPairs(shapes, tmp_path / "file")
    for id in shapes.ids("train"):
        np.testing.assert_array_equal(pairs.read(id)[0], read_image(shapes.image_path(id)))
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 1
    assert warnings[0].endswith(
        "train_0000.image.npy: cannot be written (Not a directory); "
        "images that are not decoded yet are decoded each time"
    )
