"""MobileNetV2 with atrous convolution, in torchvision's key layout.

Source: Sandler et al., arXiv 1801.04381; as a DeepLab backbone its section 6.3.
"""

from torch import Tensor, nn

from pipeline.models.backbones.base import Backbone, Features, atrous_stages
from pipeline.models.layers import AtrousConv2d, conv_bn_relu

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
#: Where strides 2, 4, 8, 16 and 32 end, counted in the stem and the bottlenecks.
LEVEL_ENDS = (2, 4, 7, 14, 18)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise atrous convolution, linear 1x1 projection (section 3.3).

    Args:
        in_channels: of the input.
        out_channels: of the output; a shortcut where shape and channels stay the same.
        expansion: channels of the depthwise convolution, as a multiple of the input's.
        stride: of the depthwise convolution.
        rate: of the depthwise convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, stride: int, rate: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        # A lost stride adds no shortcut: where a stride was, the channels change as well.
        self.has_shortcut = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_bn_relu(in_channels, hidden, 1, activation=nn.ReLU6))
        layers += [
            conv_bn_relu(
                hidden,
                hidden,
                3,
                stride=stride,
                rate=rate,
                groups=hidden,
                activation=nn.ReLU6,
            ),
            AtrousConv2d(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """N x in_channels x H x W to N x out_channels x H/stride x W/stride."""
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(Backbone):
    """MobileNetV2 up to its 320-channel map: `features.0` to `features.17`.

    Args:
        output_stride: 8, 16 or 32.
    """

    def __init__(self, output_stride: int, width: float = 1.0) -> None:
        super().__init__()
        strides = [stride for *_, stride in BOTTLENECKS]
        stages = atrous_stages(strides, output_stride, stem_stride=2)
        channels = 32
        layers: list[nn.Module] = [conv_bn_relu(3, channels, 3, stride=2, activation=nn.ReLU6)]
        for (expansion, out_channels, blocks, _), stage in zip(BOTTLENECKS, stages, strict=True):
            for block in range(blocks):
                layers.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        expansion=expansion,
                        stride=stage.stride if block == 0 else 1,
                        rate=stage.entry_rate if block == 0 else stage.rate,
                    )
                )
                channels = out_channels
        self.name = "mobilenet_v2"
        self.channels = (16, 24, 32, 96, channels)
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W."""
        levels, x, start = [], images, 0
        for end in LEVEL_ENDS:
            x = self.features[start:end](x)
            levels.append(x)
            start = end
        return Features(images, tuple(levels))
