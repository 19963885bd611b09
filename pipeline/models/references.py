"""The networks that the DeepLab papers compare with: libraries' heads on this project's backbones.

Sources: torchvision's `FCNHead`; segmentation_models_pytorch 0.5's decoders. Their structure,
channels, dropout and initialisation are the libraries' own; the class layer is this project's.
The libraries double maps and so want sides of a multiple of 32 pixels; here each map comes to the
next level's own size, which is the same there, and right for all other sides too.
"""

from collections.abc import Iterable

import torch.nn.functional as F
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.fpn.decoder import Conv3x3GNReLU, FPNDecoder
from segmentation_models_pytorch.decoders.linknet.decoder import LinknetDecoder
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from pipeline.config import ModelConfig
from pipeline.errors import UserError
from pipeline.models.backbones import Backbone, Features
from pipeline.models.heads import Head
from pipeline.models.layers import ClassLayer, resize

IMAGE_CHANNELS = 3


class FCN(Head):
    """A 3x3 convolution and the classes: scores at the output stride.

    Sources: Long et al., arXiv 1411.4038; torchvision's `fcn_resnet50`, which is at output
    stride 8 and has none of the paper's skip connections.

    Args:
        in_channels: of the last map.
        num_classes: with the background.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        *layers, last = FCNHead(in_channels, num_classes)
        self.layers = nn.Sequential(*layers)
        self.classifier = ClassLayer(last.in_channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.classifier(self.layers(features.high))


class UNet(Head):
    """Nearest upsampling, the next finer level beside it, two 3x3s; level by level up to the image.

    Sources: Ronneberger et al., arXiv 1505.04597; segmentation_models_pytorch's `Unet`.

    Args:
        backbone: its five levels; one without channels joins nothing.
        num_classes: with the background.
    """

    CHANNELS = (256, 128, 64, 32, 16)

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.decoder = UnetDecoder(
            encoder_channels=(IMAGE_CHANNELS, *backbone.channels),
            decoder_channels=self.CHANNELS,
            # As the library has it where the last map is a pool's, with no convolution after it.
            add_center_block=backbone.name == "vgg16",
        )
        initialize_decoder(self.decoder)
        self.classifier = ClassLayer(self.CHANNELS[-1], num_classes, 3)

    def forward(self, features: Features) -> Tensor:
        """Class scores at the image's size."""
        return self.classifier(self.decoder([features.image, *features.levels]))


