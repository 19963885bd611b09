"""The formats whose masks are in one JSON file: PASCAL-Context and COCO."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from delivery import HEIGHT, WIDTH, box, plain_runs, polygon, runs
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from official import COCO, coco_file, instance

from pipeline.datasets.formats.base import IndexedFormat, Masks
from pipeline.datasets.formats.coco import Coco
from pipeline.datasets.formats.context import Context
from pipeline.datasets.formats.regions import decode
from pipeline.errors import UserError

TREE, SKY = 420, 360
CONTEXT = Context({TREE: 1, SKY: 2}, phase=None)
INSTANCES = Coco({"person": 1, "couch": 2}, larger_than=100, exclude=None)
#: A region of 200 pixels.
LARGE = (5, 5, 10, 20)


def opened(form: IndexedFormat, folder: Path, content: Any) -> Masks:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "a.json").write_bytes(text)
    return form.open(folder / "a.json", folder)


def refused(form: IndexedFormat, folder: Path, content: Any) -> str:
    """The line in which opening it, or reading the first image, ends."""
    with pytest.raises(UserError) as caught:
        masks = opened(form, folder, content)
        masks.read(masks.ids[0])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'a.json'}: ")
    return str(caught.value).removeprefix(f"{folder / 'a.json'}: ")


@given(region=arrays(bool, (7, 5)))
def test_run_lengths_of_both_kinds_are_the_region(region: np.ndarray) -> None:
    for segmentation in (runs(region), plain_runs(region)):
        np.testing.assert_array_equal(decode(segmentation, 7, 5), region)


@given(
    top=st.integers(0, 30),
    left=st.integers(0, 30),
    height=st.integers(1, 10),
    width=st.integers(1, 20),
)
def test_polygon_of_a_rectangle_is_its_pixels(top: int, left: int, height: int, width: int) -> None:
    where = (top, left, height, width)
    np.testing.assert_array_equal(decode(polygon(*where), HEIGHT, WIDTH), box(*where))


def test_several_polygons_are_one_region() -> None:
    both = polygon(0, 0, 5, 5) + polygon(20, 20, 5, 5)
    np.testing.assert_array_equal(decode(both, HEIGHT, WIDTH), box(0, 0, 5, 5) | box(20, 20, 5, 5))


@pytest.mark.parametrize(
    "segmentation",
    [[], [[1, 2]], "x", None, {"counts": "@@@"}, {"size": [40, 50], "counts": "@@@"}, {"size": 3}],
)
def test_region_of_another_kind_is_refused(segmentation: Any) -> None:
    with pytest.raises(ValueError, match="not a region of polygons or run lengths"):
        decode(segmentation, HEIGHT, WIDTH)


def detail(*regions: tuple[int, np.ndarray], **changes: Any) -> dict[str, Any]:
    """A PASCAL-in-Detail JSON of one image with these regions."""
    image = {"image_id": 20081, "file_name": "2008_1.jpg", "phase": "train"}
    return {
        "images": [image | {"height": HEIGHT, "width": WIDTH} | changes],
        "annos_segmentation": [
            {"image_id": 20081, "category_id": category, "segmentation": runs(region)}
            for category, region in regions
        ],
    }


def test_later_region_of_context_lies_over_an_earlier_one(tmp_path: Path) -> None:
    content = detail((SKY, box(0, 0, 20, 50)), (TREE, box(10, 10, 20, 10)))
    label = opened(CONTEXT, tmp_path, content).read("2008_1")
    assert label.dtype == np.uint8
    assert (label[5, 5], label[15, 15], label[25, 15], label[35, 0]) == (2, 1, 1, 0)


def test_category_that_is_not_mapped_is_background(tmp_path: Path) -> None:
    content = detail((SKY, box(0, 0, 20, 50)), (7, box(10, 10, 20, 10)))
    label = opened(CONTEXT, tmp_path, content).read("2008_1")
    assert (label[15, 15], label[25, 15]) == (2, 0)


@pytest.mark.parametrize(
    ("phase", "ids"), [("train", ("2008_1",)), ("val", ()), (None, ("2008_1",))]
)
def test_phase_chooses_the_images(tmp_path: Path, phase: str | None, ids: tuple[str, ...]) -> None:
    assert opened(Context({TREE: 1}, phase), tmp_path, detail()).ids == ids


@pytest.mark.parametrize("form", [CONTEXT, INSTANCES])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not valid JSON ("),
        (b"\x80", "not valid JSON ("),
        ([], "must be a JSON mapping"),
        ({}, "not "),
        ({"images": [{}], "annotations": [], "categories": []}, "no"),
    ],
)
def test_other_json_is_named(
    tmp_path: Path, form: IndexedFormat, content: Any, expected: str
) -> None:
    assert refused(form, tmp_path, content).startswith(expected)


@pytest.mark.parametrize("form", [CONTEXT, INSTANCES])
def test_missing_json_is_named(tmp_path: Path, form: IndexedFormat) -> None:
    with pytest.raises(UserError, match=r"a\.json: the file is missing; run `dvc repro -f down"):
        form.open(tmp_path / "a.json", tmp_path)


def test_damaged_region_names_its_image(tmp_path: Path) -> None:
    content = detail((SKY, np.zeros((3, 3), dtype=bool)))
    line = refused(CONTEXT, tmp_path, content)
    assert line == "image 2008_1: a region of 3x3 pixels; get the file again"
    wrong = coco_file([1], [instance(1, "person", LARGE, segmentation=[[1, 2]])])
    assert refused(INSTANCES, tmp_path, wrong).startswith("image 000000000001: not a region of")


def masks(folder: Path, *annotations: Any, form: Coco = INSTANCES) -> Masks:
    return opened(form, folder, coco_file([1, 2, 3], list(annotations)))


def test_only_large_instances_of_mapped_categories_are_painted(tmp_path: Path) -> None:
    read = masks(
        tmp_path,
        instance(1, "person", LARGE),
        instance(1, "couch", (30, 30, 10, 10)),
        instance(1, "zebra", (0, 40, 30, 9)),
    ).read("000000000001")
    np.testing.assert_array_equal(read, box(*LARGE) * 1)


@pytest.mark.parametrize(
    ("annotation", "left"),
    [
        (instance(2, "person", LARGE), True),
        (instance(2, "person", (0, 0, 10, 11)), True),
        (instance(2, "person", (0, 0, 10, 10)), False),
        (instance(2, "zebra", LARGE), False),
        (instance(2, "person", LARGE, iscrowd=1, segmentation=runs(box(*LARGE))), False),
    ],
)
def test_image_where_nothing_is_left_is_not_in_the_split(
    tmp_path: Path, annotation: Any, left: bool
) -> None:
    assert masks(tmp_path, annotation).ids == (("000000000002",) if left else ())


def test_small_instance_lies_over_a_large_one_in_any_order(tmp_path: Path) -> None:
    small, large = instance(1, "person", (10, 10, 12, 12)), instance(1, "couch", (0, 0, 40, 40))
    for order in ((small, large), (large, small)):
        label = masks(tmp_path, *order).read("000000000001")
        assert (label[15, 15], label[5, 5], label[5, 45]) == (1, 2, 0)


def test_crowd_is_void_where_no_instance_covers_it(tmp_path: Path) -> None:
    crowd = instance(1, "person", LARGE, iscrowd=1, segmentation=plain_runs(box(0, 0, 40, 10)))
    foreign = instance(1, "zebra", LARGE, iscrowd=1, segmentation=plain_runs(box(0, 40, 40, 10)))
    label = masks(tmp_path, crowd, foreign, instance(1, "couch", LARGE)).read("000000000001")
    assert (label[0, 0], label[7, 7], label[7, 20], label[0, 45]) == (255, 2, 2, 0)


def test_listed_images_are_left_out(tmp_path: Path) -> None:
    form = Coco({"person": 1}, 0, exclude="minival.txt")
    annotations = [instance(id, "person", LARGE) for id in (1, 2, 3)]
    (tmp_path / "minival.txt").write_text("3\n1\n")
    assert masks(tmp_path, *annotations, form=form).ids == ("000000000002",)
    (tmp_path / "minival.txt").write_text("COCO_val2014_000000000001\n")
    with pytest.raises(
        UserError, match=r"minival\.txt: must hold COCO's image numbers, one a line"
    ):
        masks(tmp_path, *annotations, form=form)
    (tmp_path / "minival.txt").unlink()
    with pytest.raises(UserError, match=r"minival\.txt: the list of excluded images is missing"):
        masks(tmp_path, *annotations, form=form)


def test_category_that_coco_does_not_have_is_answered_with_the_nearest(tmp_path: Path) -> None:
    form = Coco({"persons": 1}, 0, None)
    line = refused(form, tmp_path, coco_file([1], [instance(1, "person", LARGE)]))
    assert line.startswith("no category persons, which map names; did you mean 'person'?")
    assert set(COCO) >= {"person", "couch"}
