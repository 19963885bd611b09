import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets.outlines import DIRECTIONS, box, disc, grid, polygon, star
from pipeline.datasets.scenery import VOID
from pipeline.datasets.shapes import CLASSES, PALETTE, SPLITS, generate, scene
from pipeline.datasets.textures import Dice, noise
from pipeline.errors import UserError

IMAGES = 60


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    """Labels of the first images of each split, (images, 128, 128)."""
    return {
        split: np.stack([scene(0, split, index)[1] for index in range(IMAGES)]) for split in SPLITS
    }


@pytest.mark.parametrize(
    ("seed", "split", "index", "side", "digest"),
    [
        (0, "train", 0, 128, "9fa80fbef173ce1d2ac1480af6d529bc9b1e23913fdecaccd684015094715a4f"),
        (0, "val", 17, 128, "9cc20c9ca9f6ae451cbe935b4ff212d706e381e75f838d6dc90d92aaf9277301"),
        (7, "test", 3, 128, "257c6fb8dc9da0f10ee85a816dba6d0e1f1a3316ce42973fef2e66b9b18624ec"),
        (0, "train", 5, 64, "317d3c9542edea5804fe5ee727aa4b3d3ee442ede8bd88fa11fda7f411ce3fa0"),
    ],
)
def test_a_scene_has_the_same_bytes_on_every_machine(
    seed: int, split: str, index: int, side: int, digest: str
) -> None:
    image, label = scene(seed, split, index, side)
    assert hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest() == digest


def test_files_hold_the_scenes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    sizes = {"train": 52, "val": 3, "test": 2}
    generate(tmp_path / "one", 4, sizes, side=32, workers=1)
    generate(tmp_path / "two", 4, sizes, side=32, workers=2)
    files = {path.relative_to(tmp_path / "one") for path in tmp_path.glob("one/**/*.bmp")}
    assert len(files) == 2 * sum(sizes.values())
    assert files == {path.relative_to(tmp_path / "two") for path in tmp_path.glob("two/**/*.*")}
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    image, label = scene(4, "val", 2, 32)
    with Image.open(tmp_path / "one/val/images/0002.bmp") as written:
        assert written.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(written), image)
    with Image.open(tmp_path / "one/val/labels/0002.bmp") as written:
        assert written.mode == "P"
        np.testing.assert_array_equal(np.asarray(written), label)
        colours = np.asarray(written.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(colours[: len(PALETTE)], PALETTE)


def test_a_width_that_is_no_multiple_of_four_is_written_right(tmp_path: Path) -> None:
    generate(tmp_path, 1, {"test": 1}, side=37)
    image, label = scene(1, "test", 0, 37)
    for kind, expected in (("images", image), ("labels", label)):
        with Image.open(tmp_path / "test" / kind / "0000.bmp") as written:
            np.testing.assert_array_equal(np.asarray(written), expected)


def test_generating_again_leaves_no_image_of_before(tmp_path: Path) -> None:
    generate(tmp_path, 0, {"val": 3}, side=32)
    generate(tmp_path, 0, {"val": 2}, side=32)
    assert [path.name for path in sorted(tmp_path.glob("val/images/*"))] == ["0000.bmp", "0001.bmp"]
    assert [path.name for path in tmp_path.iterdir()] == ["val"]


def test_seeds_splits_and_indices_give_different_scenes() -> None:
    keys = [(0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)]
    assert len({scene(*key, 32)[0].tobytes() for key in keys}) == len(keys)


def test_every_class_is_in_a_fair_share_of_every_split(labels: dict[str, np.ndarray]) -> None:
    for split, maps in labels.items():
        for number, name in enumerate(CLASSES):
            share = (maps == number).any(axis=(1, 2)).mean()
            assert share >= 0.15, f"{name} in {share:.0%} of {split}"


def test_labels_are_class_numbers_or_void_and_background_is_about_half(
    labels: dict[str, np.ndarray],
) -> None:
    for maps in labels.values():
        assert set(np.unique(maps)) == {*range(len(CLASSES)), VOID}
        assert 0.35 < (maps == 0).mean() < 0.65


def test_void_borders_are_thin_and_part_every_two_classes(labels: dict[str, np.ndarray]) -> None:
    for maps in labels.values():
        void = maps == VOID
        assert 0.02 < void.mean() < 0.08
        # Two borders may touch and cross, but nearly no void pixel has void all around it.
        deep = void[:, 1:-1, 1:-1] & void[:, :-2, 1:-1] & void[:, 2:, 1:-1]
        deep &= void[:, 1:-1, :-2] & void[:, 1:-1, 2:]
        assert deep.sum() < 0.01 * void.sum()
        for first, second in ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])):
            meet = (first != second) & (first != VOID) & (second != VOID)
            assert not meet.any()


