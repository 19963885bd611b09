import numpy as np
import numpy.typing as npt
import pytest

from pipeline.evaluation.bootstrap import Interval, difference_interval, miou_interval
from pipeline.evaluation.confusion import mean_iou

Counts = npt.NDArray[np.int64]


def images(seed: int, count: int = 60, classes: int = 4, skill: float = 0.8) -> Counts:
    """Counts of images that are easy or hard, count x 3 x C; not every class is in each."""
    rng = np.random.default_rng(seed)
    true = rng.integers(50, 400, (count, classes)) * (rng.random((count, classes)) < 0.6)
    share = np.clip(rng.normal(skill, 0.15, (count, 1)), 0, 1)
    hits = (true * share).astype(np.int64)
    predicted = hits + rng.integers(0, 60, true.shape)
    return np.stack([hits, true, predicted], axis=1)


def miou(counts: Counts) -> float:
    return float(mean_iou(counts.sum(axis=0)))


def by_hand(counts: Counts, resamples: int, seed: int) -> list[float]:
    """Percentiles of the mIoUs of the same draws, one resample after the other."""
    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    return list(np.percentile([miou(counts[rows]) for rows in drawn], [2.5, 97.5]))


def test_the_interval_is_that_of_resampling_whole_images_one_by_one() -> None:
    counts = images(0)
    interval = miou_interval(counts, resamples=300, seed=5)
    assert interval is not None
    assert [interval.low, interval.high] == pytest.approx(by_hand(counts, 300, 5), rel=1e-12)
    assert interval.holds(miou(counts))


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = images(1)
    assert miou_interval(counts) == miou_interval(list(counts)) == miou_interval(counts.copy())
    assert miou_interval(counts, seed=1) != miou_interval(counts)


def test_it_covers_the_figure_of_the_population_about_as_often_as_it_says() -> None:
    population = images(2, count=4000)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        sample = population[rng.choice(len(population), 80, replace=False)]
        interval = miou_interval(sample, resamples=200)
        assert interval is not None
        covered += interval.holds(miou(population))
    # 95 % of 200 is 190, two deviations are 6; a percentile bootstrap is a little narrow.
    assert 180 <= covered <= 200


def test_more_images_make_it_narrower() -> None:
    widths = []
    for count in (20, 80, 320, 1280):
        interval = miou_interval(images(3, count))
        assert interval is not None
        widths.append(interval.half_width)
    assert widths == sorted(widths, reverse=True)
    # With four times the images about half as wide.
    assert widths[1] / widths[3] == pytest.approx(4, rel=0.4)


def test_the_difference_of_identical_predictions_is_exactly_nothing() -> None:
    assert difference_interval(images(4), images(4)) == Interval(0.0, 0.0)


def test_a_small_difference_on_every_image_is_certain_though_both_intervals_overlap() -> None:
    worse = images(5)
    better = worse.copy()
    better[:, 0] += (worse[:, 1] - worse[:, 0]) // 20
    better[:, 2] += (worse[:, 1] - worse[:, 0]) // 20
    apart = difference_interval(better, worse)
    one, other = miou_interval(better), miou_interval(worse)
    assert apart is not None and one is not None and other is not None
    assert one.low < other.high
    assert apart.low > 0 and not apart.holds(0.0)
    assert apart.low <= miou(better) - miou(worse) <= apart.high
    turned = difference_interval(worse, better)
    assert turned is not None
    assert (turned.low, turned.high) == pytest.approx((-apart.high, -apart.low))


def test_unlike_images_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="60 and 59 images cannot be paired"):
        difference_interval(images(0), images(0)[1:])


def test_one_image_has_no_spread() -> None:
    one = images(0, count=1)
    assert miou_interval(one) is None and difference_interval(one, one) is None
    assert miou_interval(one[:0]) is None


def test_images_that_are_wholly_void_have_no_interval() -> None:
    assert miou_interval(np.zeros((5, 3, 2), np.int64)) is None


def test_a_class_that_a_resample_misses_is_absent_from_its_mean() -> None:
    # Class 1 is in one image of two and always found; class 0 always has IoU 50.
    counts = np.array([[[1, 0], [2, 0], [1, 0]], [[1, 5], [2, 5], [1, 5]]])
    interval = miou_interval(counts, resamples=200)
    assert interval == Interval(50.0, 75.0)


def test_millions_of_pixels_stay_exact() -> None:
    counts = np.full((3000, 3, 2), 2**30, np.int32)
    assert miou_interval(counts) == Interval(100.0, 100.0)
