from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as nn_functional

from pipeline.datasets.transforms import VOID, TrainTransform, scaled_crop, scaled_crop_of_label

FILL = (0.1, 0.2, 0.3)
FILL_LEVELS = torch.tensor([26, 51, 76], dtype=torch.uint8)
#: A colour a class, far enough apart that interpolation cannot turn one into another.
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
#: The papers' scales, and some that are no simple fraction.
SCALES = ["0.5", "0.75", "1.0", "1.25", "1.5", "1.75", "2.0", "0.9", "1.1", "0.55", "0.333", "3"]

sides = st.integers(4, 150)
seeds = st.integers(0, 10_000)


def painted(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of large blocks in the colour of their class, and its label."""
    blocks = np.random.default_rng(seed).integers(4, size=(height // 16 + 1, width // 16 + 1))
    label = blocks.repeat(16, 0).repeat(16, 1)[:height, :width]
    return COLOURS[label], label.astype(np.uint8)


def augment(
    image: np.ndarray, label: np.ndarray, seed: int, crop: int = 65, **changes: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    values: dict[str, Any] = {
        "scale_min": 0.5,
        "scale_max": 2.0,
        "scale_step": 0.25,
        "flip": True,
        "photometric": False,
        "fill": FILL,
    }
    transform = TrainTransform(crop, **(values | changes))
    return transform(image, label, np.random.default_rng(seed))


@settings(max_examples=150, deadline=None)
@given(sides, sides, seeds, st.sampled_from([33, 64, 65, 97]), st.sampled_from(SCALES))
def test_a_label_painted_into_the_image_comes_back_where_the_label_is(
    height: int, width: int, seed: int, crop: int, scale: str
) -> None:
    image, label = painted(height, width, seed)
    factor = float(scale)
    view, view_label = augment(image, label, seed, crop, scale_min=factor, scale_max=factor)
    assert view.shape == (crop, crop, 3)
    assert view_label.shape == (crop, crop)
    assert view.dtype == view_label.dtype == torch.uint8
    shown = view_label != VOID
    # A pixel of exactly a class's colour is of that class: the blends on the seams are of none.
    for number, colour in enumerate(COLOURS):
        exact = (view == torch.from_numpy(colour)).all(-1) & shown
        assert (view_label[exact] == number).all()
    distances = torch.cdist(view[shown].float(), torch.from_numpy(COLOURS).float())
    wrong = distances.argmin(1) != view_label[shown]
    # Seams are 16 * scale pixels apart and at most about a pixel wide.
    assert wrong.float().mean() < 0.35


@settings(max_examples=100, deadline=None)
@given(sides, sides, seeds, st.sampled_from(SCALES), st.floats(0, 1))
def test_no_crop_invents_a_class_and_void_never_becomes_one(
    height: int, width: int, seed: int, scale: str, share: float
) -> None:
    image, label = painted(height, width, seed)
    label[np.random.default_rng(seed).random(label.shape) < share] = VOID
    # Void, and nothing else, is white: what is purely white in the view shows void alone.
    image[label == VOID] = 255
    factor = float(scale)
    view, view_label = augment(image, label, seed, scale_min=factor, scale_max=factor)
    assert set(view_label.unique().tolist()) <= set(np.unique(label).tolist()) | {VOID}
    assert (view_label[(view == 255).all(-1)] == VOID).all()


@settings(max_examples=60, deadline=None)
@given(sides, sides, seeds, st.booleans())
def test_padding_is_void_and_the_mean_pixel(
    height: int, width: int, seed: int, photometric: bool
) -> None:
    image, label = painted(height, width, seed)
    view, view_label = augment(image, label, seed, crop=401, photometric=photometric)
    rows, columns = (int((view_label != VOID).any(axis).sum()) for axis in (1, 0))
    assert 0.5 * height - 1 <= rows <= 2 * height
    assert 0.5 * width - 1 <= columns <= 2 * width
    # The image is in the top left corner, whole; all else is padding.
    assert (view_label[:rows, :columns] != VOID).all()
    for outside in ((slice(rows, None),), (slice(None), slice(columns, None))):
        assert (view_label[outside] == VOID).all()
        assert (view[outside] == FILL_LEVELS).all()


@settings(max_examples=150, deadline=None)
@given(st.data(), sides, sides, seeds, st.sampled_from(SCALES))
def test_a_crop_is_that_of_the_whole_image_scaled_to_the_last_bit(
    data: st.DataObject, height: int, width: int, seed: int, text: str
) -> None:
    scale = Fraction(text)
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = generator.integers(0, 21, (height, width), dtype=np.uint8)
    rows, columns = (data.draw(windows(int(side * scale))) for side in (height, width))
    whole = nn_functional.interpolate(
        torch.from_numpy(image)[None].permute(0, 3, 1, 2),
        scale_factor=(float(scale) * (1 + 1e-12),) * 2,
        mode="bilinear",
        antialias=True,
    )[0].permute(1, 2, 0)
    assert whole.shape[:2] == (int(height * scale), int(width * scale))
    expected = whole[rows.start : rows.stop, columns.start : columns.stop]
    assert torch.equal(scaled_crop(image, scale, rows, columns), expected)
    whole_label = scaled_crop_of_label(
        label, scale, range(int(height * scale)), range(int(width * scale))
    )
    part = scaled_crop_of_label(label, scale, rows, columns)
    assert torch.equal(part, whole_label[rows.start : rows.stop, columns.start : columns.stop])


def windows(side: int) -> st.SearchStrategy[range]:
    """Any part of a side."""
    if side == 0:
        return st.just(range(0))
    return st.integers(0, side - 1).flatmap(
        lambda start: st.integers(start + 1, side).map(lambda stop: range(start, stop))
    )


def test_a_label_is_scaled_about_pixel_centres() -> None:
    label = np.arange(8, dtype=np.uint8)[None].repeat(8, 0)
    image = (label * 10)[..., None].repeat(3, 2)
    doubled = scaled_crop_of_label(label, Fraction(2), range(16), range(16))
    assert doubled[0].tolist() == [value for value in range(8) for _ in range(2)]
    halved = scaled_crop_of_label(label, Fraction(1, 2), range(4), range(4))
    scaled = scaled_crop(image, Fraction(1, 2), range(4), range(4))
    # Half of a ramp: each label lies within the pair of columns that its image averages.
    assert ((scaled[0, :, 0].float() - halved[0] * 10.0).abs() <= 10).all()


def test_scaling_by_one_crops_and_mirrors_and_does_nothing_else() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (90, 110, 3), dtype=np.uint8)
    label = generator.integers(0, 21, (90, 110), dtype=np.uint8)
    mirrors = 0
    for seed in range(20):
        view, view_label = augment(image, label, seed, scale_min=1.0, scale_max=1.0)
        places = [
            (top, left, step)
            for top in range(26)
            for left in range(46)
            for step in (1, -1)
            if (view_label.numpy() == label[top : top + 65, left : left + 65][:, ::step]).all()
        ]
        assert len(places) == 1
        top, left, step = places[0]
        mirrors += step == -1
        expected = image[top : top + 65, left : left + 65][:, ::step]
        np.testing.assert_array_equal(view.numpy(), expected)
    assert 3 <= mirrors <= 17


def test_every_place_and_scale_is_drawn() -> None:
    image, label = painted(66, 67, 0)
    label = np.arange(66 * 67, dtype=np.int64).reshape(66, 67).astype(np.uint8)
    views = [
        augment(image, label, seed, scale_min=1.0, scale_max=1.0, flip=False) for seed in range(60)
    ]
    corners = {int(view_label[0, 0]) for _, view_label in views}
    assert len(corners) == 2 * 3
    heights = {int((augment(*painted(20, 20, 0), seed)[1] != VOID).sum()) for seed in range(100)}
    assert heights == {int(20 * scale) ** 2 for scale in (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2)}


def test_the_scales_are_the_papers_grid() -> None:
    transform = TrainTransform(33, 0.5, 2.0, 0.25, True, False, FILL)
    assert transform.scales == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    tenths = TrainTransform(33, 0.7, 1.3, 0.1, True, False, FILL).scales
    assert tenths == [Fraction(number, 10) for number in range(7, 14)]


def test_an_image_too_thin_to_be_shrunk_is_taken_as_it_is() -> None:
    image, label = painted(1, 40, 0)
    view, view_label = augment(image, label, 0, scale_min=0.5, scale_max=0.5, flip=False)
    np.testing.assert_array_equal(view[0, :40].numpy(), image[0])
    assert (view_label != VOID).sum() == 40


def test_distortion_changes_colours_and_leaves_label_and_generator_alone() -> None:
    image, label = painted(80, 80, 1)
    plain, distorted = (augment(image, label, 5, photometric=on) for on in (False, True))
    assert torch.equal(plain[1], distorted[1])
    assert not torch.equal(plain[0], distorted[0])
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    again = augment(image, label, 5, photometric=True)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(again[0], distorted[0])
