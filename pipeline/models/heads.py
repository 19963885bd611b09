"""What stands on a backbone: features to class scores, one class a paper."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig, atrous_rates
from pipeline.models.aspp import ASPP, SummedASPP
from pipeline.models.backbones import Backbone, Features
from pipeline.models.decoder import Decoder
from pipeline.models.fc6 import Fc6Branch, MultiScaleFeatures
from pipeline.models.layers import ClassLayer, conv_bn_relu


class Head(nn.Module, ABC):
    """What turns a backbone's features into N x num_classes x h x w class scores."""

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Class scores, at the output stride or finer."""


class ClassifierHead(Head):
    """A 1x1 convolution to the classes alone (v3, section 3.2): scores at the output stride."""

    def __init__(self, classifier: ClassLayer) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.classifier(features.high)


class Fc6Head(Head):
    """VGG-16's fc6-fc7-fc8 (v1, section 3; v2, Figure 7): scores at the output stride.

    Args:
        branches: one a rate, their scores summed.
        multi_scale: v1's features of the image and the first pools, which join the branches' last.
    """

    def __init__(
        self, branches: Iterable[Fc6Branch], multi_scale: MultiScaleFeatures | None = None
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.multi_scale = multi_scale

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        extra = None if self.multi_scale is None else self.multi_scale(features)
        scores = [branch(features.high, extra) for branch in self.branches]
        return torch.stack(scores).sum(dim=0)


class DeepLabV2Head(Head):
    """The summed ASPP alone (v2, Figure 7): scores at the output stride."""

    def __init__(self, aspp: SummedASPP) -> None:
        super().__init__()
        self.aspp = aspp

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.aspp(features.high)


class DeepLabV3Head(Head):
    """The ASPP and a 1x1 convolution to the classes (v3, Figure 5): scores at the output stride.

    Args:
        aspp: features to features.
        classifier: of the ASPP's channels.
        conv: torchvision's 3x3 convolution, batch norm and ReLU between the two; None: the paper.
    """

    def __init__(
        self, aspp: ASPP, classifier: ClassLayer, conv: nn.Sequential | None = None
    ) -> None:
        super().__init__()
        self.aspp = aspp
        self.conv = conv
        self.classifier = classifier

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        encoded = self.aspp(features.high)
        return self.classifier(encoded if self.conv is None else self.conv(encoded))


class DeepLabV3PlusHead(Head):
    """The ASPP as encoder, and the decoder (v3+, Figure 2): scores at stride 4."""

    def __init__(self, aspp: ASPP, decoder: Decoder) -> None:
        super().__init__()
        self.aspp = aspp
        self.decoder = decoder

    def forward(self, features: Features) -> Tensor:
        """Class scores at stride 4."""
        return self.decoder(self.aspp(features.high), features)


class AuxiliaryHead(Head):
    """A small FCN on block 3, for a second loss in training: torchvision's auxiliary classifier.

    Args:
        in_channels: of `Features.penultimate`.
        num_classes: with the background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = in_channels // 4
        self.conv = conv_bn_relu(in_channels, channels, 3)
        self.dropout = nn.Dropout(0.1)
        self.classifier = ClassLayer(channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Class scores at block 3's stride."""
        return self.classifier(self.dropout(self.conv(features.penultimate)))


def build_auxiliary(backbone: Backbone, num_classes: int) -> Head:
    """The auxiliary head on a backbone."""
    return AuxiliaryHead(backbone.channels[3], num_classes)


def build_head(config: ModelConfig, backbone: Backbone, num_classes: int) -> Head:
    """The configured head with random weights.

    Args:
        config: checked; its atrous rates are moved to its output stride.
        backbone: that it stands on.
        num_classes: with the background.

    Raises:
        UserError: for a reference network that cannot stand on this backbone.
    """
    if config.network != "deeplab":
        from pipeline.models.references import build_reference_head  # its libraries take seconds

        return build_reference_head(config, backbone, num_classes)
    rates = atrous_rates(config)
    if config.aspp == "none":
        return ClassifierHead(ClassLayer(backbone.high_channels, num_classes))
    if config.aspp == "fc6":
        return _build_fc6(config, backbone, num_classes)
    if config.aspp == "summed":
        return DeepLabV2Head(SummedASPP(backbone.high_channels, num_classes, rates))
    aspp = ASPP(
        backbone.high_channels,
        rates,
        pooling=config.aspp != "no_pooling",
        channels=config.aspp_channels,
        dropout=config.dropout,
        separable=config.separable,
    )
    if config.decoder:
        return DeepLabV3PlusHead(aspp, _build_decoder(config, backbone, num_classes))
    channels = config.aspp_channels
    conv = conv_bn_relu(channels, channels, 3) if config.head_conv else None
    return DeepLabV3Head(aspp, ClassLayer(channels, num_classes), conv)


def _build_fc6(config: ModelConfig, backbone: Backbone, num_classes: int) -> Fc6Head:
    rates = atrous_rates(config)
    multi_scale = None
    if config.multi_scale_features:
        multi_scale = MultiScaleFeatures(backbone.channels[:4], config.output_stride)
    branches = (
        Fc6Branch(
            backbone.high_channels,
            num_classes,
            kernel=config.fc6_kernel,
            rate=rate,
            channels=config.fc6_channels,
            dropout=config.dropout,
            extra_channels=multi_scale.out_channels if multi_scale is not None else 0,
        )
        for rate in rates
    )
    return Fc6Head(branches, multi_scale)


def _build_decoder(config: ModelConfig, backbone: Backbone, num_classes: int) -> Decoder:
    return Decoder(
        config.aspp_channels,
        backbone.channels,
        num_classes,
        features=config.decoder_features,
        low_level_channels=config.low_level_channels,
        layers=config.decoder_layers,
        kernel=config.decoder_kernel,
        channels=config.decoder_channels,
        separable=config.separable,
        align_corners=config.align_corners,
    )
