"""The layers that every part of a DeepLab network is made of."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.depthwise import depthwise, learns_in_its_own_way
from pipeline.models.remade import BatchNorm2d, ReLU, ReLU6
from pipeline.models.weight_gradient import convolution


class AtrousConv2d(nn.Conv2d):
    """A convolution without bias whose filter taps lie `rate` pixels apart.

    Input: N x in_channels x H x W, output: N x out_channels x ceil(H / stride) x ceil(W / stride).
    Weights start from He's normal distribution over the outgoing connections, as torchvision's.
    Source: DeepLab v3, section 3.1; rate 1 is the ordinary convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=rate * (kernel_size - 1) // 2,
            dilation=rate,
            groups=groups,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, by a way whose gradient is right and fast."""
        stride, rate, channels = self.stride[0], self.dilation[0], self.in_channels
        by_itself = self.groups == channels == self.out_channels > 1
        if by_itself and learns_in_its_own_way(x, stride, rate):
            return depthwise(x, self.weight, stride, rate)
        if self.groups > 1:
            return super().forward(x)
        padding = int(self.padding[0])
        return convolution(x, self.weight, self.bias, stride=stride, padding=padding, rate=rate)

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class ClassLayer(nn.Conv2d):
    """The last convolution, from features to the scores of the classes.

    Input: N x in_channels x H x W, output: N x num_classes x H x W.
    Weights start from N(0, 0.01) and biases from 0 (DeepLab v2, released settings).
    A type of its own, so that loaded weights of another number of classes can be told apart.
    """

    def __init__(
        self, in_channels: int, num_classes: int, kernel_size: int = 1, *, rate: int = 1
    ) -> None:
        padding = rate * (kernel_size - 1) // 2
        super().__init__(in_channels, num_classes, kernel_size, padding=padding, dilation=rate)

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(cast(Tensor, self.bias))


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    rate: int = 1,
    groups: int = 1,
    activation: type[ReLU | ReLU6] = ReLU,
) -> nn.Sequential:
    """A convolution, batch norm and ReLU: torchvision's `Conv2dNormActivation`, key for key."""
    return nn.Sequential(
        AtrousConv2d(
            in_channels, out_channels, kernel_size, stride=stride, rate=rate, groups=groups
        ),
        BatchNorm2d(out_channels),
        activation(),
    )


def separable_conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, rate: int = 1
) -> nn.Sequential:
    """`conv_bn_relu` in two steps: each channel by itself in space, then 1x1 over the channels.

    Batch norm and ReLU stand after both. A 1x1 convolution has nothing to separate and stays one.
    Input: N x in_channels x H x W, output: N x out_channels x H x W.
    Source: v3+, section 3.1 ("atrous separable convolution"); the ReLU between: the released code.
    """
    if kernel_size == 1:
        return conv_bn_relu(in_channels, out_channels, 1)
    return nn.Sequential(
        conv_bn_relu(in_channels, in_channels, kernel_size, rate=rate, groups=in_channels),
        conv_bn_relu(in_channels, out_channels, 1),
    )


def resize(maps: Tensor, like: Tensor, *, align_corners: bool = True) -> Tensor:
    """Bilinear resizing of N x C x h x w maps to the height and width of `like`.

    With aligned corners and inputs of k * output_stride + 1 pixels, the value of a coarse map
    lies exactly on the pixel that its convolution was centred on.
    """
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)
