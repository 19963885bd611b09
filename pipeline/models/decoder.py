"""The decoder of DeepLab v3+: object boundaries from low-level features."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.models.backbones import Features
from pipeline.models.layers import (
    AtrousConv2d,
    ClassLayer,
    conv_bn_relu,
    resize,
    separable_conv_bn_relu,
)
from pipeline.models.upsampled_convolution import convolve_upsampled, pays
from pipeline.models.weight_gradient import convolution

#: Where in `Features.levels` the maps are that the paper calls Conv2 and Conv3.
LEVELS = {"conv2": 1, "conv3": 2}


class DecoderStage(nn.Module):
    """Features brought to the size of a low-level map, joined with it, refined.

    Input: N x in_channels x h x w and N x low_channels x H x W, output: N x channels x H x W.
    Source: v3+, section 3.1.

    Args:
        in_channels: of the features.
        low_channels: of the backbone's map.
        low_level_channels: to which that map is reduced, so that it does not outweigh the features.
        layers: convolutions after the joining.
        kernel: of those.
        channels: of those.
        separable: whether those are depthwise separable.
        align_corners: of the upsampling.
    """

    def __init__(
        self,
        in_channels: int,
        low_channels: int,
        *,
        low_level_channels: int,
        layers: int,
        kernel: int,
        channels: int,
        separable: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        #: Whether the first convolution comes before the upsampling out of training too.
        self.convolves_first = False
        self.reduction = conv_bn_relu(low_channels, low_level_channels, 1)
        convolution = separable_conv_bn_relu if separable else conv_bn_relu
        inputs = (in_channels + low_level_channels, *[channels] * (layers - 1))
        self.refinement = nn.Sequential(*(convolution(n, channels, kernel) for n in inputs))

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        """Refined features at the low-level map's size."""
        reduced = self.reduction(low)
        block = cast(nn.Sequential, self.refinement[0])
        first = block[0]
        # Otherwise the usual order: what is exported, counted and stored is the paper's.
        if (
            (self.training or self.convolves_first)
            and isinstance(first, AtrousConv2d)
            and pays(x, first.weight, low.shape[-2:])
        ):
            joined = self._join(x, reduced, first)
            return self.refinement[1:](block[1:](joined))
        upsampled = resize(x, low, align_corners=self.align_corners)
        return self.refinement(torch.cat([upsampled, reduced], dim=1))

    def _join(self, x: Tensor, reduced: Tensor, first: AtrousConv2d) -> Tensor:
        """The first convolution of the joined maps, that of the features before upsampling."""
        of_features, of_low = first.weight.split([x.shape[1], reduced.shape[1]], dim=1)
        fine = convolution(reduced, of_low, first.bias, padding=int(first.padding[0]))
        return convolve_upsampled(x, of_features, fine, align_corners=self.align_corners)


class Decoder(nn.Module):
    """Encoder features joined with low-level ones, coarse to fine, and classified.

    Input: N x encoder_channels x h x w and the backbone's maps,
    output: N x num_classes x H/4 x W/4.
    Source: v3+, section 3.1 and Figure 2. The defaults are the best of Table 1 (48 channels) and
    Table 2 (Conv2 alone, two 3x3 of 256).

    Args:
        encoder_channels: of the ASPP's output.
        level_channels: of the backbone's five maps.
        num_classes: with the background.
        features: which maps join, coarsest first: ("conv2",) or ("conv3", "conv2").
        low_level_channels: to which each of them is reduced.
        layers: convolutions after each joining.
        kernel: of those, 3 or 1.
        channels: of those.
        separable: whether those are depthwise separable.
        align_corners: of the upsampling.
    """

    def __init__(
        self,
        encoder_channels: int,
        level_channels: Sequence[int],
        num_classes: int,
        *,
        features: Sequence[str] = ("conv2",),
        low_level_channels: int = 48,
        layers: int = 2,
        kernel: int = 3,
        channels: int = 256,
        separable: bool = False,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.levels = tuple(LEVELS[name] for name in features)
        inputs = (encoder_channels, *[channels] * (len(features) - 1))
        self.stages = nn.ModuleList(
            DecoderStage(
                in_channels,
                level_channels[level],
                low_level_channels=low_level_channels,
                layers=layers,
                kernel=kernel,
                channels=channels,
                separable=separable,
                align_corners=align_corners,
            )
            for in_channels, level in zip(inputs, self.levels, strict=True)
        )
        self.classifier = ClassLayer(channels, num_classes)

    def forward(self, encoded: Tensor, features: Features) -> Tensor:
        """Class scores at stride 4."""
        x = encoded
        for stage, level in zip(self.stages, self.levels, strict=True):
            x = stage(x, features.levels[level])
        return self.classifier(x)
