"""ResNet-18/34/50/101 with atrous convolution, in torchvision's key layout.

Source: He et al., arXiv 1512.03385; as a DeepLab backbone v2, section 3.1, and v3, sections 3.1
and 3.2; the stem of three 3x3 convolutions: the DeepLab authors' released ResNets.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.backbones.base import Backbone, Features, Stage, atrous_stages
from pipeline.models.layers import AtrousConv2d, conv_bn_relu
from pipeline.models.remade import BatchNorm2d, ReLU, added, keep


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        AtrousConv2d(in_channels, out_channels, 1, stride=stride), BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34).

    Args:
        in_channels: of the input.
        width: of both convolutions.
        stride: of the first one.
        entry_rate: of the first one.
        rate: of the second one, which sees the grid after the stride.
        projected: whether the shortcut is a 1x1 projection; otherwise it is the identity.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        entry_rate: int,
        rate: int,
        projected: bool,
    ) -> None:
        super().__init__()
        self.conv1 = AtrousConv2d(in_channels, width, 3, stride=stride, rate=entry_rate)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = AtrousConv2d(width, width, 3, rate=rate)
        self.bn2 = BatchNorm2d(width)
        self.relu = ReLU()
        self.downsample = _projection(in_channels, width, stride) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x width x H/stride x W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(added(x, shortcut))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and -101).

    Args:
        in_channels: of the input.
        width: of the 3x3; the output has four times as many channels.
        stride: of the 3x3, as torchvision's ("ResNet v1.5"), whose weights it takes.
        entry_rate: of the 3x3.
        rate: of a 3x3 after the stride: here none, there is only the one.
        projected: whether the shortcut is a 1x1 projection; otherwise it is the identity.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        entry_rate: int,
        rate: int,
        projected: bool,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = AtrousConv2d(in_channels, width, 1)
        self.bn1 = BatchNorm2d(width)
        self.conv2 = AtrousConv2d(width, width, 3, stride=stride, rate=entry_rate)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = AtrousConv2d(width, out_channels, 1)
        self.bn3 = BatchNorm2d(out_channels)
        self.relu = ReLU()
        self.downsample = _projection(in_channels, out_channels, stride) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x 4 width x H/stride x W/stride."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(added(x, shortcut))


class Architecture(NamedTuple):
    """A row of the ResNet paper's Table 1: the unit, and how many of it a block has."""

    unit: type[BasicBlock | Bottleneck]
    depths: tuple[int, int, int, int]


RESNETS = {
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
}
#: Of the 3x3 convolutions in blocks 1 to 4.
WIDTHS = (64, 128, 256, 512)


class ResNet(Backbone):
    """A ResNet up to its last feature map, without pooling and classifier.

    Args:
        name: one of `RESNETS`.
        output_stride: a power of two from 4 to 2 ** (blocks + 1).
        stem: "7x7", torchvision's, or "3x3": three 3x3 of 64, 64 and 128 channels.
        blocks: the last block, 4 to 7; those after block 4 are copies of it in cascade, each with
            its own stride of 2 and projection (v3, section 3.2).
        multi_grid: the rate of each unit of block 4 and of its copies, as a multiple of the
            block's (v3, section 3.2.1).

    Raises:
        UserError: for another output stride, or rates that are not one a unit.
    """

    def __init__(
        self,
        name: str,
        output_stride: int,
        *,
        stem: str = "7x7",
        blocks: int = 4,
        multi_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        unit, depths = RESNETS[name]
        _check_multi_grid(name, depths[-1], multi_grid)
        stages = atrous_stages((1, *[2] * (blocks - 1)), output_stride, stem_stride=4)
        stem_channels = 128 if stem == "3x3" else 64
        self.name = name
        self.channels = (stem_channels, *(width * unit.expansion for width in WIDTHS))
        self.blocks = blocks

        self.conv1 = _three_3x3() if stem == "3x3" else AtrousConv2d(3, 64, 7, stride=2)
        self.bn1 = BatchNorm2d(stem_channels)
        self.relu = ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = stem_channels
        for number, stage in enumerate(stages, start=1):
            original = min(number, 4)
            width, depth = WIDTHS[original - 1], depths[original - 1]
            rates = _unit_rates(stage, depth, multi_grid if original == 4 else None)
            self.add_module(f"layer{number}", _layer(unit, in_channels, width, stage, rates))
            in_channels = width * unit.expansion

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W.

        The levels are conv1 and the ends of conv2_x to conv5_x; with copies of block 4, the end of
        the last one in place of conv5_x.
        """
        levels = [self.relu(self.bn1(self.conv1(images)))]
        x = self.maxpool(levels[0])
        for number in range(1, self.blocks + 1):
            # A decoder asks for its level early in backward, when a chain's maps would pile up.
            x = keep(getattr(self, f"layer{number}")(x))
            levels.append(x)
        return Features(images, (*levels[:4], x))


def _three_3x3() -> nn.Sequential:
    """Up to the third convolution, whose batch norm is `bn1`: timm's key layout ("resnet50s")."""
    return nn.Sequential(
        *conv_bn_relu(3, 64, 3, stride=2), *conv_bn_relu(64, 64, 3), AtrousConv2d(64, 128, 3)
    )


def _check_multi_grid(name: str, units: int, multi_grid: Sequence[int] | None) -> None:
    if multi_grid is not None and (len(multi_grid) != units or min(multi_grid) < 1):
        raise UserError(
            f"model.multi_grid={list(multi_grid)}: the last block of {name} has {units} units; "
            f"give each a rate of 1 or more, e.g. {[1, 2, 4][:units]}"
        )


def _unit_rates(
    stage: Stage, depth: int, multi_grid: Sequence[int] | None
) -> list[tuple[int, int]]:
    """The rates of each unit's first 3x3, in pixels of the map it takes, and of a second one.

    Without multi-grid the 3x3 that carries the block's stride, or has lost it, sees the grid
    before it: torchvision's rule. With multi-grid every 3x3 lies on the block's own grid, as in the
    paper, whose strides end the block before: so the first one is wider by the stride, also where
    it keeps it. Both ways, the same weights give the same features at every output stride.
    """
    if multi_grid is None:
        return [(stage.entry_rate, stage.rate), *[(stage.rate, stage.rate)] * (depth - 1)]
    rates = [stage.rate * unit_rate for unit_rate in multi_grid]
    return [(stage.stride * rates[0], rates[0]), *((rate, rate) for rate in rates[1:])]


def _layer(
    unit: type[BasicBlock | Bottleneck],
    in_channels: int,
    width: int,
    stage: Stage,
    rates: Sequence[tuple[int, int]],
) -> nn.Sequential:
    out_channels = width * unit.expansion
    layer = nn.Sequential()
    for number, (entry_rate, rate) in enumerate(rates):
        first = number == 0
        layer.append(
            unit(
                in_channels if first else out_channels,
                width,
                stride=stage.stride if first else 1,
                entry_rate=entry_rate,
                rate=rate,
                # The classifier's stride decides, so that the weights fit every output stride.
                projected=first and (in_channels != out_channels or stage.original_stride != 1),
            )
        )
    return layer
