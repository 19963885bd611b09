import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.transforms import VOID, TrainTransform, resize

FILL = (0.1, 0.2, 0.3)
#: A colour a class, far enough apart that interpolation cannot turn one into another.
COLORS = torch.tensor([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)


def painted(height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of large blocks in the colour of their class, and its label."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(4, (height // 16 + 1, width // 16 + 1), generator=generator)
    label = blocks.repeat_interleave(16, 0).repeat_interleave(16, 1)[:height, :width]
    return COLORS[label].permute(2, 0, 1).contiguous(), label.to(torch.uint8)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 150),
    width=st.integers(20, 150),
    seed=st.integers(0, 10_000),
    crop=st.sampled_from([33, 65, 97]),
)
def test_image_and_label_move_together(height: int, width: int, seed: int, crop: int) -> None:
    image, label = painted(height, width, seed)
    torch.manual_seed(seed)
    moved, moved_label = TrainTransform(crop, 0.5, 2.0, 0.25, True, False, FILL)(image, label)
    assert moved.shape == (3, crop, crop)
    assert moved_label.shape == (crop, crop)
    valid = moved_label != VOID
    pixels = moved.permute(1, 2, 0)[valid]
    nearest = torch.cdist(pixels, COLORS.float() / 255).argmin(1)
    # Only the seams between blocks, blurred by the interpolation, may read as another class.
    assert (nearest == moved_label[valid]).float().mean() > 0.8
    exact = (pixels - COLORS.float()[nearest] / 255).abs().amax(1) < 0.02
    assert (nearest == moved_label[valid])[exact].all()


@settings(max_examples=25, deadline=None)
@given(height=st.integers(20, 120), width=st.integers(20, 120), seed=st.integers(0, 10_000))
def test_no_crop_invents_a_class_and_padding_is_void_and_mean(
    height: int, width: int, seed: int
) -> None:
    image, label = painted(height, width, seed)
    label[0, 0] = VOID
    torch.manual_seed(seed)
    moved, moved_label = TrainTransform(97, 0.5, 1.0, 0.25, True, True, FILL)(image, label)
    assert set(moved_label.unique().tolist()) <= set(label.unique().tolist()) | {VOID}
    # The bottom right corner is padding whenever the image is smaller than the crop.
    if height < 97:
        assert (moved_label[-1] == VOID).all()
        assert torch.allclose(moved[:, -1, -1], torch.tensor(FILL))


def test_a_label_is_scaled_about_pixel_centres() -> None:
    label = torch.arange(8, dtype=torch.uint8).repeat(8, 1)
    image = label.repeat(3, 1, 1) * 10
    _, doubled = resize(image, label, 2.0)
    assert doubled[0].tolist() == [value for value in range(8) for _ in range(2)]
    scaled, halved = resize(image, label, 0.5)
    # Half of a ramp: each label lies within the pair of columns that its image averages.
    assert ((scaled[0, 0] - halved[0] * 10.0).abs() <= 10).all()


def test_the_scales_are_the_papers_grid() -> None:
    transform = TrainTransform(33, 0.5, 2.0, 0.25, True, False, FILL)
    assert transform.scales == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
