"""VGG-16's fully connected layers as convolutions, and v1's multi-scale features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.models.backbones.base import Features
from pipeline.models.backbones.vgg import VGGConv2d
from pipeline.models.layers import ClassLayer, resize


class Fc6Branch(nn.Module):
    """fc6, fc7 and fc8: features to class scores, at one atrous rate.

    Input: N x in_channels x H x W, output: N x num_classes x H x W.
    Source: v1, sections 3.1 and 3.2; v2, section 4.1 and Table 1.

    Args:
        in_channels: of the backbone's map.
        num_classes: with the background.
        kernel: of fc6; 7 as in ImageNet's, or subsampled to 4 or 3.
        rate: of fc6, at this output stride.
        channels: of fc6 and fc7; 4096 as in ImageNet's, or fewer.
        dropout: chance of a zero in training, after fc6 and after fc7.
        extra_channels: of features that join fc7's.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        kernel: int = 3,
        rate: int = 12,
        channels: int = 1024,
        dropout: float = 0.5,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.fc6 = VGGConv2d(in_channels, channels, kernel, rate=rate)
        self.fc7 = VGGConv2d(channels, channels, 1)
        self.fc8 = ClassLayer(channels + extra_channels, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, high: Tensor, extra: Tensor | None = None) -> Tensor:
        """Class scores at the output stride.

        Args:
            high: N x in_channels x H x W, the backbone's last map.
            extra: N x extra_channels x H x W, joins fc7's features; None where there are none.
        """
        x = self.dropout(self.relu(self.fc6(high)))
        x = self.dropout(self.relu(self.fc7(x)))
        return self.fc8(x if extra is None else torch.cat([x, extra], dim=1))


class MultiScaleFeatures(nn.Module):
    """v1's "MSc": a two-layer perceptron on the image and on each of the first four pools.

    Input: `Features`, output: N x 5 channels x h x w, of the last map's size. The 3x3 convolution
    of each perceptron carries its stride, as in the released settings.
    Source: v1, section 4.3.

    Args:
        level_channels: of the four pools.
        output_stride: of the backbone.
        channels: of both layers of each perceptron.
    """

    def __init__(
        self, level_channels: Sequence[int], output_stride: int, *, channels: int = 128
    ) -> None:
        super().__init__()
        inputs = (3, *level_channels)
        self.out_channels = len(inputs) * channels
        self.perceptrons = nn.ModuleList(
            _perceptron(in_channels, channels, stride=max(1, output_stride // 2**level))
            for level, in_channels in enumerate(inputs)
        )

    def forward(self, features: Features) -> Tensor:
        """The features of all scales, concatenated: the image's first, then pool1's to pool4's."""
        maps = (features.image, *features.levels[:-1])
        return torch.cat(
            [
                # Changes the size only under a backbone whose maps are not ceil(H / stride) high.
                resize(perceptron(x), features.high)
                for perceptron, x in zip(self.perceptrons, maps, strict=True)
            ],
            dim=1,
        )


def _perceptron(in_channels: int, channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        VGGConv2d(in_channels, channels, 3, stride=stride),
        nn.ReLU(inplace=True),
        VGGConv2d(channels, channels, 1),
        nn.ReLU(inplace=True),
    )
