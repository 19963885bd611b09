"""Batch norms that matter: random scales and shifts, and statistics that fit."""

import torch
from torch import Tensor, nn


def with_statistics(network: nn.Module, images: Tensor) -> nn.Module:
    """Its batch norms have random scales and shifts, and the statistics of these images; eval mode.

    Statistics drawn at random would not do: MobileNetV2's small depthwise weights would leave
    nothing of the image, only the shifts, and every rate would look right.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    return network.eval()
