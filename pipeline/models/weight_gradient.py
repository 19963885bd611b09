"""The gradient of a convolution's weights, where oneDNN computes it slowly.

On a processor with AVX2 and no AVX-512, oneDNN takes four times as long for the weights' gradient
of a 3x3 convolution of large channels-last maps as for the same maps in torch's usual order. Copied
into that order some rows at a time, the maps stay in the cache, and the copies cost little.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.processor import learns_without_avx_512

#: Pixels a side of the result below which the maps are in the cache anyway.
LARGE = 64
#: Channels below which a copy costs more than it saves.
MANY = 16
#: Bytes of a map's rows that are copied at a time.
STRIP = 4 << 20


def learns_slowly(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether oneDNN's gradient of a convolution's weights is slow here.

    Args:
        x: its input, N x C x H x W.
        weight: O x C x k x k: all channels together.
        stride: of the result.
    """
    return (
        learns_without_avx_512(x)
        and weight.requires_grad
        and weight.shape[-1] > 1
        and weight.shape[1] >= MANY
        and min(x.shape[-2:]) >= LARGE * stride
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    rate: int = 1,
) -> Tensor:
    """`F.conv2d`; where its weights learn slowly, their gradient is taken in strips of rows.

    Args:
        x: N x C x H x W.
        weight: O x C x k x k.
        bias: O.
        stride: of the result.
        padding: zeros around the input.
        rate: pixels between the taps.
    """
    if learns_slowly(x, weight, stride):
        result: Tensor = _InStrips.apply(x, weight, bias, stride, padding, rate)
        return result
    return F.conv2d(x, weight, bias, stride, padding, rate)


class _InStrips(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: int,
        rate: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.rate = stride, padding, rate
        return F.conv2d(x, weight, bias, stride, padding, rate)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            pad = (ctx.padding, ctx.padding)
            of_x, _ = gradients(outer, x, weight, ctx.stride, pad, ctx.rate, asked=(True, False))
        if ctx.needs_input_grad[1]:
            of_weight = of_weights(outer, x, weight, ctx.stride, ctx.padding, ctx.rate)
        if ctx.needs_input_grad[2]:
            of_bias = outer.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


def of_weights(
    outer: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, rate: int
) -> Tensor:
    """The gradient, O x C x k x k, in strips of rows.

    Args:
        outer: the result's gradient, N x O x h x w.
        x: N x C x H x W.
        weight: O x C x k x k.
        stride: of the result.
        padding: zeros around the input.
        rate: pixels between the taps.
    """
    height, reach = x.shape[2], rate * (weight.shape[2] - 1)
    rows = max(1, STRIP // max(stride * x[0, :, 0].nbytes, outer[0, :, 0].nbytes))
    usual = weight.detach().contiguous()
    total = torch.zeros_like(usual)
    for image, gradient in zip(x.split(1), outer.split(1), strict=True):
        for first, strip in enumerate(gradient.split(rows, dim=2)):
            # The input's rows that bear on these, and zeros for those outside the map.
            top = stride * first * rows - padding
            bottom = top + stride * (strip.shape[2] - 1) + reach + 1
            seen = image[:, :, max(top, 0) : min(bottom, height)]
            seen = F.pad(seen, (0, 0, max(-top, 0), max(bottom - height, 0)))
            maps, change = seen.contiguous(), strip.contiguous()
            pad = (0, padding)
            _, part = gradients(change, maps, usual, stride, pad, rate, asked=(False, True))
            total += cast(Tensor, part)
    return total


def gradients(
    outer: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    rate: int,
    *,
    asked: tuple[bool, bool],
    groups: int = 1,
) -> tuple[Tensor | None, Tensor | None]:
    """Those of a convolution by torch's own way, with respect to its input and its weights.

    Args:
        outer: the result's gradient, N x O x h x w.
        x: N x C x H x W.
        weight: O x C / groups x k x k.
        stride: of the result.
        padding: zeros above and below, left and right of the input.
        rate: pixels between the taps.
        asked: which of the two are computed; another is None.
        groups: of channels.
    """
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        outer,
        x,
        weight,
        bias_sizes=None,
        stride=[stride, stride],
        padding=padding,
        dilation=[rate, rate],
        transposed=False,
        output_padding=[0, 0],
        groups=groups,
        output_mask=[*asked, False],
    )
    return of_x, of_weight
