"""The formats whose masks are MATLAB files: SBD and PASCAL-Part."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivery import OBJECT, PART, box, matlab, objects, sbd_file, struct_array

from pipeline.datasets.formats import Classes
from pipeline.datasets.formats.base import LabelFormat
from pipeline.datasets.formats.person_part import PARTS, PersonPart
from pipeline.datasets.formats.sbd import Sbd
from pipeline.datasets.manifest import load_manifest
from pipeline.datasets.section import Section
from pipeline.errors import UserError


def classes_of(name: str) -> Classes:
    manifest = load_manifest(name)
    return Classes(manifest.classes, manifest.palette, manifest.void, manifest.path)


SBD = Sbd(classes_of("pascal_voc_2012_sbd"))
PERSON = PersonPart.parse(
    Section(Path("m"), "", {"path": "{id}", "format": "person_part"}),
    classes_of("pascal_person_part"),
)


def saved(folder: Path, content: bytes) -> Path:
    (folder / "a.mat").write_bytes(content)
    return folder / "a.mat"


def refused(form: LabelFormat, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        form.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_segmentation_of_sbd_is_read(tmp_path: Path) -> None:
    label = objects(0, 21)
    read = SBD.read(saved(tmp_path, sbd_file(label)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, label)


def test_class_that_voc_does_not_have_is_named(tmp_path: Path) -> None:
    label = objects(0, 21)
    label[0, 1] = 21
    assert "class number 21 at x=1, y=0; allowed are 0..20" in refused(
        SBD, saved(tmp_path, sbd_file(label))
    )


@pytest.mark.parametrize("form", [SBD, PERSON])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1, 0.0])
def test_truncated_file_is_named(tmp_path: Path, form: LabelFormat, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 21, (40, 50), dtype=np.uint8)
    content = sbd_file(noise) if form is SBD else annotation(("hair", noise > 3))
    path = saved(tmp_path, content[: int(len(content) * kept)])
    assert refused(form, path).startswith("truncated or no MATLAB file")


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(SBD, tmp_path / "a.mat") == "the file is missing"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("other", {"Segmentation": np.zeros((2, 2))}, "must hold one struct GTcls"),
        ("GTcls", np.zeros((1, 1)), "must hold one struct GTcls"),
        ("GTcls", {"Boundaries": 1}, "GTcls has no Segmentation of numbers"),
        ("GTcls", {"Segmentation": "text"}, "GTcls has no Segmentation of numbers"),
        ("GTcls", {"Segmentation": np.zeros((2, 2, 2))}, "GTcls.Segmentation must be a matrix"),
    ],
)
def test_other_matlab_file_is_named(tmp_path: Path, name: str, value: Any, expected: str) -> None:
    assert refused(SBD, saved(tmp_path, matlab(name, value))).startswith(expected)


def annotation(*parts: tuple[str, np.ndarray], kind: str = "person") -> bytes:
    one = (kind, 15, box(0, 0, 40, 50), struct_array(PART, *parts))
    return matlab("anno", {"imname": "a", "objects": struct_array(OBJECT, one)})


def test_the_twenty_four_parts_of_a_person_become_six() -> None:
    """24 names in PASCAL-Part's part2ind.m: ten of the head, two each of torso and legs, ..."""
    assert sum(len(parts.split()) for parts in PARTS.values()) == 24
    assert set(PERSON.numbers.values()) == {1, 2, 3, 4, 5, 6}
    assert {part: PERSON.numbers[part] for part in ("neck", "rhand", "lfoot", "lear")} == {
        "neck": 2,
        "rhand": 4,
        "lfoot": 6,
        "lear": 1,
    }


@pytest.mark.parametrize("part", [part for parts in PARTS.values() for part in parts.split()])
def test_part_is_painted(tmp_path: Path, part: str) -> None:
    label = PERSON.read(saved(tmp_path, annotation((part, box(3, 4, 5, 6)))))
    expected = list(PARTS).index(next(name for name, parts in PARTS.items() if part in parts)) + 1
    np.testing.assert_array_equal(label, box(3, 4, 5, 6) * expected)


def test_later_part_lies_over_an_earlier_one(tmp_path: Path) -> None:
    content = annotation(("torso", box(0, 0, 10, 10)), ("luarm", box(5, 5, 10, 10)))
    label = PERSON.read(saved(tmp_path, content))
    assert (label[7, 7], label[2, 2], label[12, 12], label[30, 30]) == (3, 2, 3, 0)


def test_parts_of_an_animal_are_background(tmp_path: Path) -> None:
    label = PERSON.read(saved(tmp_path, annotation(("head", box(0, 0, 9, 9)), kind="cat")))
    assert label.shape == (40, 50)
    assert not label.any()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (annotation(("wing", box(0, 0, 2, 2))), "wing is no part of a person"),
        (annotation(("head", np.zeros((2, 2), dtype=bool))), "masks of (2, 2) and (40, 50) pixels"),
        (matlab("anno", {"objects": struct_array(OBJECT)}), "it has no objects"),
        (matlab("anno", {"imname": "a"}), "no field of name objects"),
    ],
)
def test_annotation_that_is_wrong_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    line = refused(PERSON, saved(tmp_path, content))
    assert line == f"not a PASCAL-Part annotation: {expected}"
