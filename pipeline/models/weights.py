"""Trained weights into a network: recognised by their keys, converted, loaded without remainder."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.layers import ClassLayer
from pipeline.models.network import IMAGENET_MEAN, IMAGENET_STD, SegmentationNetwork, channel_values
from pipeline.paths import PROJECT

State = dict[str, Tensor]

#: Lightning saves the task; this is the network's attribute in it.
NETWORK_PREFIX = "network."
#: What torchvision's classifiers have after the last map that DeepLab uses.
CLASSIFIER_PREFIXES = ("classifier.", "features.18.", "fc.")
#: The published TensorFlow network's names, and ours for the same layer.
TENSORFLOW_NAMES = {
    "features.": "backbone.features.",
    "aspp0.": "head.aspp.branches.0.",
    # Ours counts the pooling itself as layer 0.
    "image_pooling.0.": "head.aspp.branches.1.1.",
    "image_pooling.1.": "head.aspp.branches.1.2.",
    "concat_projection.": "head.aspp.projection.",
    "logits.": "head.classifier.",
}


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor.

    Attributes:
        source: where the weights are from, and whose layout they had.
        loaded: the network's tensors that were loaded.
        left_out: the file's tensors that DeepLab has no use for, such as ImageNet's classifier.
        fresh: the network's tensors that keep their random start.
    """

    source: str
    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    fresh: tuple[str, ...]

    def summary(self) -> str:
        """One line for a log."""
        if not self.loaded:
            return self.source
        parts = [f"{len(self.loaded)} tensors loaded"]
        if self.left_out:
            parts.append(f"{len(self.left_out)} left out ({', '.join(_tops(self.left_out))})")
        if self.fresh:
            parts.append(f"{len(self.fresh)} random ({', '.join(_tops(self.fresh))})")
        return f"{self.source}: {'; '.join(parts)}"


class Converted(NamedTuple):
    """Weights in our own layout.

    Attributes:
        state: DeepLab's keys (`backbone.*`, `head.*`, `input_mean`, `input_std`).
        left_out: the original keys that have no counterpart by design.
    """

    state: State
    left_out: tuple[str, ...] = ()


def load_weights(model: SegmentationNetwork, weights: str | None) -> WeightReport:
    """Load trained weights and the input normalisation they were trained with.

    A head that the weights have none of stays random, so does a class layer of another number of
    classes; every other difference is an error.

    Args:
        model: the network, changed in place; unchanged if an error is raised.
        weights: None (stay random), "imagenet" (the backbone's, by torchvision), or a file: a
            state_dict in torchvision's backbone layout, in ours, or of the published TensorFlow
            DeepLabv3 MobileNetV2; or one of our checkpoints. A relative path starts at the
            project's root.

    Raises:
        UserError: if the file is missing, damaged or does not fit; if the download fails.
    """
    if weights is None:
        return WeightReport("random", (), (), tuple(model.state_dict()))
    if weights == "imagenet":
        source, state = "imagenet", _download(model.backbone.name)
    else:
        source, state = weights, read_state_dict(weights)
    layout, convert = _recognise(source, state)
    return _load(model, convert(state), f"{source} ({layout})")


def read_state_dict(file: str | Path) -> State:
    """The tensors of a .pth state_dict or of a Lightning checkpoint's network.

    Raises:
        UserError: if the file is missing, damaged or holds something else.
    """
    path = PROJECT / Path(file).expanduser()
    if not path.is_file():
        raise UserError(
            f"model.weights={file}: no such file; name a .pth state_dict or a .ckpt of a run, or "
            "set model.weights=imagenet or model.weights=null"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes the unpickler do
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model.weights={file}: cannot be read as weights, it is damaged or holds more than "
            f"tensors ({reason}); fetch it again, or save its state_dict() alone"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = _network_of(content["state_dict"])
    if not _is_state_dict(content):
        raise UserError(
            f"model.weights={file}: holds no state_dict (names with tensors); save the network's "
            "state_dict()"
        )
    return dict(content)


def _network_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """The network's part of a Lightning task: the rest belongs to the loss and the metrics."""
    network = {
        key.removeprefix(NETWORK_PREFIX): value
        for key, value in task.items()
        if key.startswith(NETWORK_PREFIX)
    }
    return network or dict(task)


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) for key in content)
        and all(isinstance(value, Tensor) for value in content.values())
    )


def _download(backbone: str) -> State:
    # Imported here: torchvision.models takes a second to import, and few runs come here.
    from torchvision.models import get_model_weights

    weights = get_model_weights(backbone)["IMAGENET1K_V1"]
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network or no space; a wrong checksum
        raise UserError(
            f"model.weights=imagenet: {weights.url} could not be fetched ({error}); fetch it "
            "elsewhere and set model.weights=PATH, or model.weights=null for random weights"
        ) from error


