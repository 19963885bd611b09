import pytest
import torch
from together import small_network

from pipeline.training.averaging import WeightAverage


def test_the_average_follows_its_formula() -> None:
    network = small_network(2)
    average = WeightAverage(network, 0.3)
    wanted = 0.0  # where biases start
    bias = network.state_dict()["head.classifier.bias"]
    for steps in range(1, 5):
        bias.fill_(float(steps))
        average.update(network, steps)
        decay = min(0.3, (1 + steps) / (10 + steps))
        wanted = decay * wanted + (1 - decay) * steps
    found = average.network.state_dict()["head.classifier.bias"]
    assert found.tolist() == pytest.approx([wanted, wanted])


def test_whole_numbers_are_the_networks_own_and_nothing_is_trained() -> None:
    network = small_network(2)
    average = WeightAverage(network, 0.9)
    network.train()(torch.rand(2, 3, 33, 33))
    average.update(network, 1)
    for name, value in average.network.state_dict().items():
        if not value.is_floating_point():
            assert value == 1, name
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
