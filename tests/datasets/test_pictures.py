import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.pictures import (
    colourise,
    fit,
    grid,
    legend,
    outline,
    overlay,
    pair,
    percent,
    stack,
)

PALETTE = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
LABELS = np.array([[0, 1, 2, 255]], dtype=np.uint8).repeat(20, axis=1).repeat(30, axis=0)
IMAGE = np.full((30, 80, 3), (10, 20, 30), dtype=np.uint8)


def test_classes_have_their_colours() -> None:
    coloured = colourise(LABELS, PALETTE)
    for number, colour in enumerate(PALETTE):
        assert (coloured[LABELS == number] == colour).all()


@pytest.mark.parametrize("shade", [0, 20, 128, 255])
def test_void_is_hatched_black_and_white_on_any_image(shade: int) -> None:
    image = np.full_like(IMAGE, shade)
    drawn = overlay(image, LABELS, PALETTE)[LABELS == 255]
    for colour in (0, 255):
        lines = (drawn == colour).all(axis=1).mean()
        assert 0.15 < lines < 0.35 or shade == colour


def test_no_class_is_hatched() -> None:
    drawn = overlay(IMAGE, LABELS, PALETTE)
    for number in range(len(PALETTE)):
        assert len(np.unique(drawn[LABELS == number], axis=0)) == 1


def test_void_leaves_the_image_between_the_lines() -> None:
    drawn = overlay(IMAGE, LABELS, PALETTE)[LABELS == 255]
    between = drawn[~((drawn == 255) | (drawn == 0)).all(axis=1)]
    assert (between == (10, 20, 30)).all()
    assert 0.4 < len(between) / len(drawn) < 0.6


def test_borders_are_outlined_black_beside_white_and_all_else_is_the_image() -> None:
    drawn = outline(IMAGE, LABELS)
    # The labels change after columns 19, 39 and 59.
    for column in (19, 39, 59):
        assert (drawn[:, column] == 255).all()
        assert (drawn[:, column + 1] == 0).all()
    elsewhere = [column for column in range(80) if column % 20 not in (19, 0) or column in (0, 79)]
    np.testing.assert_array_equal(drawn[:, elsewhere], IMAGE[:, elsewhere])
    turned = outline(IMAGE.swapaxes(0, 1), LABELS.T).swapaxes(0, 1)
    np.testing.assert_array_equal(turned, drawn)


def test_a_shifted_mask_is_outlined_elsewhere() -> None:
    labels = np.zeros((30, 80), dtype=np.uint8)
    labels[8:20, 30:50] = 1
    # The image is of the object itself: outlined rightly, the lines lie on its edge.
    image = np.where(labels[..., None] == 1, np.uint8(200), np.uint8(90)).repeat(3, axis=2)
    right, shifted = outline(image, labels), outline(image, np.roll(labels, 4, axis=1))
    edge = np.zeros_like(labels, dtype=bool)
    edge[:, 29:31] = edge[:, 49:51] = True
    assert np.isin(right[10:18][edge[10:18]], (0, 255)).all()
    assert not np.isin(shifted[10:18][edge[10:18]], (0, 255)).any()


@given(st.floats(0, 1))
def test_alpha_mixes_image_and_colour(alpha: float) -> None:
    drawn = overlay(IMAGE, np.ones((30, 80), dtype=np.uint8), PALETTE, alpha)
    expected = (1 - alpha) * np.array([10, 20, 30]) + alpha * np.array([200, 0, 0])
    np.testing.assert_allclose(drawn[3, 4], expected, atol=0.51)
    assert drawn.dtype == np.uint8


def test_drawing_leaves_its_arguments_alone() -> None:
    image, labels = IMAGE.copy(), LABELS.copy()
    overlay(image, labels, PALETTE)
    outline(image, labels)
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


def test_pair_shows_the_outlined_image_and_beside_it_the_labels_on_grey() -> None:
    grey = np.asarray(Image.fromarray(IMAGE).convert("L").convert("RGB"))
    cell = np.asarray(pair(IMAGE, LABELS, PALETTE, "an image", side=80))
    np.testing.assert_array_equal(cell[-30:, :80], outline(IMAGE, LABELS))
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


def test_legend_says_shares_and_what_they_are_of() -> None:
    classes, palette = ["one", "two"], [(200, 0, 0), (0, 0, 200)]
    plain = np.asarray(legend(classes, palette, 600))
    said = [
        np.asarray(legend(classes, palette, 600, shares))
        for shares in ([0.5, 0.00001, 0.2], [0.5, 0.1, 0.2])
    ]
    assert said[0].shape == said[1].shape == plain.shape
    assert (said[0] != said[1]).any()
    noted = np.asarray(legend(classes, palette, 600, [0.5, 0.1, 0.2], note="of all pixels"))
    assert noted.shape[0] > plain.shape[0]
    assert (noted[plain.shape[0] - 5 :] < 128).any()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.71234, "71 %"),
        (0.0995, "10 %"),
        (0.0341, "3.4 %"),
        (0.0005, "0.05 %"),
        (0.00001, "<0.01 %"),
        (0.0, "0 %"),
    ],
)
def test_shares_are_written_with_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


def test_stack_keeps_everything() -> None:
    sheet = stack([Image.new("RGB", (4, 3), (1, 1, 1)), Image.new("RGB", (6, 2), (2, 2, 2))])
    assert sheet.size == (6, 5)
    assert (np.asarray(sheet) == 1).all(axis=2).sum() == 12
