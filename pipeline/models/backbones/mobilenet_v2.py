"""MobileNetV2 with atrous convolution and width multiplier, in torchvision's key layout.

Source: Sandler et al., arXiv 1801.04381; as a DeepLab backbone its section 6.3.
"""

from torch import Tensor, nn

from pipeline.models.backbones.base import Backbone, Features, atrous_stages
from pipeline.models.layers import AtrousConv2d, conv_bn_relu
from pipeline.models.remade import BatchNorm2d, ReLU6, added

#: The paper's Table 2: expansion t, channels c, blocks n, stride s of the first block.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
#: Of the stem, before the first bottleneck.
STEM_CHANNELS = 32
#: Where strides 2, 4, 8, 16 and 32 end, counted in the stem and the bottlenecks.
LEVEL_ENDS = (2, 4, 7, 14, 18)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise atrous convolution, linear 1x1 projection (section 3.3).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        expansion: channels of the depthwise convolution, as a multiple of the input's.
        stride: of the depthwise convolution.
        rate: of the depthwise convolution.
        shortcut: whether the input is added to the output.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        stride: int,
        rate: int,
        shortcut: bool,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = shortcut
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn_relu(in_channels, hidden, 1, activation=ReLU6))
        layers += [
            conv_bn_relu(
                hidden,
                hidden,
                3,
                stride=stride,
                rate=rate,
                groups=hidden,
                activation=ReLU6,
            ),
            AtrousConv2d(hidden, out_channels, 1),
            BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x out_channels x H/stride x W/stride."""
        return added(self.conv(x), x) if self.has_shortcut else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 up to its 320-channel map: `features.0` to `features.17`.

    Args:
        output_stride: 4, 8, 16 or 32.
        width: multiplier of every channel count, the stem's and the last map's too (section 3.4).
        round_channels: whether the products are rounded to multiples of 8.
    """

    def __init__(
        self, output_stride: int, width: float = 1.0, *, round_channels: bool = True
    ) -> None:
        super().__init__()
        strides = [stride for *_, stride in BOTTLENECKS]
        stages = atrous_stages(strides, output_stride, stem_stride=2)
        nearest = 8 if round_channels else 1
        channels = scaled_channels(STEM_CHANNELS, width, nearest)
        layers: list[nn.Module] = [conv_bn_relu(3, channels, 3, stride=2, activation=ReLU6)]
        outputs = [channels]
        for (expansion, unscaled, blocks, stride), stage in zip(BOTTLENECKS, stages, strict=True):
            out_channels = scaled_channels(unscaled, width, nearest)
            for block in range(blocks):
                first = block == 0
                layers.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        expansion=expansion,
                        stride=stage.stride if first else 1,
                        rate=stage.entry_rate if first else stage.rate,
                        # A lost stride adds no shortcut, though a small width leaves the channels.
                        shortcut=channels == out_channels and (stride == 1 or not first),
                    )
                )
                channels = out_channels
                outputs.append(channels)
        self.name = "mobilenet_v2"
        self.channels = tuple(outputs[end - 1] for end in LEVEL_ENDS)
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W."""
        levels, x, start = [], images, 0
        for end in LEVEL_ENDS:
            x = self.features[start:end](x)
            levels.append(x)
            start = end
        return Features(images, tuple(levels))


def scaled_channels(channels: int, width: float, nearest: int) -> int:
    """`channels` times `width` as a multiple of `nearest`: the nearest, not over a tenth fewer.

    Source: the authors' released code, and torchvision's after it.
    """
    wanted = channels * width
    rounded = max(nearest, int(wanted + nearest / 2) // nearest * nearest)
    return rounded if rounded >= 0.9 * wanted else rounded + nearest
