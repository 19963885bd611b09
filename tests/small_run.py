"""A small network with random weights that stands for a trained one."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pipeline.config import ModelConfig
from pipeline.models.checkpoint import save_network
from pipeline.models.layers import ClassLayer
from pipeline.models.network import SegmentationNetwork, build_model
from pipeline.prediction.photograph import photograph

CLASSES = ("background", "sea", "island")
PALETTE = ((0, 0, 0), (64, 120, 192), (240, 200, 96))


def picture(width: int = 131, height: int = 155) -> Image.Image:
    """A small photograph."""
    return Image.fromarray(photograph()).resize((width, height))


def save_run(folder: Path, **settings: Any) -> Path:
    """A run's folder with a model.ckpt and nothing else; on a photograph it gives all classes.

    Args:
        folder: runs/<variant>.
        settings: of ModelConfig, besides few channels.
    """
    torch.manual_seed(0)
    few: dict[str, Any] = {"aspp": "no_pooling", "aspp_channels": 8, "width": 0.25}
    model = ModelConfig(**(few | settings))
    network = _spread(build_model(model, len(CLASSES)))
    about = {"classes": CLASSES, "palette": PALETTE}
    save_network(folder / "model.ckpt", network, model, about)
    return folder


def _spread(network: SegmentationNetwork) -> SegmentationNetwork:
    """Random weights alone give all pixels nearly the same scores."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    image = torch.from_numpy(np.array(picture())).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        network.train()(torch.cat([image, image.flip(-1)]))
        scores = network.eval().scores(image)
        mean = scores.mean(dim=(0, 2, 3))
        spread = (scores - mean[:, None, None]).std(dim=(0, 2, 3))
        for module in network.modules():
            if isinstance(module, ClassLayer) and module.bias is not None:
                module.weight.div_(spread[:, None, None, None])
                module.bias.sub_(mean).div_(spread)
    return network
