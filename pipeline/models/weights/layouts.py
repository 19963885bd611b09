"""Whose layout weights have, told by their keys, and what brings them into ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from pipeline.config.model import TIMM
from pipeline.errors import UserError
from pipeline.models.network import SegmentationNetwork
from pipeline.models.weights.converters import (
    Converted,
    from_backbone,
    from_tensorflow_deeplab_mobilenet_v2,
    from_timm_mobilenet_v2,
    from_torchvision_deeplab,
    from_torchvision_fcn,
)
from pipeline.models.weights.files import State
from pipeline.models.weights.report import some
from pipeline.models.weights.sources import (
    HALF,
    IMAGENET,
    TORCHVISION_DEEPLAB,
    TORCHVISION_FCN,
    Normalisation,
)
from pipeline.models.weights.vgg16 import from_torchvision_vgg16

#: What a classifier's weights have none of; patterns of our keys.
NOT_IN_A_CLASSIFIER = (
    "head.*",
    "auxiliary.*",
    # Copies of block 4 (v3, section 3.2), which no classifier has.
    "backbone.layer5.*",
    "backbone.layer6.*",
    "backbone.layer7.*",
)
#: Where ImageNet's fc6 and fc7 start v1's head, these of it stay random.
NOT_IN_VGG16 = (*NOT_IN_A_CLASSIFIER, "head.branches.*.fc8.*", "head.multi_scale.*")


@dataclass(frozen=True)
class Layout:
    """One publisher's names for one kind of network.

    Attributes:
        name: for messages.
        marks: beginnings of keys that tell it: all of them occur.
        convert: the keys and shapes into those of a network.
        normalisation: of the inputs; None: `convert` gives `input_mean` and `input_std`.
        random: patterns of our keys that may keep their random start, where the weights have
            nothing of a pattern.
        settings: of `model`, that a network needs to take them; for messages.
    """

    name: str
    marks: tuple[str, ...]
    convert: Callable[[State, SegmentationNetwork], Converted]
    normalisation: Normalisation | None
    random: tuple[str, ...]
    settings: Mapping[str, object] = field(default_factory=dict)


OURS = Layout(
    "this project's network",
    ("backbone.",),
    lambda state, _: Converted(state),
    None,
    ("head.*", "auxiliary.*"),
)
#: The first whose marks all occur.
LAYOUTS = (
    Layout(
        "TensorFlow DeepLabv3",
        ("concat_projection.", "logits."),
        lambda state, _: from_tensorflow_deeplab_mobilenet_v2(state),
        HALF,
        ("auxiliary.*",),
        {"backbone": "mobilenet_v2", "aspp": "no_atrous"},
    ),
    Layout(
        "torchvision DeepLabv3",
        ("backbone.layer1.", "classifier.0.convs."),
        lambda state, _: from_torchvision_deeplab(state),
        IMAGENET,
        ("auxiliary.*",),
        TORCHVISION_DEEPLAB,
    ),
    Layout(
        "torchvision FCN",
        ("backbone.layer1.", "classifier.0.weight"),
        lambda state, _: from_torchvision_fcn(state),
        IMAGENET,
        ("auxiliary.*",),
        TORCHVISION_FCN,
    ),
    OURS,
    Layout(
        "torchvision VGG-16",
        ("features.0.weight", "features.28."),
        lambda state, model: from_torchvision_vgg16(state, model.state_dict()),
        None,
        NOT_IN_VGG16,
    ),
    Layout(
        "torchvision MobileNetV2",
        ("features.0.0.", "features.1.conv."),
        lambda state, _: from_backbone(state, ("features.18.", "classifier.")),
        IMAGENET,
        NOT_IN_A_CLASSIFIER,
    ),
    Layout(
        "ResNet of torchvision or timm",
        ("conv1.", "layer1.0."),
        lambda state, _: from_backbone(state, ("fc.",)),
        IMAGENET,
        NOT_IN_A_CLASSIFIER,
    ),
    Layout(
        "timm Xception",
        ("stem.0.conv.", "blocks.0.stack."),
        lambda state, _: from_backbone(state, ("head.",)),
        HALF,
        NOT_IN_A_CLASSIFIER,
    ),
    Layout(
        "timm MobileNetV2",
        ("conv_stem.", "blocks.0.0."),
        lambda state, _: from_timm_mobilenet_v2(state),
        IMAGENET,
        NOT_IN_A_CLASSIFIER,
    ),
)


def recognise(state: State, model: SegmentationNetwork, asked: str) -> Layout:
    """Whose layout the keys are.

    Args:
        state: as it was saved.
        model: that is to take it; a backbone of timm takes timm's own names.
        asked: what `model.weights` says, for messages.

    Raises:
        UserError: if nobody's we know.
    """
    known = (OURS, _of_timm(model)) if model.backbone.name.startswith(TIMM) else LAYOUTS
    for layout in known:
        if all(any(key.startswith(mark) for key in state) for mark in layout.marks):
            return layout
    raise UserError(
        f"model.weights={asked}: unknown names ({some(state)}); known are "
        f"{', '.join(layout.name for layout in known)}"
    )


def _of_timm(model: SegmentationNetwork) -> Layout:
    """The layout of timm's model that is the backbone."""
    from pipeline.models.backbones.from_timm import TimmBackbone  # imports timm: seconds
    from pipeline.models.weights.from_timm import from_timm_model

    backbone = cast(TimmBackbone, model.backbone)
    return Layout(
        backbone.name,
        ("",),
        lambda state, _: from_timm_model(state, backbone.name, backbone.body.state_dict()),
        Normalisation(backbone.mean, backbone.std),
        NOT_IN_A_CLASSIFIER,
    )