def _recognise(source: str, state: State) -> tuple[str, Callable[[State], Converted]]:
    """Whose layout the keys are, and what brings it into ours."""
    if "concat_projection.0.weight" in state:
        layout = "TensorFlow DeepLabv3: model.backbone=mobilenet_v2 model.aspp=no_atrous"
        return layout, from_tensorflow_deeplab_mobilenet_v2
    if any(key.startswith("backbone.") for key in state):
        return "DeepLab of this project", Converted
    if "features.0.0.weight" in state or "layer1.0.conv1.weight" in state:
        return "torchvision backbone", from_torchvision_backbone
    raise UserError(
        f"model.weights={source}: unknown names ({_some(state)}); known are torchvision's "
        "MobileNetV2 and ResNet, this project's networks and checkpoints, and the published "
        "TensorFlow DeepLabv3 MobileNetV2"
    )


def from_torchvision_backbone(state: State) -> Converted:
    """Weights of torchvision's MobileNetV2 or ResNet, trained on ImageNet; no classifier."""
    converted = {
        f"backbone.{key}": value
        for key, value in state.items()
        if not key.startswith(CLASSIFIER_PREFIXES)
    }
    converted["input_mean"] = channel_values(IMAGENET_MEAN)
    converted["input_std"] = channel_values(IMAGENET_STD)
    return Converted(converted, tuple(k for k in state if k.startswith(CLASSIFIER_PREFIXES)))


def from_tensorflow_deeplab_mobilenet_v2(state: State) -> Converted:
    """The published DeepLabv3 MobileNetV2 (output stride 16, no atrous branches, 21 classes).

    Its projection takes [image pooling, 1x1], ours [1x1, image pooling]: the input channels are
    permuted. Its inputs are x / 127.5 - 1. TensorFlow's epsilon of 1e-3
    is not to be put in again: the file's batch norms were rebuilt for 1e-5, in each of them
    weight^2 = running_var + 1e-5.
    Source: the TensorFlow DeepLab model zoo; MobileNetV2, section 6.3.
    """
    converted: State = {}
    for key, value in state.items():
        for theirs, ours in TENSORFLOW_NAMES.items():
            if key.startswith(theirs):
                converted[ours + key.removeprefix(theirs)] = value
                break
        else:
            converted[key] = value  # unexpected, and reported so when it is loaded
    pooled, pointwise = converted["head.aspp.projection.0.weight"].chunk(2, dim=1)
    converted["head.aspp.projection.0.weight"] = torch.cat([pointwise, pooled], dim=1)
    converted["input_mean"] = converted["input_std"] = torch.full((1, 3, 1, 1), 0.5)
    return Converted(converted)


def _load(model: SegmentationNetwork, converted: Converted, source: str) -> WeightReport:
    own: State = model.state_dict()
    given = converted.state
    class_layers = _class_layers(model)
    has_head = any(key.startswith("head.") for key in given)

    fresh: list[str] = []
    missing: list[str] = []
    differing: list[str] = []
    for key, tensor in own.items():
        if key not in given:
            if key.startswith("head.") and not has_head:
                fresh.append(key)
            elif not key.endswith("num_batches_tracked"):  # old files lack this counter; unused
                missing.append(key)
        elif given[key].shape != tensor.shape:
            same_but_classes = key in class_layers and given[key].shape[1:] == tensor.shape[1:]
            (fresh if same_but_classes else differing).append(key)
    unexpected = [key for key in given if key not in own]

    troubles = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    if any(troubles.values()):
        listed = "; ".join(
            f"{len(keys)} {trouble}: {_some(keys)}" for trouble, keys in troubles.items() if keys
        )
        raise UserError(
            f"model.weights={source}: does not fit the network with model.backbone="
            f"{model.backbone.name} ({listed}); build it with the model.* settings of these weights"
        )
    loaded = [key for key in own if key in given and key not in fresh]
    model.load_state_dict(own | {key: given[key] for key in loaded})
    return WeightReport(source, tuple(loaded), converted.left_out, tuple(fresh))


def _class_layers(model: nn.Module) -> set[str]:
    return {
        f"{name}.{tensor}"
        for name, module in model.named_modules()
        if isinstance(module, ClassLayer)
        for tensor in ("weight", "bias")
    }


def _some(keys: Iterable[str], most: int = 5) -> str:
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _tops(keys: Iterable[str]) -> list[str]:
    """The parts that the keys are of: `head.classifier`, `features.18`, `fc`."""
    deep = ("head.", "features.")
    return sorted({".".join(key.split(".")[: 2 if key.startswith(deep) else 1]) for key in keys})
