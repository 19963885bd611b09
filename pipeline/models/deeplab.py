"""DeepLab v2, v3 and v3+: a backbone, a head, and bilinear upsampling.

Sources: v2 arXiv 1606.00915, v3 arXiv 1706.05587, v3+ arXiv 1802.02611.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig, atrous_rates
from pipeline.models.aspp import ASPP, SummedASPP
from pipeline.models.backbones import Backbone, Features, build_backbone
from pipeline.models.decoder import Decoder
from pipeline.models.layers import ClassLayer, resize

#: Mean and standard deviation of ImageNet's RGB values in [0, 1]: torchvision's weights want them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Head(nn.Module, ABC):
    """What turns a backbone's features into N x num_classes x h x w class scores."""

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Class scores, at the output stride or finer."""


class DeepLabV2Head(Head):
    """The summed ASPP alone (v2, Figure 7): scores at the output stride."""

    def __init__(self, aspp: SummedASPP) -> None:
        super().__init__()
        self.aspp = aspp

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.aspp(features.high)


class DeepLabV3Head(Head):
    """The ASPP and a 1x1 convolution to the classes (v3, Figure 5): scores at the output stride."""

    def __init__(self, aspp: ASPP, classifier: ClassLayer) -> None:
        super().__init__()
        self.aspp = aspp
        self.classifier = classifier

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.classifier(self.aspp(features.high))


class DeepLabV3PlusHead(Head):
    """The ASPP as encoder, and the decoder (v3+, Figure 2): scores at stride 4."""

    def __init__(self, aspp: ASPP, decoder: Decoder) -> None:
        super().__init__()
        self.aspp = aspp
        self.decoder = decoder

    def forward(self, features: Features) -> Tensor:
        """Class scores at stride 4."""
        return self.decoder(self.aspp(features.high), features.low)


class DeepLab(nn.Module):
    """A whole network: RGB images to class scores of the same size.

    The inputs' mean and standard deviation are part of it (buffers `input_mean`, `input_std`,
    saved with the weights), so that nobody has to know how a set of weights was trained.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, backbone: Backbone, head: Head, output_stride: int) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.backbone = backbone
        self.head = head
        self.register_buffer("input_mean", channel_values(IMAGENET_MEAN))
        self.register_buffer("input_std", channel_values(IMAGENET_STD))

    def scores(self, images: Tensor) -> Tensor:
        """Class scores before upsampling, at the output stride or (v3+) at stride 4.

        Args:
            images: N x 3 x H x W, RGB in [0, 1].
        """
        return self.head(self.backbone((images - self.input_mean) / self.input_std))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel, N x num_classes x H x W.

        Any H and W will do; at k * output_stride + 1 pixels the upsampling is exactly aligned.

        Args:
            images: N x 3 x H x W, RGB in [0, 1].

        Raises:
            UserError: with image pooling, for a batch of one image in training.
        """
        return resize(self.scores(images), like=images)


def channel_values(values: Sequence[float]) -> Tensor:
    """One value a channel, 1 x C x 1 x 1, to compute with N x C x H x W."""
    return torch.tensor(values).reshape(1, -1, 1, 1)


def build_model(config: ModelConfig, num_classes: int) -> DeepLab:
    """The configured network with random weights; `load_weights` gives it trained ones.

    Args:
        config: checked; its atrous rates are moved to its output stride.
        num_classes: with the background.

    Raises:
        UserError: for an unknown backbone or an output stride it cannot be built at.
    """
    backbone = build_backbone(config.backbone, config.output_stride)
    return DeepLab(backbone, _build_head(config, backbone, num_classes), config.output_stride)


def _build_head(config: ModelConfig, backbone: Backbone, num_classes: int) -> Head:
    rates = atrous_rates(config)
    if config.aspp == "summed":
        return DeepLabV2Head(SummedASPP(backbone.high_channels, num_classes, rates))
    aspp = ASPP(
        backbone.high_channels,
        rates,
        pooling=config.aspp != "no_pooling",
        channels=config.aspp_channels,
        dropout=config.dropout,
    )
    if not config.decoder:
        return DeepLabV3Head(aspp, ClassLayer(config.aspp_channels, num_classes))
    decoder = Decoder(
        config.aspp_channels,
        backbone.low_channels,
        num_classes,
        low_level_channels=config.low_level_channels,
    )
    return DeepLabV3PlusHead(aspp, decoder)
