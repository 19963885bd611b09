"""What training minimises: the cross-entropy of every output of a network, over a global batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config import TrainConfig
from pipeline.datasets.transforms import VOID
from pipeline.models.network import Outputs, SegmentationNetwork
from pipeline.training.hard_pixels import hardest
from pipeline.training.processes import process_count, sum_over_processes
from pipeline.training.upsampled import upsampled_cross_entropy, upsampled_losses


class SegmentationLoss(nn.Module):
    """The mean cross-entropy over the pixels of a global batch that are not void.

    A global batch is what all processes see before the weights change, part after part. Each part's
    loss is its sum over that mean's divisor, times the number of processes: added up over the parts
    and averaged over the processes, as their gradients are, it is the mean over the global batch,
    however the pixels lie on parts and processes.

    Args:
        config: `upsample_logits` says whether scores and labels meet at the labels' size (v3,
            Table 8) or at the scores' (v1, section 3.1; v2, section 4); `ohem` the share of the
            pixels that count; `auxiliary_weight`.
        class_weights: of each class; the mean is then a weighted one. None: all 1.
    """

    class_weights: Tensor | None

    def __init__(self, config: TrainConfig, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.upsample = config.upsample_logits
        self.auxiliary_weight = config.auxiliary_weight
        self.ohem = config.ohem
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self,
        network: SegmentationNetwork,
        outputs: Outputs,
        labels: Tensor,
        batch: "GlobalBatch | None" = None,
    ) -> Tensor:
        """The loss of the scores, and of what else the network gives in training.

        With several scales, each one's own joins the fused one's with the same weight (v2, section
        4.1.2, released settings); an auxiliary classifier's joins with `train.auxiliary_weight`.

        Args:
            network: whose upsampling is meant.
            outputs: of a part of a batch.
            labels: of that part, int64 B x H x W, void 255.
            batch: what the part belongs to; None: it is all that this process sees.
        """
        whole = batch or GlobalBatch(labels, self)
        total = self._of(outputs.scores, network, labels, whole)
        for scores in outputs.at_scales:
            total = total + self._of(scores, network, labels, whole)
        if outputs.auxiliary is not None:
            auxiliary = self._of(outputs.auxiliary, network, labels, whole)
            total = total + self.auxiliary_weight * auxiliary
        return total

    def labels_at(self, labels: Tensor, size: torch.Size) -> Tensor:
        """The labels that scores of this height and width are compared with."""
        return labels if self.upsample else subsample(labels, size)

    def weights_of(self, labels: Tensor) -> Tensor:
        """How much each pixel counts: its class's weight, or 1; void 0."""
        counts = labels != VOID
        if self.class_weights is None:
            return counts.float()
        return self.class_weights[torch.where(counts, labels, 0)] * counts

    def _of(
        self, scores: Tensor, network: SegmentationNetwork, labels: Tensor, batch: "GlobalBatch"
    ) -> Tensor:
        size = scores.shape[-2:]
        labels = self.labels_at(labels, size)
        weights = self.weights_of(labels)
        classes = torch.where(labels == VOID, 0, labels)
        # Floats from here on: in half precision the upsampling would lose digits.
        scores, align = scores.float(), network.align_corners
        if self.ohem < 1:
            with torch.no_grad():
                if self.upsample:
                    losses = upsampled_losses(scores, classes, align_corners=align)
                else:
                    losses = F.cross_entropy(scores, classes, reduction="none")
                weights = weights * hardest(losses * weights, labels != VOID, self.ohem)
        if self.upsample:
            total = upsampled_cross_entropy(scores, classes, weights, align_corners=align)
        else:
            total = (F.cross_entropy(scores, classes, reduction="none") * weights).sum()
        return total * process_count() / (self.ohem * batch.weight_at(size))


class GlobalBatch:
    """What all processes see before the weights change: how much its pixels weigh together.

    Args:
        labels: of this process, all parts, int64 B x H x W.
        loss: that asks.
    """

    def __init__(self, labels: Tensor, loss: SegmentationLoss) -> None:
        self.labels = labels
        self.loss = loss
        self._weights: dict[torch.Size, Tensor] = {}

    def weight_at(self, size: torch.Size) -> Tensor:
        """The sum over the global batch where scores of this size are compared; 1 if it is 0."""
        labels = self.loss.labels_at(self.labels, size)
        if labels.shape not in self._weights:
            weight = sum_over_processes(self.loss.weights_of(labels).sum())
            self._weights[labels.shape] = torch.where(weight > 0, weight, 1.0)
        return self._weights[labels.shape]


def subsample(labels: Tensor, size: torch.Size) -> Tensor:
    """The label nearest to the centre of each score: B x H x W to B x h x w.

    Corners lie on corners: with k * output_stride + 1 pixels, it is the very pixel that the
    score's convolution was centred on.

    Args:
        labels: B x H x W.
        size: h and w.
    """
    (height, width), (rows, columns) = labels.shape[-2:], size
    of_rows = _nearest(height, rows, labels.device)
    return labels[:, of_rows[:, None], _nearest(width, columns, labels.device)]


def _nearest(side: int, count: int, device: torch.device) -> Tensor:
    """The pixels, of `side`, that are nearest to `count` points from the first to the last."""
    steps = torch.arange(count, device=device)
    return (steps * (side - 1) / max(count - 1, 1)).round().long()
