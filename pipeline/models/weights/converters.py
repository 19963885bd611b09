"""Others' names for the layers, and ours: one function for each published layout."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from pipeline.models.weights.files import State

#: torchvision's auxiliary classifier, and its FCN and DeepLabv3 ResNets, which may have one.
AUXILIARY_NAMES = {
    "aux_classifier.0.": "auxiliary.conv.0.",
    "aux_classifier.1.": "auxiliary.conv.1.",
    "aux_classifier.4.": "auxiliary.classifier.",
}
TORCHVISION_FCN_NAMES = {
    "classifier.0.": "head.layers.0.",
    "classifier.1.": "head.layers.1.",
    "classifier.4.": "head.classifier.",
    **AUXILIARY_NAMES,
}
TORCHVISION_DEEPLAB_NAMES = {
    "classifier.0.convs.": "head.aspp.branches.",
    "classifier.0.project.": "head.aspp.projection.",
    "classifier.1.": "head.conv.0.",
    "classifier.2.": "head.conv.1.",
    "classifier.4.": "head.classifier.",
    **AUXILIARY_NAMES,
}
#: The published TensorFlow DeepLabv3 MobileNetV2.
TENSORFLOW_NAMES = {
    "features.": "backbone.features.",
    "aspp0.": "head.aspp.branches.0.",
    # Ours counts the pooling itself as layer 0.
    "image_pooling.0.": "head.aspp.branches.1.1.",
    "image_pooling.1.": "head.aspp.branches.1.2.",
    "concat_projection.": "head.aspp.projection.",
    "logits.": "head.classifier.",
}

#: timm's layers of a bottleneck, and ours; with an expansion and (the first bottleneck) without.
EXPANDED = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "conv_pwl": "2",
    "bn3": "3",
}
UNEXPANDED = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}


class Converted(NamedTuple):
    """Weights in our own layout.

    Attributes:
        state: a network's keys (`backbone.*`, `head.*`, `auxiliary.*`). A key of no known layer
            keeps its name, so that loading reports it.
        left_out: the original keys that have no counterpart by design.
    """

    state: State
    left_out: tuple[str, ...] = ()


def from_backbone(state: State, classifier: Iterable[str]) -> Converted:
    """Weights of a classifier whose names are ours, such as torchvision's ResNets.

    Args:
        state: as it was saved.
        classifier: how the keys begin of all that comes after the last map that we use.
    """
    left_out = tuple(key for key in state if key.startswith(tuple(classifier)))
    return Converted(
        {f"backbone.{key}": state[key] for key in state if key not in left_out}, left_out
    )


def from_torchvision_deeplab(state: State) -> Converted:
    """The whole deeplabv3_resnet50 or deeplabv3_resnet101; its ASPP counts the layers as ours."""
    return Converted(_renamed(state, TORCHVISION_DEEPLAB_NAMES))


def from_torchvision_fcn(state: State) -> Converted:
    """The whole fcn_resnet50 or fcn_resnet101."""
    return Converted(_renamed(state, TORCHVISION_FCN_NAMES))


def from_tensorflow_deeplab_mobilenet_v2(state: State) -> Converted:
    """The published DeepLabv3 MobileNetV2 (output stride 16, no atrous branches, 21 classes).

    Its projection takes [image pooling, 1x1], ours [1x1, image pooling]: the input channels are
    permuted. TensorFlow's epsilon of 1e-3 is not to be put in again: the file's batch norms were
    rebuilt for 1e-5, in each of them weight^2 = running_var + 1e-5.
    Source: the TensorFlow DeepLab model zoo; MobileNetV2, section 6.3.
    """
    converted = _renamed(state, TENSORFLOW_NAMES)
    pooled, pointwise = converted["head.aspp.projection.0.weight"].chunk(2, dim=1)
    converted["head.aspp.projection.0.weight"] = torch.cat([pointwise, pooled], dim=1)
    return Converted(converted)


def from_timm_mobilenet_v2(state: State) -> Converted:
    """The classifier mobilenetv2_100, _050, _140 or another without deeper stages."""
    left_out = tuple(k for k in state if k.startswith(("conv_head.", "bn2.", "classifier.")))
    positions = _bottleneck_positions(state)
    converted = {
        f"backbone.{_mobilenet_v2_key(key, positions)}": state[key]
        for key in state
        if key not in left_out
    }
    return Converted(converted, left_out)


def _renamed(state: State, names: Mapping[str, str]) -> State:
    """The state with the first part of each key renamed."""
    renamed: State = {}
    for key, value in state.items():
        theirs = next((name for name in names if key.startswith(name)), "")
        renamed[names.get(theirs, "") + key.removeprefix(theirs)] = value
    return renamed


def _bottleneck_positions(state: State) -> dict[tuple[int, int], int]:
    """Ours, of timm's (stage, bottleneck in the stage): counted from 1, for 0 is the stem."""
    found = {
        (int(match[1]), int(match[2]))
        for match in (re.match(r"blocks\.(\d+)\.(\d+)\.", key) for key in state)
        if match
    }
    return {pair: position for position, pair in enumerate(sorted(found), start=1)}


def _mobilenet_v2_key(key: str, positions: dict[tuple[int, int], int]) -> str:
    if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", key):
        stage, block, layer, tensor = match.groups()
        position = positions[int(stage), int(block)]
        names = UNEXPANDED if position == 1 else EXPANDED
        return f"features.{position}.conv.{names[layer]}.{tensor}" if layer in names else key
    layer, _, tensor = key.partition(".")
    stem = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    return f"{stem[layer]}.{tensor}" if layer in stem else key
