import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.inference.whole_image import (
    aligned_side,
    find_device,
    on_device,
    pad,
    probabilities,
    scaled_side,
    single_and_multi_scale,
)

STRIDE = 8
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


class Pixelwise(nn.Module):
    """Class scores from each pixel alone: what is around, padding included, cannot matter."""

    input_mean: Tensor
    output_stride = STRIDE

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.score = nn.Conv2d(3, classes, 1)
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[-2], images.shape[-1]))
        return self.score(images)


class Strided(Pixelwise):
    """Scores at stride 8, bilinear to the input's size, as a segmentation network's."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(classes)
        self.score = nn.Conv2d(3, classes, 3, stride=STRIDE, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        coarse = super().forward(images - self.input_mean)
        return F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=True)


def network(kind: type[Pixelwise] = Strided) -> Pixelwise:
    torch.manual_seed(0)
    return kind().eval()


def picture(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


@given(SIZES, st.sampled_from([None, 20, 57]))
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing_where_pixels_stand_alone(
    size: tuple[int, int], pad_to: int | None
) -> None:
    net, image = network(Pixelwise), picture(size)
    with torch.inference_mode():
        plain = net(image[None]).softmax(1)[0]
    padded = probabilities(net, image, pad_to=pad_to)
    torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-6)


@given(SIZES, st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_the_network_sees_aligned_sides(size: tuple[int, int], pad_to: int) -> None:
    net = network()
    probabilities(net, picture(size), pad_to=pad_to)
    for side, seen in zip(size, net.sizes[0], strict=True):
        assert (seen - 1) % STRIDE == 0
        assert max(side, pad_to) <= seen < max(side, pad_to, 1) + STRIDE


def test_padding_is_the_mean_pixel_at_the_bottom_and_right() -> None:
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    batch = picture((10, 20))[None]
    padded = pad(batch, mean, STRIDE)
    assert padded.shape == (1, 3, 17, 25)
    assert torch.equal(padded[..., :10, :20], batch)
    assert torch.equal(padded[..., 10:, :], mean.expand(1, 3, 7, 25))
    assert torch.equal(padded[..., 20:], mean.expand(1, 3, 17, 5))


@pytest.mark.parametrize("side", [(17, 33), (1, 1), (65, 9)])
def test_an_aligned_image_is_not_padded(side: tuple[int, int]) -> None:
    batch = picture(side)[None]
    assert pad(batch, torch.zeros(1, 3, 1, 1), STRIDE) is batch


@given(SIZES, st.sampled_from([[1.0], [0.5, 1.0, 1.75]]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_result_is_a_distribution_at_the_images_own_size(
    size: tuple[int, int], scales: list[float], flip: bool
) -> None:
    result = probabilities(network(), picture(size), scales, flip)
    assert result.shape == (4, *size)
    torch.testing.assert_close(result.sum(0), torch.ones(size))


@given(SIZES, st.sampled_from([[1.0], [0.5, 1.0, 1.75]]))
@settings(max_examples=20, deadline=None)
def test_a_mirrored_image_gives_exactly_the_mirrored_result(
    size: tuple[int, int], scales: list[float]
) -> None:
    net, image = network(), picture(size)
    upright = probabilities(net, image, scales, True)
    mirrored = probabilities(net, image.flip(-1), scales, True)
    assert torch.equal(mirrored.flip(-1), upright)
    # Without flips this network is not symmetric: the property above is the flips' doing.
    if min(size) > 10:
        one = probabilities(net, image)
        other = probabilities(net, image.flip(-1))
        assert not torch.allclose(other.flip(-1), one)


def test_average_is_over_the_softmax_of_each_scale_and_flip() -> None:
    net, image = network(), picture((30, 50))
    passes = []
    for scale in (0.5, 1.5):
        for flipped in (False, True):
            view = image.flip(-1) if flipped else image
            one = probabilities(net, view, [scale], False)
            passes.append(one.flip(-1) if flipped else one)
    together = probabilities(net, image, [0.5, 1.5], True)
    torch.testing.assert_close(together, torch.stack(passes).mean(0))


def test_single_and_multi_scale_are_the_two_asked_for_apart() -> None:
    net, image = network(), picture((30, 50))
    scales = [0.5, 1.0, 1.25]
    single, multi = single_and_multi_scale(net, image, scales, True)
    assert torch.equal(single, probabilities(net, image))
    assert torch.equal(multi, probabilities(net, image, scales, True))


def test_scale_one_is_not_run_twice() -> None:
    net = network()
    single_and_multi_scale(net, picture((30, 50)), [0.5, 1.0], True)
    assert len(net.sizes) == 4  # 1.0, and mirrored; 0.5, and mirrored
    net.sizes.clear()
    single, multi = single_and_multi_scale(net, picture((30, 50)), [1.0], False)
    assert len(net.sizes) == 1
    assert torch.equal(single, multi)


def test_pad_to_is_scaled_with_the_image() -> None:
    net = network()
    probabilities(net, picture((50, 100)), [0.5, 2.0], pad_to=513)
    assert net.sizes == [(257, 257), (1025, 1025)]


@given(st.integers(1, 3000), st.sampled_from([8, 16, 32]))
def test_aligned_side_is_the_next_one_on_the_grid(side: int, output_stride: int) -> None:
    aligned = aligned_side(side, output_stride)
    assert (aligned - 1) % output_stride == 0
    assert side <= aligned < side + output_stride


def test_scaled_sides_keep_the_grid() -> None:
    assert [scaled_side(513, scale) for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)] == [
        257, 385, 513, 641, 769, 897,
    ]  # fmt: skip
    assert scaled_side(1, 0.5) == 1


def test_no_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="scales"):
        probabilities(network(), picture((9, 9)), [])


def test_accelerator_that_is_not_there_is_named() -> None:
    missing = "mps" if not torch.backends.mps.is_available() else "gpu"
    with pytest.raises(UserError, match=f"trainer.accelerator={missing}: not available"):
        find_device(missing)


def test_auto_always_finds_a_device() -> None:
    net, device = on_device(network().train(), "auto")
    assert not net.training
    assert next(net.parameters()).device.type == device.type
