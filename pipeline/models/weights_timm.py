"""timm's ImageNet weights of Xception and MobileNetV2 in this project's layout."""

import re

from torch import Tensor

from pipeline.models.network import IMAGENET_MEAN, IMAGENET_STD

#: Mean and standard deviation of RGB in [0, 1] that timm trained with: for Xception x / 127.5 - 1.
XCEPTION_MEAN = XCEPTION_STD = (0.5, 0.5, 0.5)
MOBILENET_V2_MEAN, MOBILENET_V2_STD = IMAGENET_MEAN, IMAGENET_STD

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


def from_timm_xception(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights of timm's xception41, xception65 or xception71, whose names are ours.

    Returns:
        The weights with our keys (`backbone.*`), and timm's keys that are left out: the classifier.
    """
    left_out = tuple(key for key in state if key.startswith("head."))
    return {f"backbone.{key}": state[key] for key in state if key not in left_out}, left_out


def from_timm_mobilenet_v2(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights of timm's mobilenetv2_100, _050, _140 and others without deeper stages.

    A key of no known layer keeps its name, so that loading reports it.

    Returns:
        The weights with our keys (`backbone.*`), and timm's keys that are left out: the
        convolution to 1280 channels and the classifier.
    """
    left_out = tuple(k for k in state if k.startswith(("conv_head.", "bn2.", "classifier.")))
    positions = _bottleneck_positions(state)
    converted = {
        f"backbone.{_mobilenet_v2_key(key, positions)}": state[key]
        for key in state
        if key not in left_out
    }
    return converted, left_out


def _bottleneck_positions(state: dict[str, Tensor]) -> dict[tuple[int, int], int]:
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
