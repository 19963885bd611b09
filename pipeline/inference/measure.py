"""What a network costs on a device, as an evaluation states it."""

import torch
from torch import nn

from pipeline.evaluation.figures import Cost
from pipeline.inference.whole_image import arithmetic
from pipeline.networks.cost import (
    count_parameters,
    milliseconds_per_image,
    multiply_adds,
    peak_memory,
)


def measure(
    network: nn.Module, quick: nn.Module, size: int, device: torch.device, precision: str = "32"
) -> Cost:
    """Parameters, multiply-adds, peak memory and milliseconds of one size x size image.

    Args:
        network: as it was trained, which is counted.
        quick: the same `on_device`, which is timed; nothing else should be running there.
        size: pixels a side.
        device: the device.
        precision: 32 or bf16, of what is timed.
    """
    with arithmetic(precision, device):
        milliseconds = milliseconds_per_image(quick, size, device)
    return Cost(
        params_m=count_parameters(network) / 1e6,
        gmacs=multiply_adds(network, size) / 1e9,
        peak_mib=peak_memory(network, size) / 2**20,
        ms_per_image=milliseconds,
        size=size,
        device=device_name(device) + (", bf16" if precision == "bf16" else ""),
    )


def device_name(device: torch.device) -> str:
    """The device in words, since milliseconds mean nothing without it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"cpu, {threads} thread{'' if threads == 1 else 's'}"
