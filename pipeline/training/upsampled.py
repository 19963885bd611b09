"""The cross-entropy of bilinearly upsampled scores, without ever holding all of them.

The scores of every class at every pixel of a training batch are the largest thing in its memory:
upsampling, log-softmax and their gradients hold them four times over. Here rows of the labels are
taken a few at a time: the scores are upsampled to these rows, the loss is added up and its gradient
is brought back to the scores' own size at once. Bilinear interpolation is a matrix product for each
axis, and few of the scores' rows bear on a few of the labels' rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Bytes of upsampled scores that are there at a time: what a processor's cache holds; on an
#: accelerator, enough to keep it busy.
CHUNK = {"cpu": 2 << 20}
CHUNK_ELSEWHERE = 64 << 20


@torch.compiler.disable
def upsampled_cross_entropy(
    scores: Tensor, labels: Tensor, weights: Tensor, *, align_corners: bool
) -> Tensor:
    """The weighted sum over the pixels of -log softmax of the upsampled scores.

    As `F.interpolate` and `F.cross_entropy` give it, within rounding. It can be differentiated
    once, with respect to the scores. `torch.compile` leaves it as it is.

    Args:
        scores: float32 or float64, B x C x h x w.
        labels: int64 B x H x W, all of them classes; where the weight is 0, any.
        weights: of the scores' type, B x H x W.
        align_corners: of the upsampling.
    """
    total: Tensor = _UpsampledCrossEntropy.apply(scores, labels, weights, align_corners)
    return total


@torch.compiler.disable
@torch.no_grad()
def upsampled_losses(scores: Tensor, labels: Tensor, *, align_corners: bool) -> Tensor:
    """-log softmax of the upsampled scores at each pixel, B x H x W, without a gradient.

    Args:
        scores: B x C x h x w.
        labels: int64 B x H x W, all of them classes.
        align_corners: of the upsampling.
    """
    losses = scores.new_empty(labels.shape)
    for rows in _upsampled_rows(scores, labels, align_corners):
        losses[:, rows.first : rows.end] = _exponentials(rows)[1].transpose(0, 1)
    return losses


class _UpsampledCrossEntropy(torch.autograd.Function):
    """The gradient is made with the loss, while a row's softmax is at hand."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, labels: Tensor, weights: Tensor, align_corners: bool
    ) -> Tensor:
        """Add up the loss and, where it is wanted, its gradient."""
        wanted = ctx.needs_input_grad[0]
        batch, classes, height, width = scores.shape
        gradient = scores.new_zeros(height, batch, classes, width) if wanted else None
        total = scores.new_zeros(())
        for rows in _upsampled_rows(scores, labels, align_corners):
            weight = weights[:, rows.first : rows.end].transpose(0, 1)
            sums, losses = _exponentials(rows)
            total += (losses * weight).sum()
            if gradient is not None:
                # The loss's derivative: the softmax, less 1 at the label.
                softmax = rows.scores.mul_((weight / sums)[:, :, None])
                softmax.scatter_add_(2, rows.labels[:, :, None], -weight[:, :, None])
                rows.add_transposed(softmax, gradient)
        if gradient is not None:
            ctx.save_for_backward(gradient.permute(1, 2, 0, 3))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient that was made in `forward`, times the outer one."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None, None


@dataclass
class _Rows:
    """Some rows of the upsampled scores, and the way back to the scores.

    Attributes:
        first: of the rows, in the labels.
        end: one after the last.
        scores: rows x B x C x W.
        labels: rows x B x W.
        source: the first of the scores' rows that bear on these.
        by_row: rows x source rows, the weights of the interpolation.
        by_column: W x w, the same.
    """

    first: int
    end: int
    scores: Tensor
    labels: Tensor
    source: int
    by_row: Tensor
    by_column: Tensor

    def add_transposed(self, values: Tensor, total: Tensor) -> None:
        """Add rows x B x C x W values, weighed as in the interpolation, to h x B x C x w."""
        count, (width, narrow) = self.by_row.shape[1], self.by_column.shape
        place = total[self.source : self.source + count].view(-1, narrow)
        with _in_full_precision(values):
            columns = (self.by_row.T @ values.flatten(1)).view(-1, width)
            place.addmm_(columns, self.by_column)


def _upsampled_rows(scores: Tensor, labels: Tensor, align_corners: bool) -> Iterator[_Rows]:
    """The upsampled scores, some rows at a time; what is done to them in place is nobody's."""
    batch, classes, height, width = scores.shape
    by_row, first_source = _interpolation(labels.shape[-2], height, scores, align_corners)
    by_column, _ = _interpolation(labels.shape[-1], width, scores, align_corners)
    # Rows outermost: the rows that are asked for lie together, so each axis is one large product.
    source = scores.detach().permute(2, 0, 1, 3).contiguous()
    bytes_of_a_row = batch * classes * labels.shape[-1] * scores.element_size()
    step = max(1, CHUNK.get(scores.device.type, CHUNK_ELSEWHERE) // bytes_of_a_row)
    for first in range(0, labels.shape[-2], step):
        end = min(first + step, labels.shape[-2])
        low, high = first_source[first], min(first_source[end - 1] + 2, height)
        weights = by_row[first:end, low:high]
        with _in_full_precision(scores):
            columns = source[low:high].view(-1, width) @ by_column.T
            rows = weights @ columns.view(high - low, -1)
        yield _Rows(
            first,
            end,
            rows.view(end - first, batch, classes, -1),
            labels[:, first:end].transpose(0, 1),
            low,
            weights,
            by_column,
        )


def _exponentials(rows: _Rows) -> tuple[Tensor, Tensor]:
    """Turn the scores into exponentials in place; their sums and the losses, rows x B x W each."""
    scores = rows.scores
    scores.sub_(scores.amax(2, keepdim=True))
    at_label = scores.gather(2, rows.labels[:, :, None])[:, :, 0]
    sums = scores.exp_().sum(2)
    return sums, sums.log() - at_label


def _interpolation(
    to: int, side: int, like: Tensor, align_corners: bool
) -> tuple[Tensor, list[int]]:
    """One axis of the bilinear upsampling from `side` to `to` pixels.

    Returns:
        `to` x `side` weights, of the type and on the device of `like`; and of each row the place of
        its first weight, after which at most one other follows.
    """
    points = torch.eye(side, dtype=like.dtype)[None, :, :, None]
    weights = F.interpolate(points, (to, 1), mode="bilinear", align_corners=align_corners)
    matrix = weights[0, :, :, 0].T.contiguous()
    return matrix.to(like.device), matrix.ne(0).int().argmax(1).tolist()


def _in_full_precision(like: Tensor) -> torch.autocast:
    """No autocast: matrix products in half precision would lose the scores' digits."""
    return torch.autocast(like.device.type, enabled=False)
