"""A small network with random weights that stands for a trained one."""

from pathlib import Path

import torch
from torch import nn

from pipeline.config import ModelConfig
from pipeline.models.checkpoint import save_network
from pipeline.models.network import SegmentationNetwork, build_model

CLASSES = ("background", "sea", "island")
PALETTE = ((0, 0, 0), (64, 120, 192), (240, 200, 96))


def save_run(folder: Path, **settings: object) -> Path:
    """A run's folder with a model.ckpt and nothing else, as far as its figures differ by pixel."""
    torch.manual_seed(0)
    model = ModelConfig(**{"aspp": "no_atrous", "aspp_channels": 8, "width": 0.25} | settings)  # type: ignore[arg-type]
    network = varied(build_model(model, len(CLASSES)))
    about = {"classes": CLASSES, "palette": PALETTE}
    save_network(folder / "model.ckpt", network, model, about)
    return folder


def varied(network: SegmentationNetwork) -> SegmentationNetwork:
    """With the batch norm statistics of a real pass: otherwise all pixels get the same scores."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        network.train()(torch.rand(2, 3, 65, 65))
    return network.eval()
