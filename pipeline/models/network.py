"""A whole network: a backbone, a head, and bilinear upsampling.

Sources: v1 arXiv 1412.7062, v2 1606.00915, v3 1706.05587, v3+ 1802.02611.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.models.backbones import Backbone, build_backbone
from pipeline.models.heads import Head, build_auxiliary, build_head
from pipeline.models.layers import resize

#: Mean and standard deviation of ImageNet's RGB values in [0, 1]: torchvision's weights want them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Outputs(NamedTuple):
    """Class scores before upsampling, all that a loss is taken of.

    Attributes:
        scores: N x num_classes x h x w, the network's answer.
        at_scales: with several scales (v2's MSC), those of each one before they are fused.
        auxiliary: of the auxiliary classifier, in training; None without one.
    """

    scores: Tensor
    at_scales: tuple[Tensor, ...] = ()
    auxiliary: Tensor | None = None


class SegmentationNetwork(nn.Module):
    """RGB images to class scores of the same size.

    The inputs' mean and standard deviation are part of it (buffers `input_mean`, `input_std`,
    saved with the weights), so that nobody has to know how a set of weights was trained.

    Args:
        backbone: images to features.
        head: features to class scores.
        output_stride: of the backbone.
        auxiliary: a second head, run in training only (v3, as torchvision trains it).
        scales: at which each image is seen with the same weights, the scores fused by maximum
            (v2, section 4.1.2). The largest is 1.
        align_corners: of the upsampling.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        output_stride: int,
        *,
        auxiliary: Head | None = None,
        scales: Sequence[float] = (1.0,),
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.output_stride = output_stride
        self.backbone = backbone
        self.head = head
        self.auxiliary = auxiliary
        self.scales = tuple(scales)
        self.align_corners = align_corners
        self.register_buffer("input_mean", channel_values(IMAGENET_MEAN))
        self.register_buffer("input_std", channel_values(IMAGENET_STD))

    def outputs(self, images: Tensor) -> Outputs:
        """Every output that a loss is taken of, before upsampling.

        Args:
            images: N x 3 x H x W, RGB in [0, 1].

        Raises:
            UserError: with image pooling, for a batch of one image in training.
        """
        normalised = (images - self.input_mean) / self.input_std
        if self.scales == (1.0,):
            features = self.backbone(normalised)
            auxiliary = self.auxiliary if self.training else None
            return Outputs(
                self.head(features), auxiliary=auxiliary(features) if auxiliary else None
            )
        at_scales = tuple(self._at_scale(normalised, scale) for scale in self.scales)
        finest = at_scales[self.scales.index(1.0)]
        fused = torch.stack([self._resize(one, finest) for one in at_scales]).amax(dim=0)
        return Outputs(fused, at_scales=at_scales)

    def scores(self, images: Tensor) -> Tensor:
        """Class scores before upsampling, at the output stride or finer (a decoder's).

        Args:
            images: N x 3 x H x W, RGB in [0, 1].
        """
        return self.outputs(images).scores

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of every pixel, N x num_classes x H x W.

        Any H and W will do; at k * output_stride + 1 pixels the upsampling is exactly aligned.

        Args:
            images: N x 3 x H x W, RGB in [0, 1].

        Raises:
            UserError: with image pooling, for a batch of one image in training.
        """
        return self.upsample(self.scores(images), images)

    def upsample(self, scores: Tensor, like: Tensor) -> Tensor:
        """Scores at the height and width of `like`."""
        return self._resize(scores, like)

    def _resize(self, scores: Tensor, like: Tensor) -> Tensor:
        return resize(scores, like, align_corners=self.align_corners)

    def _at_scale(self, normalised: Tensor, scale: float) -> Tensor:
        if scale == 1.0:
            return self.head(self.backbone(normalised))
        # In whole numbers, so that an exported network takes any size.
        up, down = Fraction(scale).limit_denominator(64).as_integer_ratio()
        height, width = ((side - 1) * up // down + 1 for side in normalised.shape[-2:])
        small = nn.functional.interpolate(
            normalised, size=(height, width), mode="bilinear", align_corners=self.align_corners
        )
        return self.head(self.backbone(small))


def channel_values(values: Sequence[float]) -> Tensor:
    """One value a channel, 1 x C x 1 x 1, to compute with N x C x H x W."""
    return torch.tensor(values).reshape(1, -1, 1, 1)


def build_model(config: ModelConfig, num_classes: int) -> SegmentationNetwork:
    """The configured network with random weights; `load_weights` gives it trained ones.

    Args:
        config: checked; its atrous rates are moved to its output stride.
        num_classes: with the background.

    Raises:
        UserError: for an unknown backbone or an output stride it cannot be built at.
    """
    backbone = build_backbone(config)
    return SegmentationNetwork(
        backbone,
        build_head(config, backbone, num_classes),
        config.output_stride,
        auxiliary=build_auxiliary(backbone, num_classes) if config.auxiliary else None,
        scales=config.scales,
        align_corners=config.align_corners,
    )
