"""A convolution of upsampled maps, computed before they are upsampled.

Convolution and bilinear upsampling are both linear, so their order is free. A tap's product with
the channels costs the square of the factor less on the coarse map; what is left for the fine map is
one small matrix for the rows and one for the columns, each of which upsamples and shifts at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def convolve_upsampled(
    maps: Tensor, weight: Tensor, fine: Tensor, *, align_corners: bool
) -> Tensor:
    """The convolution of bilinearly upsampled maps, added to what other channels gave.

    As `fine + F.conv2d(F.interpolate(maps), weight, padding=k // 2)` gives it, within rounding.

    Args:
        maps: N x C x h x w.
        weight: O x C x k x k, k odd.
        fine: N x O x H x W.
        align_corners: of the upsampling.

    Returns:
        N x O x H x W.
    """
    number, channels, height, width = maps.shape
    out, _, kernel, _ = weight.shape
    rows, columns = fine.shape[-2:]
    by_row = _upsampled_and_shifted(rows, height, kernel, align_corners, maps)
    by_column = _upsampled_and_shifted(columns, width, kernel, align_corners, maps)
    # A row of the kernel at a time: N x h x (w, tap, O), the pixels' own order in memory.
    stretched = torch.zeros((), dtype=maps.dtype, device=maps.device)
    for row, of_row in enumerate(by_row):
        taps = weight[:, :, row].permute(2, 0, 1).reshape(kernel * out, channels, 1, 1)
        products = F.conv2d(maps, taps).permute(0, 2, 3, 1).reshape(number, height, -1)
        spread = of_row.expand(number, -1, -1)
        stretched = torch.baddbmm(stretched, spread, products, beta=1 if row else 0)
    # Then the columns: N x H x W x O, all taps of a row of the kernel in one product.
    spread = by_column.permute(1, 2, 0).reshape(1, columns, width * kernel)
    result = torch.baddbmm(
        fine.permute(0, 2, 3, 1).reshape(number * rows, columns, out),
        spread.expand(number * rows, -1, -1),
        stretched.view(number * rows, width * kernel, out),
    )
    return result.view(number, rows, columns, out).permute(0, 3, 1, 2)


def pays(maps: Tensor, weight: Tensor, size: Sequence[int]) -> bool:
    """Whether `convolve_upsampled` takes at most half the multiply-adds of the usual order.

    It does for every factor of 2 and more; large maps that are hardly upsampled are left alone.

    Args:
        maps: N x C x h x w.
        weight: O x C x k x k.
        size: H and W.
    """
    channels, height, width = maps.shape[1:]
    kernel, (rows, columns) = weight.shape[-1], size
    usual = rows * columns * channels * kernel**2
    coarse = height * width * channels * kernel**2
    spread = rows * height * width * kernel**2 + rows * columns * width * kernel
    return 2 * (coarse + spread) <= usual


def _upsampled_and_shifted(
    to: int, side: int, kernel: int, align_corners: bool, like: Tensor
) -> Tensor:
    """One axis of the upsampling from `side` to `to` pixels, seen by each tap: k x to x side."""
    points = torch.eye(side, dtype=torch.promote_types(like.dtype, torch.float32))
    points = points[None, :, :, None].to(like.device)
    fine = F.interpolate(points, (to, 1), mode="bilinear", align_corners=align_corners)
    # The convolution pads the fine map with zeros.
    reach = kernel // 2
    padded = F.pad(fine[0, :, :, 0].T, (0, 0, reach, reach))
    return torch.stack([padded[tap : tap + to] for tap in range(kernel)]).to(like.dtype)
