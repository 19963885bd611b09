"""What training minimises: the cross-entropy of every output of a network."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config import TrainConfig
from pipeline.datasets.transforms import VOID
from pipeline.models.network import Outputs, SegmentationNetwork


def total_loss(
    network: SegmentationNetwork, outputs: Outputs, labels: Tensor, config: TrainConfig
) -> Tensor:
    """The cross-entropy of the scores, and of what else the network gives in training.

    With several scales, each one's own joins the fused one's with the same weight (v2, section
    4.1.2, released settings); an auxiliary classifier's joins with `train.auxiliary_weight`.

    Args:
        network: whose upsampling is meant.
        outputs: of a training batch.
        labels: int64 B x H x W, void 255.
        config: `upsample_logits` says whether scores and labels meet at the labels' size (v3,
            Table 8) or at the scores' (v1, section 3.1; v2, section 4).
    """

    def loss(scores: Tensor) -> Tensor:
        if not config.upsample_logits:
            return cross_entropy(scores, subsample(labels, scores))
        # Floats from here on: in half precision the upsampling would lose digits.
        return cross_entropy(network.upsample(scores.float(), labels), labels)

    total = loss(outputs.scores)
    for scores in outputs.at_scales:
        total = total + loss(scores)
    if outputs.auxiliary is not None:
        total = total + config.auxiliary_weight * loss(outputs.auxiliary)
    return total


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over the valid pixels; 0 where all are void.

    Args:
        scores: B x C x H x W.
        labels: int64 B x H x W, void 255.
    """
    total = F.cross_entropy(scores.float(), labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)


def subsample(labels: Tensor, like: Tensor) -> Tensor:
    """The label nearest to the centre of each score: B x H x W to B x h x w.

    Corners lie on corners: with k * output_stride + 1 pixels, it is the very pixel that the
    score's convolution was centred on.

    Args:
        labels: B x H x W.
        like: ... x h x w.
    """
    (height, width), (rows, columns) = labels.shape[-2:], like.shape[-2:]
    of_rows = _nearest(height, rows, labels.device)
    return labels[:, of_rows[:, None], _nearest(width, columns, labels.device)]


def _nearest(side: int, count: int, device: torch.device) -> Tensor:
    """The pixels, of `side`, that are nearest to `count` points from the first to the last."""
    steps = torch.arange(count, device=device)
    return (steps * (side - 1) / max(count - 1, 1)).round().long()
