"""The network on whole images of any size: padding, several scales, mirroring, tiles."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import EvaluateConfig
from pipeline.inference.network import Network
from pipeline.inference.passes import Geometry, Pass, Size, fuse, passes_of
from pipeline.inference.windows import scores_of_tiles

#: One pass over the image as it is: how training validates.
SINGLE = EvaluateConfig(scales=[1.0], flip=False)


@torch.inference_mode()
def probabilities(network: Network, image: Tensor, evaluate: EvaluateConfig = SINGLE) -> Tensor:
    """The softmax of one image at its own size, over scales and flips.

    Args:
        network: in evaluation mode.
        image: 3 x H x W, RGB in [0, 1], on the network's device.
        evaluate: scales, flip, fusion, padding, window, precision.

    Returns:
        C x H x W, float32, on the network's device.
    """
    geometry = geometry_of(network, evaluate)
    size = (image.shape[-2], image.shape[-1])
    passes = passes_of(evaluate, ["ms_flip"])
    scores = {which: maps[0] for which, maps in run_passes(network, [image], evaluate, passes)}

    def upsampled(which: Pass) -> Tensor:
        return geometry.upsample(scores[which], size, which.scale)

    # A training in bf16 validates here: its autocast would round the upsampling as well.
    with torch.autocast(image.device.type, enabled=False):
        return fuse(upsampled, evaluate, ["ms_flip"])["ms_flip"]


def geometry_of(network: Network, evaluate: EvaluateConfig) -> Geometry:
    """How images are shown to a network."""
    return Geometry(network.output_stride, evaluate.pad_to, network.align_corners)


@torch.inference_mode()
def run_passes(
    network: Network,
    images: Sequence[Tensor],
    evaluate: EvaluateConfig,
    passes: Sequence[Pass],
) -> Iterator[tuple[Pass, Tensor]]:
    """Run the network on a batch of images, pass after pass.

    Args:
        network: in evaluation mode.
        images: each 3 x H x W, RGB in [0, 1], on the network's device; of unlike sizes, if they
            are padded to the same one at each scale.
        evaluate: padding, window, precision.
        passes: scales, mirrored or not.

    Yields:
        A pass and its scores, N x C x h x w, float32.
    """
    geometry = geometry_of(network, evaluate)
    for which in passes:
        batch = torch.cat([_shown(image, which, network, geometry) for image in images])
        batch = batch.contiguous(memory_format=torch.channels_last)
        with arithmetic(evaluate.precision, batch.device):
            if evaluate.window is None:
                scores = network.scores(batch)
            else:
                scores = scores_of_tiles(network, batch, evaluate.window, evaluate.overlap)
        yield which, scores.float()


def _shown(image: Tensor, which: Pass, network: Network, geometry: Geometry) -> Tensor:
    """The image as the network sees it in a pass, 1 x 3 x H x W."""
    size = (image.shape[-2], image.shape[-1])
    batch = image.flip(-1)[None] if which.mirrored else image[None]
    scaled = geometry.scaled(size, which.scale)
    if scaled != size:
        batch = F.interpolate(batch, size=scaled, mode="bilinear", align_corners=True)
    return pad(batch, network.input_mean, geometry.padded(size, which.scale))


def pad(batch: Tensor, mean: Tensor, size: Size) -> Tensor:
    """Pad at the bottom and right with the mean pixel, which is zero for the network.

    On sides of k * output_stride + 1 the corners of the feature map lie on the corners of the
    image, and the grids of different output strides coincide (v2, section 3.1).

    Args:
        batch: N x 3 x H x W.
        mean: 1 x 3 x 1 x 1.
        size: height and width after padding.
    """
    height, width = batch.shape[-2:]
    if (height, width) == size:
        return batch
    padded = mean.to(batch).expand(batch.shape[0], -1, *size).clone()
    padded[..., :height, :width] = batch
    return padded


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The precision in which a network computes inside: 32 leaves it as it is."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
