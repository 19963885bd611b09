"""What inference asks of a network, and where it runs."""

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.for_inference import for_inference

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Network(Protocol):
    """Class scores of images before upsampling."""

    #: The mean pixel, 1 x 3 x 1 x 1, which is zero for the network.
    input_mean: Tensor
    output_stride: int
    #: Of the upsampling.
    align_corners: bool

    def scores(self, images: Tensor, /) -> Tensor:
        """Images N x 3 x H x W in [0, 1] to scores N x C x h x w, unnormalised."""


def on_device(
    network: AnyModule, accelerator: str, index: int = 0, precision: str = "32"
) -> tuple[AnyModule, torch.device]:
    """A copy of the network where `trainer.accelerator` says: see `for_inference`.

    Args:
        network: on the processor.
        accelerator: auto, cpu, gpu or mps.
        index: which of several devices of that kind.
        precision: 32 or bf16, in which alone the copy is run.

    Raises:
        UserError: the accelerator is not there.
    """
    device = find_device(accelerator, index)
    return for_inference(network, precision).to(device).to(
        memory_format=torch.channels_last
    ), device


def find_device(accelerator: str, index: int = 0) -> torch.device:
    """The device that `trainer.accelerator` names; auto: the first of gpu, mps, cpu.

    Args:
        accelerator: auto, cpu, gpu or mps.
        index: which of several GPUs.

    Raises:
        UserError: the accelerator is not there.
    """
    there = {
        "gpu": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        accelerator = next(name for name, available in there.items() if available)
    if not there.get(accelerator, False):
        raise UserError(f"trainer.accelerator={accelerator}: not available here; take auto or cpu")
    if accelerator != "gpu":
        return torch.device(accelerator)
    if index >= torch.cuda.device_count():
        raise UserError(
            f"trainer.devices={index + 1}: {torch.cuda.device_count()} GPUs are here; take as many"
        )
    return torch.device("cuda", index)
