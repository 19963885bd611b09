import torch
from torch import nn

from pipeline.inference.measure import device_name, measure


def test_cost_is_stated_in_millions_billions_and_mebibytes_at_its_size() -> None:
    network = nn.Conv2d(3, 10, 3, padding=1, bias=False)
    cost = measure(network, network, 33, torch.device("cpu"))
    assert cost.params_m == 270 / 1e6
    assert cost.gmacs == 33 * 33 * 270 / 1e9
    # Image, weights and result, four bytes a number.
    assert cost.peak_mib == 4 * (3 * 33 * 33 + 270 + 10 * 33 * 33) / 2**20
    assert cost.ms_per_image > 0
    assert cost.size == 33
    assert cost.device == device_name(torch.device("cpu"))


def test_the_processors_threads_are_part_of_its_name() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert device_name(torch.device("cpu")) == "cpu, 1 thread"
        torch.set_num_threads(2)
        assert device_name(torch.device("cpu")) == "cpu, 2 threads"
    finally:
        torch.set_num_threads(before)
