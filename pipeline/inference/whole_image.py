"""The network on a whole image of any size: padding, several scales, mirroring.

v3 (arXiv 1706.05587), section 4: the softmax is averaged over scales and left-right flips.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.models.sizes import aligned_side, scaled_side

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Network(Protocol):
    """What this module asks of a network: images N x 3 x H x W in [0, 1] -> N x C x H x W scores.

    `input_mean` is the mean pixel, 1 x 3 x 1 x 1, which is zero for the network.
    """

    input_mean: Tensor
    output_stride: int

    def __call__(self, images: Tensor, /) -> Tensor:
        """Class scores, unnormalised, of the images' size."""


def probabilities(
    network: Network,
    image: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    pad_to: int | None = None,
) -> Tensor:
    """The softmax of one image at its own size, averaged over scales and flips.

    Args:
        network: in evaluation mode.
        image: 3 x H x W, RGB in [0, 1], on the network's device.
        scales: how many times the image's size; a side d becomes int((d - 1) * scale + 1).
        flip: run each scale mirrored as well.
        pad_to: pad to at least this side (it is scaled along with the image); None: only to the
            next k * output_stride + 1.

    Returns:
        C x H x W, float32, on the network's device.
    """
    return _average(network, image, scales, flip, pad_to, upright=None)


def single_and_multi_scale(
    network: Network,
    image: Tensor,
    scales: Sequence[float],
    flip: bool,
    pad_to: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`probabilities` at scale 1 alone, and over scales and flips; scale 1 is run once for both.

    Returns:
        Two C x H x W, as `probabilities` gives them.
    """
    single = probabilities(network, image, pad_to=pad_to)
    multi = _average(network, image, scales, flip, pad_to, upright=single)
    return single, multi


@torch.inference_mode()
def _average(
    network: Network,
    image: Tensor,
    scales: Sequence[float],
    flip: bool,
    pad_to: int | None,
    upright: Tensor | None,
) -> Tensor:
    """The mean over scales and flips; `upright` is scale 1 unflipped, if it is there already."""
    mirrored = image.flip(-1)
    total: Tensor | None = None
    for scale in scales:
        if upright is not None and scale == 1.0:
            one = upright
        else:
            one = _at_scale(network, image, scale, pad_to)
        if flip:
            # The two are added before they join the total: then a mirrored image gives exactly
            # the mirrored result, whatever the order of the additions.
            one = one + _at_scale(network, mirrored, scale, pad_to).flip(-1)
        total = one if total is None else total + one
    if total is None:
        raise ValueError("scales is empty")
    return total / (len(scales) * (2 if flip else 1))


def _at_scale(network: Network, image: Tensor, scale: float, pad_to: int | None) -> Tensor:
    """The softmax C x H x W of one pass at one scale, at the image's own size."""
    size = (image.shape[-2], image.shape[-1])
    scaled = tuple(scaled_side(side, scale) for side in size)
    batch = _resize(image[None], scaled)
    least = 0 if pad_to is None else scaled_side(pad_to, scale)
    padded = pad(batch, network.input_mean, network.output_stride, least)
    logits = network(padded.contiguous(memory_format=torch.channels_last))
    logits = logits[..., : scaled[0], : scaled[1]].float()
    return _resize(logits, size).softmax(dim=1)[0]


def _resize(batch: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(batch.shape[-2:]) == tuple(size):
        return batch
    return F.interpolate(batch, size=list(size), mode="bilinear", align_corners=True)


def pad(batch: Tensor, mean: Tensor, output_stride: int, least: int = 0) -> Tensor:
    """Pad at the bottom and right with the mean pixel, to the next k * output_stride + 1.

    On such sides the corners of the feature map lie on the corners of the image, and the grids
    of different output strides coincide (v2, section 3.1). The mean pixel is zero for the network.

    Args:
        batch: N x 3 x H x W.
        mean: 1 x 3 x 1 x 1.
        output_stride: the network's.
        least: the least side, before it is rounded up.
    """
    height, width = batch.shape[-2:]
    to_height = aligned_side(max(height, least), output_stride)
    to_width = aligned_side(max(width, least), output_stride)
    if (to_height, to_width) == (height, width):
        return batch
    padded = mean.to(batch).expand(batch.shape[0], -1, to_height, to_width).clone()
    padded[..., :height, :width] = batch
    return padded


def on_device(network: AnyModule, accelerator: str) -> tuple[AnyModule, torch.device]:
    """The network in evaluation mode where `trainer.accelerator` says, laid out channels last.

    Args:
        network: moved in place.
        accelerator: auto, cpu, gpu or mps.

    Raises:
        UserError: the accelerator is not there.
    """
    device = find_device(accelerator)
    return network.eval().to(device).to(memory_format=torch.channels_last), device


def find_device(accelerator: str) -> torch.device:
    """The device that `trainer.accelerator` names; auto: the first of gpu, mps, cpu.

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
    return torch.device("cuda" if accelerator == "gpu" else accelerator)
