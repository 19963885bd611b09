"""Small networks and weight files that the tests of the weights share."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.models.weights import WeightReport, load_weights

State = dict[str, Tensor]


def small_config(**settings: object) -> ModelConfig:
    """A small DeepLabv3 MobileNetV2, or with other settings."""
    config = ModelConfig(aspp="no_atrous", aspp_channels=8, output_stride=32)
    for key, value in settings.items():
        setattr(config, key, value)
    return config


def small(num_classes: int = 5, /, **settings: object) -> SegmentationNetwork:
    return build_model(small_config(**settings), num_classes)


def load(
    model: SegmentationNetwork, weights: str | Path | None, **settings: object
) -> WeightReport:
    """Into a network that `small` made with the same settings."""
    name = None if weights is None else str(weights)
    return load_weights(model, small_config(weights=name, **settings))


def saved(content: object, file: Path) -> Path:
    torch.save(content, file)
    return file


def copied(model: nn.Module) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(model: nn.Module, before: State) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
