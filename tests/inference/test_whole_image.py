from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Pixelwise, Strided, picture
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.inference.passes import Pass, multi_scale, passes_of
from pipeline.inference.whole_image import SINGLE, pad, probabilities, run_passes
from pipeline.models.sizes import aligned_side, scaled_side

STRIDE = 8
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def network(kind: type[Pixelwise] = Strided) -> Pixelwise:
    return kind().eval()


def multi(scales: list[float], flip: bool = False) -> EvaluateConfig:
    return EvaluateConfig(scales=scales, flip=flip)


@given(SIZES, st.sampled_from([None, 20, 57]))
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing_where_pixels_stand_alone(
    size: tuple[int, int], pad_to: int | None
) -> None:
    net, image = network(Pixelwise), picture(size)
    with torch.inference_mode():
        plain = net.scores(image[None]).softmax(1)[0]
    padded = probabilities(net, image, replace(SINGLE, pad_to=pad_to))
    torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-6)


@given(SIZES, st.integers(0, 60))
@settings(max_examples=25, deadline=None)
def test_the_network_sees_aligned_sides(size: tuple[int, int], pad_to: int) -> None:
    net = network()
    probabilities(net, picture(size), replace(SINGLE, pad_to=max(1, pad_to)))
    for side, seen in zip(size, net.sizes[0], strict=True):
        assert (seen - 1) % STRIDE == 0
        assert max(side, pad_to) <= seen < max(side, pad_to, 1) + STRIDE


def test_padding_is_the_mean_pixel_at_the_bottom_and_right() -> None:
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    batch = picture((10, 20))[None]
    padded = pad(batch, mean, (17, 25))
    assert padded.shape == (1, 3, 17, 25)
    assert torch.equal(padded[..., :10, :20], batch)
    assert torch.equal(padded[..., 10:, :], mean.expand(1, 3, 7, 25))
    assert torch.equal(padded[..., 20:], mean.expand(1, 3, 17, 5))


@pytest.mark.parametrize("side", [(17, 33), (1, 1), (65, 9)])
def test_an_aligned_image_is_not_padded(side: tuple[int, int]) -> None:
    batch = picture(side)[None]
    assert pad(batch, torch.zeros(1, 3, 1, 1), side) is batch


@given(SIZES, st.sampled_from([[1.0], [0.5, 1.0, 1.75]]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_result_is_a_distribution_at_the_images_own_size(
    size: tuple[int, int], scales: list[float], flip: bool
) -> None:
    result = probabilities(network(), picture(size), multi(scales, flip))
    assert result.shape == (4, *size)
    torch.testing.assert_close(result.sum(0), torch.ones(size))


@given(SIZES, st.sampled_from([[1.0], [0.5, 1.0, 1.75]]))
@settings(max_examples=20, deadline=None)
def test_a_mirrored_image_gives_exactly_the_mirrored_result(
    size: tuple[int, int], scales: list[float]
) -> None:
    net, image = network(), picture(size)
    upright = probabilities(net, image, multi(scales, True))
    mirrored = probabilities(net, image.flip(-1), multi(scales, True))
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
            one = probabilities(net, view, multi([scale]))
            passes.append(one.flip(-1) if flipped else one)
    together = probabilities(net, image, multi([0.5, 1.5], True))
    torch.testing.assert_close(together, torch.stack(passes).mean(0))


def test_one_pass_is_the_networks_own_upsampling() -> None:
    for align_corners in (True, False):
        net = Strided(align_corners=align_corners).eval()
        image = picture((17, 33))
        with torch.inference_mode():
            wanted = net(image[None])[0].softmax(0)
        torch.testing.assert_close(probabilities(net, image), wanted)


def test_images_of_unlike_size_in_a_batch_are_as_each_alone() -> None:
    net, evaluate = network(), replace(multi([0.5, 1.0], True), pad_to=49)
    images = [picture((30, 49), 1), picture((41, 20), 2), picture((49, 49), 3)]
    passes = passes_of(evaluate)
    together = dict(run_passes(net, images, evaluate, passes))
    for number, image in enumerate(images):
        for which, scores in run_passes(net, [image], evaluate, passes):
            torch.testing.assert_close(together[which][number], scores[0], rtol=1e-5, atol=1e-6)


def test_only_what_is_asked_for_is_run() -> None:
    net, evaluate = network(), multi([0.5, 1.5], True)
    probabilities(net, picture((30, 50)), evaluate)
    assert len(net.sizes) == len(multi_scale(evaluate)) == 4
    net.sizes.clear()
    assert [which for which, _ in run_passes(net, [picture((9, 9))], evaluate, [Pass()])] == [
        Pass()
    ]
    assert net.sizes == [(9, 9)]


def test_bf16_is_near_and_scores_come_in_32_bits() -> None:
    net, image = network(), picture((30, 50))
    ((_, scores),) = run_passes(net, [image], replace(SINGLE, precision="bf16"), [Pass()])
    ((_, wanted),) = run_passes(net, [image], SINGLE, [Pass()])
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, wanted)
    torch.testing.assert_close(scores, wanted, rtol=0.02, atol=0.02)


def test_validation_inside_autocast_upsamples_in_32_bits() -> None:
    class Fixed(Strided):
        """Scores that autocast does not touch."""

        def scores(self, images: Tensor) -> Tensor:
            return images.float()[..., ::STRIDE, ::STRIDE]

    image = picture((30, 50))
    wanted = probabilities(Fixed(), image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(probabilities(Fixed(), image), wanted)


def test_pad_to_is_scaled_with_the_image() -> None:
    net = network()
    probabilities(net, picture((50, 100)), replace(multi([0.5, 2.0]), pad_to=513))
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
