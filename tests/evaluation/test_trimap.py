import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_dilation

from pipeline.evaluation.trimap import FAR, band_accuracies, band_index, band_mious, border_distance

Labels = npt.NDArray[np.uint8]
VOID = 255
#: Label maps of a few classes and void, in patches large enough for wide bands.
MAPS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([0, 1, 2, VOID]),
).flatmap(lambda small: st.integers(1, 4).map(lambda n: np.kron(small, np.ones((n, n), np.uint8))))


def distance_by_hand(labels: Labels) -> npt.NDArray[np.int64]:
    """Every pixel against every other."""
    height, width = labels.shape
    found = np.full(labels.shape, FAR)
    for y in range(height):
        for x in range(width):
            for v in range(height):
                for u in range(width):
                    if labels[v, u] != labels[y, x]:
                        found[y, x] = min(found[y, x], max(abs(v - y), abs(u - x)))
    return found


def ringed(side: int = 40) -> Labels:
    """A square and a disc, each in a ring of void two pixels wide, as in PASCAL VOC."""
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.uint8)
    for label, distance in (
        (1, np.maximum(abs(y - 10), abs(x - 12))),
        (2, np.hypot(y - 28, x - 27)),
    ):
        labels[distance < 8] = VOID
        labels[distance < 6] = label
    return labels


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)),
              elements=st.sampled_from([0, 1, VOID])))  # fmt: skip
def test_distance_is_that_of_the_nearest_other_label(labels: Labels) -> None:
    assert np.array_equal(border_distance(labels), distance_by_hand(labels))


@given(MAPS)
def test_a_band_is_the_dilation_of_all_that_is_labelled_otherwise(labels: Labels) -> None:
    widths = (1, 2, 3, 5)
    index = band_index(labels, widths)
    for place, width in enumerate(widths):
        square = np.ones((2 * width + 1, 2 * width + 1), bool)
        expected = np.zeros(labels.shape, bool)
        for label in np.unique(labels):
            own = labels == label
            expected |= own & binary_dilation(~own, square)
        assert np.array_equal(index <= place, expected)


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_with_objects_ringed_by_void_it_is_the_papers_band(width: int) -> None:
    labels = ringed()
    scored = labels != VOID
    papers = binary_dilation(labels == VOID, np.ones((2 * width + 1, 2 * width + 1), bool)) & scored
    assert np.array_equal((band_index(labels, [width]) == 0) & scored, papers)


@given(MAPS)
def test_it_turns_with_the_picture_and_does_not_depend_on_the_numbers(labels: Labels) -> None:
    distance = border_distance(labels)
    assert np.array_equal(border_distance(labels.T), distance.T)
    assert np.array_equal(border_distance(labels[::-1]), distance[::-1])
    renamed = np.where(labels == VOID, 7, labels + 1).astype(np.uint8)
    assert np.array_equal(border_distance(renamed), distance)


def test_one_label_has_no_border() -> None:
    labels = np.full((5, 9), 3, np.uint8)
    assert (border_distance(labels) == FAR).all()
    assert (band_index(labels, [1, 2, 40]) == 3).all()
    assert (border_distance(np.zeros((1, 1), np.uint8)) == FAR).all()
    assert (band_index(np.zeros((1, 1), np.uint8), [1, 2]) == 2).all()


def test_figures_of_a_band_are_of_the_classes_in_it() -> None:
    # Two classes, two widths; class 1 is not in the narrow band.
    counts = np.array([[[6, 6], [0, 3]], [[8, 8], [0, 4]], [[6, 7], [2, 5]]], np.int64)
    np.testing.assert_allclose(band_mious(counts), [100 * 6 / 8, (100 * 6 / 9 + 100 * 3 / 6) / 2])
    np.testing.assert_allclose(band_accuracies(counts), [75, 75])
    empty = np.zeros((3, 2, 2), np.int64)
    assert np.isnan(band_mious(empty)).all() and np.isnan(band_accuracies(empty)).all()
