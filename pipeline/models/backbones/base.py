"""What every backbone is, and how its stages keep an output stride."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from pipeline.errors import UserError


class Features(NamedTuple):
    """What a backbone hands on.

    Attributes:
        image: N x 3 x H x W, normalised.
        levels: the last map of each resolution that the classifier has, at strides 2, 4, 8, 16
            and 32 there (VGG: its pools; the last one of a cascade of blocks lies coarser there);
            here none is coarser than the output stride. N x channels[i] x h x w.
    """

    image: Tensor
    levels: tuple[Tensor, ...]

    @property
    def low(self) -> Tensor:
        """Conv2, N x channels[1] x H/4 x W/4, for the decoder (v3+, section 3.1)."""
        return self.levels[1]

    @property
    def middle(self) -> Tensor:
        """Conv3, N x channels[2] x H/8 x W/8, for the decoder's table (v3+, Table 2)."""
        return self.levels[2]

    @property
    def penultimate(self) -> Tensor:
        """Conv4, N x channels[3] x h x w, for the auxiliary classifier."""
        return self.levels[3]

    @property
    def high(self) -> Tensor:
        """The last map, N x channels[4] x H/output_stride x W/output_stride."""
        return self.levels[-1]


class Backbone(nn.Module, ABC):
    """A feature extractor, built for one output stride.

    Attributes:
        name: as `model.backbone` says it, and as torchvision calls the classifier.
        channels: of `Features.levels`, five numbers.
    """

    name: str
    channels: tuple[int, ...]

    @property
    def low_channels(self) -> int:
        """Of `Features.low`."""
        return self.channels[1]

    @property
    def high_channels(self) -> int:
        """Of `Features.high`."""
        return self.channels[-1]

    @abstractmethod
    def forward(self, images: Tensor) -> Features:
        """Features of normalised images, N x 3 x H x W."""


class Stage(NamedTuple):
    """How one stage, whose first block has the classifier's stride, keeps the output stride.

    Attributes:
        stride: of the first block; 1 where it has lost its stride.
        entry_rate: of the convolution that carries the stride, or has lost it.
        rate: of every 3x3 after that one.
    """

    stride: int
    entry_rate: int
    rate: int

    @property
    def original_stride(self) -> int:
        """Of the first block in the classifier."""
        return self.stride * self.rate // self.entry_rate


def atrous_stages(strides: Sequence[int], output_stride: int, stem_stride: int) -> list[Stage]:
    """Turn the strides beyond `output_stride` into atrous rates.

    A convolution that loses its stride still sees the grid before it, so it keeps the rate before
    it; the ones after it see a grid `stride` times too dense and take that many times the rate.
    So a network at output stride 8, subsampled by 2, equals the same weights at 16.

    Args:
        strides: of each stage in the classifier.
        output_stride: of the last stage's output.
        stem_stride: of the first stage's input.

    Raises:
        UserError: if the strides cannot come to `output_stride`.

    Source: DeepLab v3, section 3.1.
    """
    stages = []
    reached, rate = stem_stride, 1
    for stride in strides:
        if reached * stride <= output_stride:
            reached *= stride
            stages.append(Stage(stride, rate, rate))
        else:
            stages.append(Stage(1, rate, rate * stride))
            rate *= stride
    if reached != output_stride:
        raise UserError(
            f"model.output_stride={output_stride}: these stages have the strides "
            f"{', '.join(map(str, strides))} after a stem of stride {stem_stride}; take a power "
            f"of two from {stem_stride} to {stem_stride * math.prod(strides)}"
        )
    return stages
