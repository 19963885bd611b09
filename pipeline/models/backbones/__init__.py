"""Feature extractors whose atrous rates are decided when they are built."""

from pipeline.config import BACKBONES, ModelConfig
from pipeline.config.model import TIMM
from pipeline.errors import UserError, nearest
from pipeline.models.backbones.base import Backbone, Features
from pipeline.models.backbones.mobilenet_v2 import MobileNetV2
from pipeline.models.backbones.resnet import ResNet

__all__ = ["Backbone", "Features", "build_backbone"]


def build_backbone(config: ModelConfig) -> Backbone:
    """The configured backbone, with random weights, at the configured output stride.

    Raises:
        UserError: for an unknown name or an output stride it cannot be built at.
    """
    name, output_stride = config.backbone, config.output_stride
    match name:
        case "vgg16":
            from pipeline.models.backbones.vgg import VGG16

            return VGG16(output_stride)
        case "resnet18" | "resnet34" | "resnet50" | "resnet101":
            return ResNet(
                name,
                output_stride,
                stem=config.stem,
                blocks=config.blocks,
                multi_grid=config.multi_grid,
            )
        case "xception41" | "xception65" | "xception71":
            from pipeline.models.backbones.xception import Xception

            return Xception(name, output_stride)
        case "mobilenet_v2":
            return MobileNetV2(output_stride, config.width, round_channels=config.round_channels)
        case _ if name.startswith(TIMM):
            from pipeline.models.backbones.from_timm import TimmBackbone  # imports timm: seconds

            return TimmBackbone(name, output_stride)
        case _:
            raise UserError(f"model.backbone={name}: {nearest(name, BACKBONES)}")
