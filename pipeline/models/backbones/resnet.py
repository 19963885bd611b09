"""ResNet-18/34/50/101 with atrous convolution, in torchvision's key layout.

Source: He et al., arXiv 1512.03385; as a DeepLab backbone v2, section 3.1, and v3, section 3.1.
"""

from typing import NamedTuple

from torch import Tensor, nn

from pipeline.models.backbones.base import Backbone, Features, Stage, atrous_stages
from pipeline.models.layers import AtrousConv2d


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A 1x1 projection where the shape changes, otherwise nothing: the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        AtrousConv2d(in_channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34).

    Args:
        in_channels: of the input.
        width: of both convolutions.
        stride: of the first one.
        entry_rate: of the first one.
        rate: of the second one, which sees the grid after the stride.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, entry_rate: int, rate: int
    ) -> None:
        super().__init__()
        self.conv1 = AtrousConv2d(in_channels, width, 3, stride=stride, rate=entry_rate)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = AtrousConv2d(width, width, 3, rate=rate)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x width x H/stride x W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and -101).

    Args:
        in_channels: of the input.
        width: of the 3x3; the output has four times as many channels.
        stride: of the 3x3, as torchvision's ("ResNet v1.5"), whose weights it takes.
        entry_rate: of the 3x3.
        rate: of a 3x3 after the stride: here none, there is only the one.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, *, stride: int, entry_rate: int, rate: int
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = AtrousConv2d(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = AtrousConv2d(width, width, 3, stride=stride, rate=entry_rate)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = AtrousConv2d(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x 4 width x H/stride x W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


class Architecture(NamedTuple):
    """A row of the ResNet paper's Table 1: the block, and how many of it a stage has."""

    block: type[BasicBlock | Bottleneck]
    depths: tuple[int, int, int, int]


RESNETS = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
}


class ResNet(Backbone):
    """A ResNet up to its last feature map, without pooling and classifier.

    Args:
        name: one of `RESNETS`.
        output_stride: 8, 16 or 32.
    """

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        block, depths = RESNETS[name]
        stages = atrous_stages((1, 2, 2, 2), output_stride, stem_stride=4)
        self.name = name
        self.channels = (64, *(width * block.expansion for width in (64, 128, 256, 512)))

        self.conv1 = AtrousConv2d(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(block, 64, 64, depths[0], stages[0])
        self.layer2 = _layer(block, 64 * block.expansion, 128, depths[1], stages[1])
        self.layer3 = _layer(block, 128 * block.expansion, 256, depths[2], stages[2])
        self.layer4 = _layer(block, 256 * block.expansion, 512, depths[3], stages[3])

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W: conv1, and the ends of conv2_x..conv5_x."""
        levels = [self.relu(self.bn1(self.conv1(images)))]
        x = self.maxpool(levels[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            levels.append(x)
        return Features(images, tuple(levels))


def _layer(
    block: type[BasicBlock | Bottleneck], in_channels: int, width: int, depth: int, stage: Stage
) -> nn.Sequential:
    first = block(
        in_channels, width, stride=stage.stride, entry_rate=stage.entry_rate, rate=stage.rate
    )
    others = (
        block(width * block.expansion, width, stride=1, entry_rate=stage.rate, rate=stage.rate)
        for _ in range(depth - 1)
    )
    return nn.Sequential(first, *others)
