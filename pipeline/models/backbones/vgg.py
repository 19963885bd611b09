"""VGG-16 with atrous convolution and DeepLab's pools, in torchvision's key layout.

Source: Simonyan and Zisserman, arXiv 1409.1556; as a DeepLab backbone v1, section 3.1.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.backbones.base import Backbone, Features, Stage, atrous_stages
from pipeline.models.weight_gradient import convolution

#: Convolutions and channels of conv1 to conv5; a max pool ends each.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGGConv2d(nn.Conv2d):
    """A convolution with a bias and no batch norm, its filter taps `rate` pixels apart.

    Input: N x in_channels x H x W, output: N x out_channels x ceil(H / stride) x ceil(W / stride).
    An even kernel at an odd rate sees one pixel more to the right and below than to the left and
    above. Weights start from He's normal distribution over the outgoing connections and biases
    from 0, as torchvision's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        rate: int = 1,
    ) -> None:
        both_sides, one_side = divmod(rate * (kernel_size - 1), 2)
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=both_sides, dilation=rate
        )
        self.one_side = one_side

    def reset_parameters(self) -> None:
        """Draw the weights; called by the constructor."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, self.bias))

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        if self.one_side:
            x = F.pad(x, (0, self.one_side, 0, self.one_side))
        stride, padding, rate = self.stride[0], int(self.padding[0]), self.dilation[0]
        return convolution(x, self.weight, self.bias, stride=stride, padding=padding, rate=rate)


class AtrousAvgPool2d(nn.Module):
    """The mean of the 3x3 pixels that lie `rate` apart; those outside the map count as 0.

    Input and output: N x C x H x W. Rate 1 is `AvgPool2d(3, stride=1, padding=1)`, and Caffe's.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The means, as a depthwise convolution: average pools have no rate."""
        channels = x.shape[1]
        weight = x.new_full((channels, 1, 3, 3), 1 / 9)
        return F.conv2d(x, weight, padding=self.rate, dilation=self.rate, groups=channels)


class VGG16(Backbone):
    """VGG-16 up to pool5 and a 3x3 average pool; its fully connected layers are in `fc6.py`.

    The levels are pool1 to pool4, and the average. A pool that lost its stride is 3x3 with the
    rate of the grid before it, as in `atrous_stages`, so that denser features hold the coarser
    ones. The released Caffe settings, at output stride 8, differ in that there pool5 and the
    average pool have rate 1; here they have 2 and 4.

    Args:
        output_stride: 4, 8, 16 or 32.

    Raises:
        UserError: for another output stride.
    """

    def __init__(self, output_stride: int) -> None:
        super().__init__()
        stages = atrous_stages((2,) * len(STAGES), output_stride, stem_stride=1)
        self.name = "vgg16"
        self.channels = tuple(width for _, width in STAGES)

        layers: list[nn.Module] = []
        self.pools: list[int] = []
        in_channels = 3
        for stage, (depth, width) in zip(stages, STAGES, strict=True):
            for _ in range(depth):
                layers.append(VGGConv2d(in_channels, width, 3, rate=stage.entry_rate))
                layers.append(nn.ReLU(inplace=True))
                in_channels = width
            self.pools.append(len(layers))
            layers.append(_max_pool(stage))
        self.features = nn.Sequential(*layers)
        self.average = AtrousAvgPool2d(stages[-1].rate)

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W: pool1 to pool4, the average of pool5."""
        levels = []
        x = images
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self.pools[:-1]:
                levels.append(x)
        return Features(images, (*levels, self.average(x)))


def _max_pool(stage: Stage) -> nn.Module:
    """DeepLab's 3x3 pool, where VGG has 2x2: its pixels align at every output stride."""
    if stage.entry_rate == 1:
        return nn.MaxPool2d(3, stride=stage.stride, padding=1)
    # MaxPool2d refuses a padding of more than half its kernel, however far its pixels lie apart.
    return nn.Sequential(
        nn.ConstantPad2d(stage.entry_rate, -float("inf")),
        nn.MaxPool2d(3, stride=1, dilation=stage.entry_rate),
    )
