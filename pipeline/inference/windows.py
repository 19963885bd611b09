"""A large image in overlapping tiles, whose scores are averaged on the network's own grid.

v2 (arXiv 1606.00915), section 4.4: on Cityscapes the network saw images in overlapping tiles, for
they did not fit into the GPU's memory.
"""

from itertools import product

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.inference.network import Network
from pipeline.models.sizes import aligned_side


def scores_of_tiles(network: Network, batch: Tensor, window: int, overlap: float) -> Tensor:
    """The scores of images that are seen in tiles; one that fits into a tile is seen as a whole.

    Tiles begin at multiples of the output stride. So their scores lie on the grid of the whole
    image's, and where tiles overlap, the mean of their scores is taken position by position.

    Args:
        network: in evaluation mode.
        batch: N x 3 x H x W, H and W k * output_stride + 1.
        window: side of a tile, rounded up to k * output_stride + 1.
        overlap: share of a side that neighbours have in common, at least.

    Returns:
        N x C x h x w.

    Raises:
        UserError: the scores of a tile do not lie on the grid of the image's.
    """
    stride = network.output_stride
    side = aligned_side(window, stride)
    sizes = [min(side, whole) for whole in batch.shape[-2:]]
    starts = [tile_starts(whole, side, stride, overlap) for whole in batch.shape[-2:]]
    if all(len(along) == 1 for along in starts):
        return network.scores(batch)
    total = counts = None
    cell = 1
    for top, left in product(*starts):
        tile = batch[..., top : top + sizes[0], left : left + sizes[1]]
        scores = network.scores(tile.contiguous(memory_format=torch.channels_last)).float()
        if total is None or counts is None:
            cell = _cell(network, sizes, scores)
            grid = [(whole - 1) // cell + 1 for whole in batch.shape[-2:]]
            total = scores.new_zeros(*scores.shape[:2], *grid)
            counts = scores.new_zeros(grid)
        rows, columns = (
            slice(start // cell, start // cell + count)
            for start, count in zip((top, left), scores.shape[-2:], strict=True)
        )
        total[..., rows, columns] += scores
        counts[rows, columns] += 1
    if total is None or counts is None:
        raise ValueError("no tiles")
    return total / counts


def tile_starts(whole: int, side: int, stride: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis: multiples of the stride, the last as far as it can be.

    Args:
        whole: pixels of the axis, k * stride + 1.
        side: of a tile, k * stride + 1.
        stride: the network's output stride.
        overlap: share of a side that neighbours have in common, at least.
    """
    if whole <= side:
        return [0]
    step = max(stride, int((1 - overlap) * side) // stride * stride)
    return [*range(0, whole - side, step), whole - side]


def _cell(network: Network, sizes: list[int], scores: Tensor) -> int:
    """Pixels from one position of the scores to the next."""
    axis = 0 if sizes[0] > 1 else 1
    cell = (sizes[axis] - 1) // max(scores.shape[-2:][axis] - 1, 1)
    fits = network.align_corners and cell and network.output_stride % cell == 0
    if not fits or [(size - 1) // cell + 1 for size in sizes] != list(scores.shape[-2:]):
        raise UserError(
            "evaluate.window: this network's scores do not lie on a grid that tiles share (it "
            "takes model.align_corners=true); take null"
        )
    return cell
