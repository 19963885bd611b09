import pytest
import torch
import torchvision
from torch import nn

from pipeline.errors import UserError
from pipeline.models.backbones.vgg import VGG16, AtrousAvgPool2d, VGGConv2d


def max_pools(network: nn.Module) -> list[nn.MaxPool2d]:
    return [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


@pytest.fixture(scope="module")
def coarsest() -> VGG16:
    torch.manual_seed(0)
    network = VGG16(32).eval()
    for module in network.modules():
        if isinstance(module, VGGConv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
    return network


@pytest.mark.parametrize("size", [(65, 97), (129, 65)])
@torch.inference_mode()
def test_every_level_of_a_denser_network_subsampled_is_the_coarser_networks(
    coarsest: VGG16, size: tuple[int, int]
) -> None:
    images = torch.randn(1, 3, *size)
    wanted = coarsest(images).levels
    for output_stride in (16, 8, 4):
        denser = VGG16(output_stride).eval()
        denser.load_state_dict(coarsest.state_dict())
        levels = denser(images).levels
        for got, coarse in zip(levels, wanted, strict=True):
            step = (got.shape[-1] - 1) // (coarse.shape[-1] - 1)
            assert relative_error(got[..., ::step, ::step], coarse) < 1e-4
        wanted = levels


@torch.inference_mode()
def test_features_equal_torchvisions_with_the_papers_pools(coarsest: VGG16) -> None:
    theirs = torchvision.models.vgg16(weights=None, init_weights=False).features.eval()
    theirs.load_state_dict(
        {k.removeprefix("features."): v for k, v in coarsest.state_dict().items()}
    )
    images = torch.randn(1, 3, 70, 65)
    # Up to the first pool nothing differs; from there on, 3x3 pools in place of torchvision's 2x2.
    torch.testing.assert_close(coarsest.features[:4](images), theirs[:4](images))
    pools = [at for at, module in enumerate(theirs) if isinstance(module, nn.MaxPool2d)]
    assert pools == coarsest.pools
    for at in pools:
        theirs[at] = nn.MaxPool2d(3, stride=2, padding=1)
    levels = coarsest(images).levels
    for level, at in zip(levels[:-1], pools, strict=False):
        torch.testing.assert_close(level, theirs[: at + 1](images))
    averaged = nn.functional.avg_pool2d(theirs(images), 3, stride=1, padding=1)
    torch.testing.assert_close(levels[-1], averaged)


@pytest.mark.parametrize(
    ("output_stride", "strides", "pool_rates", "conv5_rate", "average_rate"),
    [
        (32, [2, 2, 2, 2, 2], [1, 1, 1, 1, 1], 1, 1),
        (16, [2, 2, 2, 2, 1], [1, 1, 1, 1, 1], 1, 2),
        (8, [2, 2, 2, 1, 1], [1, 1, 1, 1, 2], 2, 4),
        (4, [2, 2, 1, 1, 1], [1, 1, 1, 2, 4], 4, 8),
    ],
)
def test_lost_strides_become_rates(
    output_stride: int,
    strides: list[int],
    pool_rates: list[int],
    conv5_rate: int,
    average_rate: int,
) -> None:
    with torch.device("meta"):
        network = VGG16(output_stride)
    assert [pool.stride for pool in max_pools(network)] == strides
    assert [pool.dilation for pool in max_pools(network)] == pool_rates
    rates = [m.dilation[0] for m in network.modules() if isinstance(m, VGGConv2d)]
    assert rates == [1] * 7 + [max(1, conv5_rate // 2)] * 3 + [conv5_rate] * 3
    assert network.average.rate == average_rate


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (70, 91), (33, 32)])
@pytest.mark.parametrize("output_stride", [4, 8, 16, 32])
def test_maps_have_the_stated_channels_and_sizes(output_stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = VGG16(output_stride)
        features = network(torch.empty(2, 3, *size))
    assert network.channels == (64, 128, 256, 512, 512)
    for level, channels, stride in zip(
        features.levels, network.channels, (2, 4, 8, 16, 32), strict=True
    ):
        stride = min(stride, output_stride)
        assert level.shape == (2, channels, *(-(-side // stride) for side in size))


def test_parameters_are_torchvisions_features() -> None:
    with torch.device("meta"):
        ours = VGG16(8)
        theirs = torchvision.models.vgg16(weights=None, init_weights=False)
    wanted = {k: v.shape for k, v in theirs.state_dict().items() if k.startswith("features.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == wanted


def test_impossible_output_stride_is_refused() -> None:
    with torch.device("meta"), pytest.raises(UserError, match=r"model\.output_stride=64"):
        VGG16(64)


def test_average_pool_counts_what_is_outside_as_zero() -> None:
    x = torch.rand(2, 4, 7, 9)
    torch.testing.assert_close(
        AtrousAvgPool2d(1)(x), nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    )
    spread = AtrousAvgPool2d(2)(x)
    torch.testing.assert_close(
        spread[..., ::2, ::2],
        nn.functional.avg_pool2d(x[..., ::2, ::2], 3, stride=1, padding=1),
    )


@pytest.mark.parametrize(
    ("kernel", "rate"), [(1, 1), (3, 1), (3, 5), (4, 1), (4, 3), (4, 8), (7, 4)]
)
def test_convolution_keeps_the_size_of_the_map(kernel: int, rate: int) -> None:
    convolution = VGGConv2d(2, 3, kernel, rate=rate)
    assert convolution(torch.randn(1, 2, 9, 12)).shape == (1, 3, 9, 12)


def test_even_kernel_at_an_odd_rate_sees_one_pixel_more_to_the_right_and_below() -> None:
    convolution = VGGConv2d(1, 1, 4)
    nn.init.ones_(convolution.weight)
    point = torch.zeros(1, 1, 9, 9)
    point[..., 4, 4] = 1.0
    seen_from = convolution(point)[0, 0].nonzero() - 4
    assert seen_from.min() == -2  # the point is 2 to the right of the leftmost that sees it
    assert seen_from.max() == 1
