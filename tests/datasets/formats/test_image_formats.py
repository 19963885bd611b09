"""The formats whose masks are images: numbers and colours."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.formats import Classes
from pipeline.datasets.formats.base import LabelFormat, as_classes
from pipeline.datasets.formats.colours import Colours
from pipeline.datasets.formats.numbers import Numbers
from pipeline.errors import UserError

CLASSES = Classes(
    ("road", "tree", "sky"),
    ((0, 0, 0), (10, 20, 30), (30, 20, 10)),
    void=9,
    manifest=Path("m.yaml"),
)
NO_VOID = Classes(CLASSES.names, CLASSES.palette, None, CLASSES.manifest)
WHITE = (255, 255, 255)


def written(folder: Path, values: np.ndarray | list[list[int]], mode: str | None = None) -> Path:
    array = np.asarray(values)
    image = Image.fromarray(array if array.dtype != np.int64 else array.astype(np.uint8))
    image.save(folder / "a.png") if mode is None else image.convert(mode).save(folder / "a.png")
    return folder / "a.png"


def refused(form: LabelFormat, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        form.read(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_numbers_are_classes_and_void_becomes_255(tmp_path: Path) -> None:
    path = written(tmp_path, [[0, 1, 2, 9]])
    assert Numbers(CLASSES).read(path).tolist() == [[0, 1, 2, 255]]


def test_number_that_is_no_class_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, [[0, 1], [2, 7]])
    line = refused(Numbers(CLASSES), path)
    assert line == (
        "class number 7 at x=1, y=1; allowed are 0..2 and 9 (void): mend the mask, or classes and "
        "void in m.yaml"
    )
    path = written(tmp_path, [[0, 9]])
    assert "class number 9 at x=1, y=0; allowed are 0..2: mend" in refused(Numbers(NO_VOID), path)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_mapped_numbers_become_classes_and_all_others_void(tmp_path: Path, depth: type) -> None:
    path = written(tmp_path, np.array([[7, 8, 0], [200, 9, 7]], dtype=depth))
    label = Numbers(CLASSES, {7: 0, 8: 2, 200: 2}).read(path)
    assert label.dtype == np.uint8
    assert label.tolist() == [[0, 2, 255], [2, 255, 0]]


def test_mapped_numbers_may_be_above_255(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([[7, 26001, 65535]], dtype=np.uint16))
    assert Numbers(CLASSES, {26001: 1, 65535: 2}).read(path).tolist() == [[255, 1, 2]]


def test_mask_of_black_and_white_is_mapped(tmp_path: Path) -> None:
    path = written(tmp_path, np.array([[0, 255, 255]], dtype=np.uint8))
    assert Numbers(CLASSES, {0: 0, 255: 1}).read(path).tolist() == [[0, 1, 1]]
    path = written(tmp_path, np.array([[False, True]]))
    assert Numbers(CLASSES).read(path).tolist() == [[0, 1]]


def test_picture_of_colours_is_no_mask_of_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, np.zeros((2, 2, 3), dtype=np.uint8))
    line = refused(Numbers(CLASSES), path)
    assert line.startswith("the mask is an RGB picture, expected one channel of class numbers")
    assert "`format: colours`" in line


@pytest.mark.parametrize("mode", [None, "RGBA"])
def test_colours_become_classes(tmp_path: Path, mode: str | None) -> None:
    colours = np.array([[[10, 20, 30], [30, 20, 10], [0, 0, 0], WHITE]], dtype=np.uint8)
    path = written(tmp_path, colours, mode)
    assert Colours(CLASSES, (WHITE,)).read(path).tolist() == [[1, 2, 0, 255]]


def test_colours_are_read_through_a_palette(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[5, 1, 0]], dtype=np.uint8))
    mask.putpalette([0, 0, 0, 30, 20, 10] + [0, 0, 0] * 3 + [10, 20, 30])
    mask.save(tmp_path / "a.png")
    assert Colours(CLASSES).read(tmp_path / "a.png").tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("colour", [[10, 20, 31], [255, 255, 255], [0, 0, 1]])
def test_colour_of_no_class_is_named(tmp_path: Path, colour: list[int]) -> None:
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[1, 2] = colour
    line = refused(Colours(CLASSES), written(tmp_path, pixels))
    assert line == (
        f"colour {colour} at x=2, y=1 is no class's; mend the mask, or classes and void_colours in "
        "m.yaml"
    )


@given(
    palette=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=3, max_size=20, unique=True),
    seed=st.integers(0, 99),
)
def test_painted_and_read_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, palette: list[tuple[int, int, int]], seed: int
) -> None:
    """The last colour is void's."""
    names = tuple(str(number) for number in range(len(palette) - 1))
    classes = Classes(names, tuple(palette[:-1]), None, Path("m.yaml"))
    label = np.random.default_rng(seed).integers(0, len(palette), (7, 5))
    path = written(tmp_path_factory.mktemp("a"), np.array(palette, dtype=np.uint8)[label])
    expected = np.where(label == len(palette) - 1, 255, label)
    np.testing.assert_array_equal(Colours(classes, (palette[-1],)).read(path), expected)


@given(values=st.lists(st.integers(-3, 300), min_size=1, max_size=30))
def test_only_classes_and_void_come_through(values: list[int]) -> None:
    wrong = [value for value in values if value not in (0, 1, 2, 9)]
    if wrong:
        with pytest.raises(UserError, match=rf"class number {wrong[0]} at"):
            as_classes(np.array([values]), Path("a"), CLASSES)
    else:
        label = as_classes(np.array([values]), Path("a"), CLASSES)
        assert label.tolist() == [[255 if value == 9 else value for value in values]]