class LinkNet(Head):
    """Transposed convolutions, each result added to the next finer level; up to the image.

    An encoder-decoder as SegNet, with sums in place of pooling indices. Rows and columns that a
    transposed convolution adds beyond the next level's size are cut.
    Sources: Chaurasia and Culurciello, arXiv 1707.03718; segmentation_models_pytorch's `Linknet`.

    Args:
        backbone: its five levels, each with half the size of the one before.
        output_stride: of the backbone.
        num_classes: with the background.

    Raises:
        UserError: for levels that do not halve, or that have no channels to add to.
    """

    CHANNELS = 32

    def __init__(self, backbone: Backbone, output_stride: int, num_classes: int) -> None:
        super().__init__()
        if output_stride != 32:
            raise UserError(
                f"model.output_stride={output_stride} with model.network=linknet: its decoder "
                "doubles each of five levels; take model.output_stride=32, or model.network=unet "
                "or fpn"
            )
        if 0 in backbone.channels:
            raise UserError(
                f"model.backbone={backbone.name} with model.network=linknet: the backbone has no "
                "map at each of the strides 2, 4, 8, 16, 32 to add to; take another one, e.g. "
                "resnet50, or model.network=unet or fpn"
            )
        self.decoder = LinknetDecoder([IMAGE_CHANNELS, *backbone.channels], self.CHANNELS)
        initialize_decoder(self.decoder)
        self.classifier = ClassLayer(self.CHANNELS, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Class scores at the image's size."""
        *finer, x = features.levels
        *blocks, last = self.decoder.blocks
        for block, level in zip(blocks, reversed(finer), strict=True):
            x = _cut(block(x), level) + level
        return self.classifier(_cut(last(x), features.image))


class FPN(Head):
    """A pyramid from coarse to fine, each of its maps brought to stride 4, summed.

    Sources: Lin et al., arXiv 1612.03144; for segmentation Kirillov et al., arXiv 1901.02446;
    segmentation_models_pytorch's `FPN`.

    Args:
        backbone: its four levels from stride 4 on.
        num_classes: with the background.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.decoder = FPNDecoder([IMAGE_CHANNELS, *backbone.channels])
        initialize_decoder(self.decoder)
        self.classifier = ClassLayer(self.decoder.out_channels, num_classes)

    def forward(self, features: Features) -> Tensor:
        """Class scores at stride 4."""
        decoder = self.decoder
        *finer, coarsest = features.levels[1:]
        pyramid = [decoder.p5(coarsest)]
        for block, level in zip((decoder.p4, decoder.p3, decoder.p2), reversed(finer), strict=True):
            upsampled = F.interpolate(pyramid[-1], size=level.shape[-2:], mode="nearest")
            pyramid.append(upsampled + block.skip_conv(level))
        finest = [
            _to_the_finest(branch.block, pyramid[place:])
            for place, branch in enumerate(decoder.seg_blocks)
        ]
        return self.classifier(decoder.dropout(decoder.merge(finest)))


class PSPNet(Head):
    """Means over 1x1, 2x2, 3x3 and 6x6 parts of the last map: scores at the output stride.

    Sources: Zhao et al., arXiv 1612.01105, at output stride 8; segmentation_models_pytorch's
    `PSPNet` on the last map (its own default is the map at stride 8 of a shortened backbone).
    Exported to ONNX it takes images of one size alone: ONNX has no mean over parts of a map.

    Args:
        backbone: its last level.
        num_classes: with the background.

    Raises:
        UserError: if its channels cannot be shared out among the four means.
    """

    CHANNELS = 512

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        if backbone.high_channels % 4:
            raise UserError(
                f"model.backbone={backbone.name} with model.network=pspnet: its four means share "
                f"the last map's {backbone.high_channels} channels, which 4 does not divide; take "
                "another backbone, e.g. resnet50"
            )
        self.decoder = PSPDecoder([backbone.high_channels], out_channels=self.CHANNELS)
        initialize_decoder(self.decoder)
        self.classifier = ClassLayer(self.CHANNELS, num_classes, 3)

    def forward(self, features: Features) -> Tensor:
        """Class scores at the output stride."""
        return self.classifier(self.decoder([features.high]))


def _cut(maps: Tensor, like: Tensor) -> Tensor:
    """Rows and columns up to the height and width of `like`."""
    height, width = like.shape[-2:]
    return maps[..., :height, :width]


def _to_the_finest(convolutions: Iterable[Conv3x3GNReLU], pyramid: list[Tensor]) -> Tensor:
    """The pyramid's first map, through a convolution before each of the sizes after it."""
    x, *finer = pyramid
    for number, convolution in enumerate(convolutions):
        x = convolution.block(x)
        if number < len(finer):
            x = resize(x, finer[number])
    return x


def build_reference_head(config: ModelConfig, backbone: Backbone, num_classes: int) -> Head:
    """The head of the configured `model.network`, with random weights.

    Args:
        config: of it the network and the output stride; DeepLab's settings mean nothing here.
        backbone: that it stands on.
        num_classes: with the background.

    Raises:
        UserError: for a backbone or an output stride that the network cannot be built on.
    """
    match config.network:
        case "fcn":
            return FCN(backbone.high_channels, num_classes)
        case "unet":
            return UNet(backbone, num_classes)
        case "linknet":
            return LinkNet(backbone, config.output_stride, num_classes)
        case "fpn":
            return FPN(backbone, num_classes)
        case "pspnet":
            return PSPNet(backbone, num_classes)
        case other:
            raise UserError(f"model.network={other}: fcn, unet, linknet, fpn or pspnet")
