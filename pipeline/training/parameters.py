"""Which learning rate and weight decay each parameter has."""

from typing import Any

from torch import nn

from pipeline.config import TrainConfig
from pipeline.models.network import SegmentationNetwork


def parameter_groups(network: SegmentationNetwork, config: TrainConfig) -> list[dict[str, Any]]:
    """The optimiser's groups: backbone and head, and of each its convolutions' biases.

    The released settings of v1 and v2 learn new layers 10 times as fast as the backbone
    (`head_multiplier`), biases twice as fast as their weights and without decay
    (`bias_multiplier`). Batch norm's parameters count as weights.

    Args:
        network: everything that is not its backbone is head.
        config: base learning rate, weight decay and the multipliers.

    Returns:
        `params`, `lr` and `weight_decay` of each group; groups without parameters are left out.
    """
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    apart = config.bias_multiplier != 1.0
    biases = _convolution_biases(network) if apart else set()
    groups = []
    for of_head in (False, True):
        for of_bias in (False, True):
            chosen = [
                parameter
                for parameter in network.parameters()
                if (id(parameter) not in backbone) == of_head
                and (id(parameter) in biases) == of_bias
            ]
            rate = config.learning_rate
            rate *= config.head_multiplier if of_head else 1.0
            rate *= config.bias_multiplier if of_bias else 1.0
            decay = 0.0 if of_bias else config.weight_decay
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def _convolution_biases(network: nn.Module) -> set[int]:
    return {
        id(module.bias)
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None
    }
