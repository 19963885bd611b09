"""The exponential moving average of a network's weights."""

import copy

import torch
from torch import nn

from pipeline.models.network import SegmentationNetwork


class WeightAverage(nn.Module):
    """A network whose weights are the moving average of another's.

    average <- d * average + (1 - d) * weights after each step, where d grows to `decay` as
    (1 + steps) / (10 + steps), so that the first, random weights are soon forgotten (Polyak and
    Juditsky, 1992; the growth: TensorFlow's `ExponentialMovingAverage`). Batch norm's statistics
    are averaged as the weights are.

    As a part of the training task it is in every checkpoint.

    Args:
        network: that is trained.
        decay: close below 1, e.g. 0.9999.
    """

    def __init__(self, network: SegmentationNetwork, decay: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: SegmentationNetwork, steps: int) -> None:
        """Take in the weights after a step.

        Args:
            network: whose average this is.
            steps: done so far, this one included.
        """
        rate = 1 - min(self.decay, (1 + steps) / (10 + steps))
        averages, values = [], []
        new = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(new[name])
            else:
                average.copy_(new[name])
        torch._foreach_lerp_(averages, values, rate)

    def train(self, mode: bool = True) -> "WeightAverage":
        """It is evaluated only: in evaluation mode always."""
        return super().train(False)
