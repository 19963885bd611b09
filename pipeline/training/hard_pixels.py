"""Online hard example mining: only the pixels with the largest losses are learned from."""

import torch
from torch import Tensor

from pipeline.training.processes import sum_over_processes

#: A float32 is compared in two halves of 16 bits; of numbers from 0 up, the first bit is 0.
HALF = 16


def hardest(losses: Tensor, counts: Tensor, share: float) -> Tensor:
    """Which pixels belong to the `share` of the largest losses, over all processes together.

    Exactly that share is taken: where the last loss is shared by several pixels, each of them
    counts in part. So the choice does not depend on how pixels lie on processes.

    Sources: Shrivastava et al., arXiv 1604.03540; of pixels rather than regions, and by a share of
    them: `top_k_percent_pixels` of the DeepLab authors' TensorFlow code.

    Args:
        losses: float32, 0 or more, any shape.
        counts: bool, the same shape: the pixels that are not void.
        share: of those, above 0 and up to 1.

    Returns:
        float32 of the same shape: 1 for the chosen, 0 for the others.
    """
    # Numbers from 0 up are in the order of their bits; -0 is the one exception.
    bits = losses.float().abs().contiguous().view(torch.int32)
    chosen = bits[counts]
    wanted = share * sum_over_processes(counts.sum()).float()
    high = chosen >> HALF
    limit_high, above = _limit(high, 1 << (HALF - 1), wanted)
    low = chosen[high == limit_high] & ((1 << HALF) - 1)
    limit_low, above_in_it = _limit(low, 1 << HALF, wanted - above)
    limit = (limit_high << HALF) + limit_low
    equal = sum_over_processes((chosen == limit).sum())
    part = (wanted - above - above_in_it) / equal.clamp(min=1)
    return torch.where(bits > limit, 1.0, torch.where(bits == limit, part, 0.0)) * counts


def _limit(values: Tensor, size: int, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The value that the `wanted`-th largest has, and how many lie above it.

    Args:
        values: whole numbers from 0 to below `size`, this process's.
        size: of the range.
        wanted: how many, over all processes.
    """
    histogram = sum_over_processes(torch.bincount(values, minlength=size))
    from_top = histogram.flip(0).cumsum(0)
    place = (from_top < wanted).sum().clamp(max=size - 1)
    return size - 1 - place, from_top[place] - histogram[size - 1 - place]
