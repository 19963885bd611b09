import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inference.dense_crf.brute_force import kernel
from pipeline.inference.dense_crf.portable import (
    Lattice,
    halved,
    normalised_term,
    simplices,
    smoothness,
    worth_keeping,
)


def features(seed: int, dims: int, count: int, spread: float) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, spread, (dims, count))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.1, 300))
@settings(max_examples=40, deadline=None)
def test_points_lie_within_their_simplices(seed: int, dims: int, spread: float) -> None:
    weights, corners = simplices(features(seed, dims, 30, spread))
    assert weights.min() >= -1e-9
    assert weights.sum(axis=1) == pytest.approx(1)
    # All coordinates of corner k leave the remainder k.
    assert (corners % (dims + 1) == np.arange(dims + 1)[None, :, None]).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_corners_average_to_the_point(seed: int, dims: int) -> None:
    points = features(seed, dims, 20, 30)
    weights, corners = simplices(points)
    averages = np.einsum("nk,nkd->nd", weights, corners)
    axes = np.arange(1, dims + 1)
    scaled = points * ((dims + 1) * np.sqrt(2 / 3) / np.sqrt(axes * (axes + 1)))[:, None]
    for n in range(20):
        for i in range(dims):
            wanted = scaled[i:, n].sum() - (i * scaled[i - 1, n] if i else 0)
            assert averages[n, i] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("dims", [2, 5])
def test_the_lattice_filters_as_a_gaussian_does(dims: int) -> None:
    points = features(1, dims, 1500, 3.0)
    values = np.random.default_rng(2).normal(0, 1, (1500, 2)).astype(np.float32)
    values += points[0, :, None]
    filter = Lattice(points)
    exact = kernel(points)
    ours = filter(values) / filter(np.ones((1500, 1), np.float32))
    wanted = (exact @ values) / exact.sum(axis=1, keepdims=True)
    assert np.abs(ours - wanted).mean() < 0.1 * wanted.std()


@pytest.mark.parametrize("sigma", [0.7, 2.0])
@pytest.mark.parametrize("size", [(9, 12), (1, 7), (1, 1)])
def test_the_smoothness_kernel_is_the_gaussian_over_pixels(
    sigma: float, size: tuple[int, int]
) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    exact = kernel(np.stack([rows.ravel(), columns.ravel()]) / sigma)
    ours = smoothness(sigma, 1, *size)(np.eye(size[0] * size[1], dtype=np.float32))
    np.testing.assert_allclose(ours, exact, atol=1e-3)


def test_the_smoothness_kernel_between_cells_is_the_mean_over_their_pixels() -> None:
    generator = np.random.default_rng(4)
    cells = generator.random((5, 6, 2)).astype(np.float32)
    pixels = cells.repeat(2, axis=0).repeat(2, axis=1)
    filtered = smoothness(1.5, 1, 10, 12)(pixels.reshape(-1, 2)).reshape(10, 12, 2)
    ours = smoothness(1.5, 2, 5, 6)(cells.reshape(-1, 2)).reshape(5, 6, 2)
    np.testing.assert_allclose(ours, halved(filtered), rtol=1e-4)


@pytest.mark.parametrize("normalisation", ["symmetric", "after"])
def test_normalised_messages_of_ones_are_near_one(normalisation: str) -> None:
    term = normalised_term(smoothness(2.0, 1, 20, 20), 400, normalisation)  # type: ignore[arg-type]
    ones = term.messages(np.ones((400, 1), np.float32)).reshape(20, 20)
    if normalisation == "after":
        np.testing.assert_allclose(ones, 1, rtol=1e-5)
    else:
        np.testing.assert_allclose(ones[10, 10], 1, rtol=1e-2)
        assert 0.75 < ones.min() < ones.max() < 1.1


def test_halving_takes_means_and_repeats_the_odd_end() -> None:
    plane = np.arange(15, dtype=np.float32).reshape(3, 5, 1)
    assert halved(plane)[..., 0].tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]


def test_the_least_likely_classes_are_left_out_up_to_a_sum() -> None:
    maps = np.array([[0.04, 0.01], [0.9, 0.9], [0.02, 0.05], [0.03, 0.03], [0.01, 0.01]])
    maps = maps.astype(np.float32).reshape(5, 1, 2)
    assert worth_keeping(maps, 0.0) == [0, 1, 2, 3, 4]
    assert worth_keeping(maps, 0.02) == [0, 1, 2, 3]
    assert worth_keeping(maps, 0.05) == [0, 1, 2]
    assert worth_keeping(maps, 9.0) == [1]
    assert worth_keeping(maps[:1], 9.0) == [0]


def test_a_class_that_wins_somewhere_is_never_left_out() -> None:
    maps = np.full((60, 4, 4), 1 / 60, np.float32)
    assert len(worth_keeping(maps, 0.1)) == 60
    maps[17] += 0.001
    maps[3, 1, 1] += 0.002
    assert {3, 17} <= set(worth_keeping(maps, 0.1))
    assert len(worth_keeping(maps, 0.1)) == 2 + 58 - 5
