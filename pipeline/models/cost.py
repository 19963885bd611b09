"""What a network costs: parameters, multiply-adds, milliseconds."""

import copy
import statistics
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """The number of trainable weights, as the papers state it (batch norm's statistics are not)."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds of one 1 x 3 x size x size image through the convolutions.

    The papers' "M-Adds": a convolution's taps on the padding count, batch norm, ReLU and
    upsampling do not. Nothing is computed, so the size may be large.
    """
    shapes_only = copy.deepcopy(model).to("meta").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        shapes_only(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def milliseconds_per_image(
    model: nn.Module, size: int, device: torch.device | str, repeats: int = 10
) -> float:
    """The median time of one 1 x 3 x size x size image, in milliseconds.

    Args:
        model: stays as and where it is; a copy is timed.
        size: pixels a side.
        device: where to run.
        repeats: timed runs, after three that are not.
    """
    device = torch.device(device)
    timed = copy.deepcopy(model).to(device).eval()
    image = torch.rand(1, 3, size, size, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(3 + repeats):
            _wait_for(device)
            start = time.perf_counter()
            timed(image)
            _wait_for(device)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


def _wait_for(device: torch.device) -> None:
    # Accelerators return before they have finished.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
