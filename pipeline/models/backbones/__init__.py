"""Feature extractors whose atrous rates are decided when they are built."""

from pipeline.config import BACKBONES
from pipeline.errors import UserError, nearest
from pipeline.models.backbones.base import Backbone, Features
from pipeline.models.backbones.mobilenet_v2 import MobileNetV2
from pipeline.models.backbones.resnet import ResNet

__all__ = ["Backbone", "Features", "build_backbone"]


def build_backbone(name: str, output_stride: int) -> Backbone:
    """The backbone called `name`, with random weights, at an output stride.

    Raises:
        UserError: for an unknown name or an output stride it cannot be built at.
    """
    match name:
        case "mobilenet_v2":
            return MobileNetV2(output_stride)
        case "resnet18" | "resnet34" | "resnet50" | "resnet101":
            return ResNet(name, output_stride)
        case _:
            raise UserError(f"model.backbone={name}: {nearest(name, BACKBONES)}")
