"""The decoder of DeepLab v3+: object boundaries from low-level features."""

import torch
from torch import Tensor, nn

from pipeline.models.backbones import Features
from pipeline.models.layers import ClassLayer, conv_bn_relu, resize


class Decoder(nn.Module):
    """Encoder features brought to stride 4, joined with low-level ones, refined, classified.

    Input: N x encoder_channels x h x w and N x low_channels x H/4 x W/4,
    output: N x num_classes x H/4 x W/4.
    Source: v3+, section 3.1; Table 1 for 48 channels, Table 2 for two 3x3 of 256.

    Args:
        encoder_channels: of the ASPP's output.
        low_channels: of the backbone's stride-4 map.
        num_classes: with the background.
        low_level_channels: to which the stride-4 map is reduced, so that it does not outweigh the
            encoder's features.
        channels: of the two 3x3 convolutions.
    """

    def __init__(
        self,
        encoder_channels: int,
        low_channels: int,
        num_classes: int,
        *,
        low_level_channels: int = 48,
        channels: int = 256,
    ) -> None:
        super().__init__()
        self.reduction = conv_bn_relu(low_channels, low_level_channels, 1)
        self.refinement = nn.Sequential(
            conv_bn_relu(encoder_channels + low_level_channels, channels, 3),
            conv_bn_relu(channels, channels, 3),
        )
        self.classifier = ClassLayer(channels, num_classes)

    def forward(self, encoded: Tensor, features: Features) -> Tensor:
        """Class scores at stride 4."""
        low = features.low
        joined = torch.cat([resize(encoded, low), self.reduction(low)], dim=1)
        return self.classifier(self.refinement(joined))
