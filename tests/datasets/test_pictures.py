import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.pictures import colourise, fit, grid, legend, overlay, pair, stack

PALETTE = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
LABELS = np.array([[0, 1, 2, 255]], dtype=np.uint8).repeat(20, axis=1).repeat(30, axis=0)
IMAGE = np.full((30, 80, 3), (10, 20, 30), dtype=np.uint8)


def test_classes_have_their_colours() -> None:
    coloured = colourise(LABELS, PALETTE)
    for number, colour in enumerate(PALETTE):
        assert (coloured[LABELS == number] == colour).all()


def test_void_is_hatched_white_and_no_class_is() -> None:
    hatched = (overlay(IMAGE, LABELS, PALETTE) == 255).all(axis=2)
    assert 0.15 < hatched[LABELS == 255].mean() < 0.35
    assert not hatched[LABELS != 255].any()


def test_void_leaves_the_image_between_the_lines() -> None:
    drawn = overlay(IMAGE, LABELS, PALETTE)
    void = drawn[LABELS == 255]
    assert (void[~(void == 255).all(axis=1)] == (10, 20, 30)).all()


@given(st.floats(0, 1))
def test_alpha_mixes_image_and_colour(alpha: float) -> None:
    drawn = overlay(IMAGE, np.ones((30, 80), dtype=np.uint8), PALETTE, alpha)
    expected = (1 - alpha) * np.array([10, 20, 30]) + alpha * np.array([200, 0, 0])
    np.testing.assert_allclose(drawn[3, 4], expected, atol=0.51)
    assert drawn.dtype == np.uint8


def test_overlay_leaves_its_arguments_alone() -> None:
    image, labels = IMAGE.copy(), LABELS.copy()
    overlay(image, labels, PALETTE)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(labels, LABELS)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 70))
def test_fit_keeps_image_and_labels_together(height: int, width: int, side: int) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    labels = np.tile(np.array([1, 255], dtype=np.uint8), (height, width))[:, :width]
    small, small_labels = fit(image, labels, side)
    assert small.shape[:2] == small_labels.shape
    assert max(small_labels.shape) == side
    assert set(np.unique(small_labels)) <= {1, 255}


def test_pair_shows_the_image_and_beside_it_the_overlay_on_grey() -> None:
    grey = np.asarray(Image.fromarray(IMAGE).convert("L").convert("RGB"))
    cell = np.asarray(pair(IMAGE, LABELS, PALETTE, "an image", side=80))
    np.testing.assert_array_equal(cell[-30:, :80], IMAGE)
    np.testing.assert_array_equal(cell[-30:, 82:162], overlay(grey, LABELS, PALETTE))


def test_grid_places_every_cell() -> None:
    cells = [Image.new("RGB", (10, 6), (shade, 0, 0)) for shade in range(1, 6)]
    sheet = np.asarray(grid(cells, columns=2, gap=3))
    assert sheet.shape == (3 * 6 + 4 * 3, 2 * 10 + 3 * 3, 3)
    for shade in range(1, 6):
        assert (sheet == (shade, 0, 0)).all(axis=2).sum() == 60


def test_legend_shows_every_class_within_its_width() -> None:
    classes = [f"class with a long name {number}" for number in range(12)]
    palette = [(20 * number, 7, 9) for number in range(12)]
    picture = legend(classes, palette, width=400)
    assert picture.width == 400
    pixels = np.asarray(picture)
    for colour in palette:
        assert (pixels == colour).all(axis=2).sum() > 100


def test_stack_keeps_everything() -> None:
    sheet = stack([Image.new("RGB", (4, 3), (1, 1, 1)), Image.new("RGB", (6, 2), (2, 2, 2))])
    assert sheet.size == (6, 5)
    assert (np.asarray(sheet) == 1).all(axis=2).sum() == 12