def test_objects_range_from_a_few_pixels_to_most_of_the_image(
    labels: dict[str, np.ndarray],
) -> None:
    maps = np.concatenate(list(labels.values()))
    areas = {
        name: (maps == number).sum(axis=(1, 2))[(maps == number).any(axis=(1, 2))]
        for number, name in enumerate(CLASSES)
    }
    pixels = maps[0].size
    assert areas["sea"].max() > 0.6 * pixels
    assert np.median(areas["dot"]) < 0.03 * pixels
    assert np.median(areas["slab"]) > 4 * np.median(areas["chip"])


def test_no_mean_colour_gives_a_class_away() -> None:
    """Within a look-alike pair the classes' mean colours overlap; between images they move."""
    means: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    for index in range(40):
        image, label = scene(0, "train", index)
        for number in np.unique(label[label != VOID]):
            means[CLASSES[number]].append(image[label == number].mean(axis=0))
    for first, second in (("core", "patch"), ("disc", "star"), ("slab", "chip")):
        a, b = np.stack(means[first]), np.stack(means[second])
        assert np.abs(a.mean(axis=0) - b.mean(axis=0)).max() < a.std(axis=0).max() + 5
        assert a.std(axis=0).max() > 10


@pytest.mark.parametrize(
    ("seed", "sizes", "side", "message"),
    [
        (0, {"trian": 1}, 64, "did you mean 'train'"),
        (0, {"val": -1}, 64, "-1 images for split 'val'"),
        (-1, {"val": 1}, 64, "seed -1"),
        (0, {"val": 1}, 16, "side 16"),
    ],
)
def test_what_cannot_be_generated_is_refused(
    seed: int, sizes: dict[str, int], side: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        generate(tmp_path, seed, sizes, side=side)
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 2**40), st.integers(-9, 9), st.integers(0, 9))
@settings(deadline=None)
def test_dice_stay_within_their_bounds(seed: int, low: int, span: int) -> None:
    dice = Dice(seed)
    assert all(low <= dice.integer(low, low + span) <= low + span for _ in range(20))
    assert all(low <= dice.uniform(low, low + 0.5) < low + 0.5 for _ in range(20))
    assert sorted(dice.shuffled(range(span))) == list(range(span))


def test_dice_reach_every_face_about_equally_often() -> None:
    dice = Dice(3)
    counts = np.bincount([dice.integer(0, 5) for _ in range(6000)], minlength=6)
    assert counts.min() > 850
    assert counts.max() < 1150


@given(st.integers(0, 119), st.floats(3.0, 20.0), st.floats(3.0, 20.0))
@settings(deadline=None, max_examples=30)
def test_a_box_is_the_polygon_of_its_corners(k: int, half_u: float, half_v: float) -> None:
    x, y = grid(24, 64.0)
    dx, dy = DIRECTIONS[k]
    corners = [
        (32 + a * half_u * dx - b * half_v * dy, 32 + a * half_u * dy + b * half_v * dx)
        for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    ]
    difference = box(x, y, (32.0, 32.0), (half_u, half_v), (dx, dy)) - polygon(x, y, corners)
    # The directions are rounded to 1/4096, so they are not exactly of length 1.
    assert np.abs(difference).max() < 0.05


@given(st.integers(5, 8), st.integers(0, 119), st.floats(0.3, 0.8))
@settings(deadline=None, max_examples=30)
def test_a_star_lies_between_the_circles_of_its_notches_and_tips(
    spikes: int, turned: int, ratio: float
) -> None:
    x, y = grid(48, 64.0)
    centre, tip = (30.0, 33.0), 25.0
    inside = star(x, y, centre, (ratio * tip, tip), spikes, turned) < 0
    assert not inside[disc(x, y, centre, tip + 0.1) > 0].any()
    # Between two tips the side is a straight line, so it dips a little below the notch's circle
    # only where the notch is shallow.
    assert inside[disc(x, y, centre, 0.8 * ratio * tip) < 0].all()


def test_noise_is_smooth_and_bounded() -> None:
    x, y = grid(256, 128.0)
    values = noise(Dice(5), x, y, 10.0)
    assert values.shape == (256, 256)
    assert np.abs(values).max() <= 1.0
    assert np.abs(np.diff(values, axis=0)).max() < 2 * 1.5 * 0.5 / 10.0 + 1e-9
