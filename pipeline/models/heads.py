"""What stands on a backbone: features to class scores, one class a paper."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from pipeline.config import ModelConfig, atrous_rates
from pipeline.models.aspp import ASPP, SummedASPP
from pipeline.models.backbones import Backbone, Features
from pipeline.models.decoder import Decoder
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
    """
    rates = atrous_rates(config)
    if config.aspp == "none":
        return ClassifierHead(ClassLayer(backbone.high_channels, num_classes))
    if config.aspp == "summed":
        return DeepLabV2Head(SummedASPP(backbone.high_channels, num_classes, rates))
    aspp = ASPP(
        backbone.high_channels,
        rates,
        pooling=config.aspp != "no_pooling",
        channels=config.aspp_channels,
        dropout=config.dropout,
    )
    if config.decoder:
        return DeepLabV3PlusHead(aspp, _build_decoder(config, backbone, num_classes))
    channels = config.aspp_channels
    conv = conv_bn_relu(channels, channels, 3) if config.head_conv else None
    return DeepLabV3Head(aspp, ClassLayer(channels, num_classes), conv)


def _build_decoder(config: ModelConfig, backbone: Backbone, num_classes: int) -> Decoder:
    return Decoder(
        config.aspp_channels,
        backbone.low_channels,
        num_classes,
        low_level_channels=config.low_level_channels,
    )
