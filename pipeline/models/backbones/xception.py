"""Xception-41/65/71 as DeepLab v3+ modified them, in timm's key layout.

Source: Chen et al., arXiv 1802.02611, section 3.2 and Figure 4; what the paper leaves open (where
the ReLUs are, and which maps are handed on) from the authors' released TensorFlow code.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.backbones.base import Backbone, Features, atrous_stages
from pipeline.models.layers import AtrousConv2d
from pipeline.models.remade import BatchNorm2d, ReLU

#: Of every batch norm; the released settings.
BATCH_NORM_EPSILON = 1e-3


class Block(NamedTuple):
    """A row of Figure 4: `units` times three separable convolutions, the last with the stride."""

    channels: tuple[int, int, int]
    stride: int
    units: int = 1


ENTRY_FLOW = (
    Block((128, 128, 128), stride=2),
    Block((256, 256, 256), stride=2),
    Block((728, 728, 728), stride=2),
)
#: Xception-71's, from the released code: every resolution after the first has a unit more.
LONG_ENTRY_FLOW = (
    Block((128, 128, 128), stride=2),
    Block((256, 256, 256), stride=1),
    Block((256, 256, 256), stride=2),
    Block((728, 728, 728), stride=1),
    Block((728, 728, 728), stride=2),
)
#: Its second row is the unit without shortcut.
EXIT_FLOW = (Block((728, 1024, 1024), stride=2), Block((1536, 1536, 2048), stride=1))

XCEPTIONS = {
    "xception41": (*ENTRY_FLOW, Block((728, 728, 728), stride=1, units=8), *EXIT_FLOW),
    "xception65": (*ENTRY_FLOW, Block((728, 728, 728), stride=1, units=16), *EXIT_FLOW),
    "xception71": (*LONG_ENTRY_FLOW, Block((728, 728, 728), stride=1, units=16), *EXIT_FLOW),
}


class SeparableConv(nn.Module):
    """A 3x3 depthwise atrous convolution and a 1x1, each with batch norm (v3+, section 3.1).

    Args:
        in_channels: of the input.
        out_channels: of the 1x1.
        stride: of the depthwise convolution.
        rate: of the depthwise convolution.
        relu: whether a ReLU follows each of the two.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, rate: int, relu: bool
    ) -> None:
        super().__init__()
        self.conv_dw = AtrousConv2d(
            in_channels, in_channels, 3, stride=stride, rate=rate, groups=in_channels
        )
        self.bn_dw = BatchNorm2d(in_channels, eps=BATCH_NORM_EPSILON)
        self.conv_pw = AtrousConv2d(in_channels, out_channels, 1)
        self.bn_pw = BatchNorm2d(out_channels, eps=BATCH_NORM_EPSILON)
        self.act: nn.Module = ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x out_channels x H/stride x W/stride."""
        x = self.act(self.bn_dw(self.conv_dw(x)))
        return self.act(self.bn_pw(self.conv_pw(x)))


class ResidualUnit(nn.Module):
    """Three separable convolutions, a ReLU before each, and a shortcut.

    Args:
        in_channels: of the input.
        channels: of the three convolutions.
        stride: of the third one.
        rate: of all three: the third one's stride comes after the grid that they see.
        projection: whether the shortcut is a 1x1 convolution; otherwise it is the identity.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int, int],
        *,
        stride: int,
        rate: int,
        projection: bool,
    ) -> None:
        super().__init__()
        self.shortcut = (
            _conv_bn(in_channels, channels[-1], 1, stride=stride) if projection else None
        )
        self.stack = _separable_convs(in_channels, channels, stride=stride, rate=rate, relu=False)
        self.relu = ReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the third convolution is given, and the unit's output.

        N x in_channels x H x W to N x channels[1] x H x W, N x channels[2] x H/stride x W/stride.
        """
        shortcut = x if self.shortcut is None else self.shortcut(x)
        conv1, conv2, conv3 = self.stack
        x = conv1(F.relu(x))  # not in place: the shortcut, or the feature handed on, needs it
        unstrided = self.relu(conv2(self.relu(x)))
        return unstrided, conv3(unstrided) + shortcut


class LastUnit(nn.Module):
    """Three separable convolutions without shortcut, a ReLU after each depthwise and each 1x1.

    Args:
        in_channels: of the input.
        channels: of the three convolutions.
        rate: of all three.
    """

    def __init__(self, in_channels: int, channels: tuple[int, int, int], *, rate: int) -> None:
        super().__init__()
        self.stack = _separable_convs(in_channels, channels, stride=1, rate=rate, relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x channels[2] x H x W."""
        return self.stack(x)


class Xception(Backbone):
    """A modified Xception up to its 2048-channel map.

    The levels are the stem's end, the second separable convolution of the three units that bring
    the classifier from stride 4 to 8, 16 and 32, and the last map. Those second convolutions are
    taken after their ReLU, as timm has them; the released code takes them before it.

    Args:
        name: one of `XCEPTIONS`.
        output_stride: 4, 8, 16 or 32.
    """

    def __init__(self, name: str, output_stride: int) -> None:
        super().__init__()
        rows = XCEPTIONS[name]
        stages = atrous_stages([row.stride for row in rows], output_stride, stem_stride=2)
        self.name = name
        self.stem = nn.Sequential(
            _conv_bn(3, 32, 3, stride=2, relu=True), _conv_bn(32, 64, 3, relu=True)
        )
        in_channels = 64
        units: list[nn.Module] = []
        strided: list[int] = []
        for row, stage in zip(rows[:-1], stages[:-1], strict=True):
            if row.stride > 1:
                strided.append(len(units))
            for _ in range(row.units):
                units.append(
                    ResidualUnit(
                        in_channels,
                        row.channels,
                        stride=stage.stride,
                        rate=stage.entry_rate,
                        # A lost stride keeps its projection: the weights stay the same.
                        projection=row.stride > 1 or in_channels != row.channels[-1],
                    )
                )
                in_channels = row.channels[-1]
        units.append(LastUnit(in_channels, rows[-1].channels, rate=stages[-1].entry_rate))
        self.blocks = nn.ModuleList(units)
        # At stride 2 it is the stem's end that is handed on, not a map of the first unit.
        self.level_units = tuple(strided[1:])
        self.channels = (64, 256, 728, 1024, 2048)

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W."""
        x = self.stem(images)
        levels = [x]
        *units, last = self.blocks
        for index, unit in enumerate(units):
            unstrided, x = unit(x)
            if index in self.level_units:
                levels.append(unstrided)
        return Features(images, (*levels, last(x)))


def _separable_convs(
    in_channels: int, channels: tuple[int, int, int], *, stride: int, rate: int, relu: bool
) -> nn.Sequential:
    pairs = enumerate(pairwise((in_channels, *channels)), start=1)
    return nn.Sequential(
        OrderedDict(
            (
                f"conv{number}",
                SeparableConv(
                    before, after, stride=stride if number == 3 else 1, rate=rate, relu=relu
                ),
            )
            for number, (before, after) in pairs
        )
    )


def _conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, relu: bool = False
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=AtrousConv2d(in_channels, out_channels, kernel_size, stride=stride),
        bn=BatchNorm2d(out_channels, eps=BATCH_NORM_EPSILON),
    )
    if relu:
        layers["act"] = ReLU()
    return nn.Sequential(layers)
