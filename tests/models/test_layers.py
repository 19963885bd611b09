import pytest
import torch
from torch import nn
from torchvision.ops import Conv2dNormActivation

from pipeline.models.layers import AtrousConv2d, ClassLayer, conv_bn_relu, resize


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
    ours = conv_bn_relu(4, 8, 3, stride=2, rate=rate, groups=2, activation=nn.ReLU6)
    theirs = Conv2dNormActivation(
        4, 8, 3, stride=2, dilation=rate, groups=2, activation_layer=nn.ReLU6
    )
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 4, 21, 18)
    torch.testing.assert_close(ours(images), theirs(images))


def test_resizing_keeps_the_values_at_the_coarse_grid() -> None:
    maps = torch.randn(1, 2, 4, 5)
    fine = resize(maps, like=torch.empty(1, 3, 3 * 8 + 1, 4 * 8 + 1))
    torch.testing.assert_close(fine[..., ::8, ::8], maps)
