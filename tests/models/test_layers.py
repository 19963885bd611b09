import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import Conv2dNormActivation

from pipeline.models.layers import (
    AtrousConv2d,
    ClassLayer,
    conv_bn_relu,
    resize,
    separable_conv_bn_relu,
)
from pipeline.models.remade import ReLU6


def test_weights_start_as_the_papers_say() -> None:
    torch.manual_seed(0)
    convolution, classes = AtrousConv2d(64, 128, 3), ClassLayer(512, 21, 3)
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert classes.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert classes.bias is not None
    assert not classes.bias.any()


@pytest.mark.parametrize("rate", [1, 2, 5])
def test_block_equals_torchvisions(rate: int) -> None:
    ours = conv_bn_relu(4, 8, 3, stride=2, rate=rate, groups=2, activation=ReLU6)
    theirs = Conv2dNormActivation(
        4, 8, 3, stride=2, dilation=rate, groups=2, activation_layer=nn.ReLU6
    )
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 4, 21, 18)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("rate", [1, 2, 6])
def test_separable_convolution_is_depthwise_then_pointwise_with_a_relu_after_each(
    rate: int,
) -> None:
    separable = separable_conv_bn_relu(4, 8, 3, rate=rate).eval()
    with torch.no_grad():
        for norm in (
            module for module in separable.modules() if isinstance(module, nn.BatchNorm2d)
        ):
            norm.weight.fill_(1.5)
            norm.bias.uniform_(-1, 1)
            norm.running_mean = torch.randn(norm.num_features)
    layers = [layer for layer in separable.modules() if not isinstance(layer, nn.Sequential)]
    first, first_norm, _, second, second_norm, _ = layers
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    maps = torch.randn(2, 4, 13, 9)
    depthwise = F.conv2d(maps, first.weight, padding=rate, dilation=rate, groups=4)
    wanted = second_norm(F.conv2d(first_norm(depthwise).relu(), second.weight)).relu()
    torch.testing.assert_close(separable(maps), wanted)
    assert (first.weight.shape, second.weight.shape) == ((4, 1, 3, 3), (8, 4, 1, 1))


def test_separable_convolution_of_one_pixel_is_the_ordinary_one() -> None:
    shapes = [p.shape for p in separable_conv_bn_relu(4, 8, 1).parameters()]
    assert shapes == [p.shape for p in conv_bn_relu(4, 8, 1).parameters()]


def test_resizing_keeps_the_values_at_the_coarse_grid() -> None:
    maps = torch.randn(1, 2, 4, 5)
    fine = resize(maps, like=torch.empty(1, 3, 3 * 8 + 1, 4 * 8 + 1))
    torch.testing.assert_close(fine[..., ::8, ::8], maps)
