"""Depthwise convolutions whose gradient a processor computes right, and fast.

oneDNN, as torch 2.15 calls it, is fast and right for depthwise convolutions with neighbouring taps
and stride 1. In bfloat16 it takes up to ten times as long for atrous and strided ones, and what it
gives as the gradient of an atrous one's weights is wrong for batches of two or more images. Atrous
ones can be had from the fast one; for strided ones, float32 is fast. On a processor without AVX-512
the gradients of atrous ones are slow in float32 too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.processor import learns_without_avx_512
from pipeline.models.weight_gradient import gradients

#: Up to which oneDNN's atrous convolution itself, without its gradients, is fast in float32.
SMALL_RATE = 4
#: Pixels a side from which its gradients are worth another way, which pads the maps.
LARGE = 32


def learns_in_its_own_way(x: Tensor, stride: int, rate: int) -> bool:
    """Whether a depthwise convolution of this input learns faster, or right, by `depthwise`."""
    if stride == rate == 1:
        return False
    slowly = stride == 1 and learns_without_avx_512(x) and min(x.shape[-2:]) >= LARGE
    return slowly or learns_in_half_precision(x)


def learns_in_half_precision(x: Tensor) -> bool:
    """Whether a convolution of this input learns on a processor in half precision."""
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return False
    autocast = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    return kind in (torch.bfloat16, torch.float16)


def learns_wrong_on_a_processor(layer: nn.Module) -> bool:
    """Whether torch's own way is taken in half precision where its gradient is wrong."""
    return (
        type(layer) is nn.Conv2d
        and layer.groups == layer.in_channels > 1
        and max(layer.dilation) > 1
        and layer.weight.requires_grad
    )


def depthwise(x: Tensor, weight: Tensor, stride: int, rate: int) -> Tensor:
    """A depthwise convolution: with a stride in full precision, else from ordinary ones.

    Args:
        x: N x C x H x W.
        weight: C x 1 x k x k, k odd.
        stride: of the result.
        rate: pixels between the taps.

    Returns:
        N x C x ceil(H / stride) x ceil(W / stride).
    """
    autocast = torch.is_autocast_enabled("cpu")
    kind = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    if stride > 1:
        result: Tensor = _InFullPrecision.apply(x.to(kind), weight, stride, rate)
    elif kind == torch.float32:
        result = _AtrousInBackward.apply(x, weight, rate)
    else:
        result = atrous_depthwise(x, weight, rate)
    return result


class _InFullPrecision(torch.autograd.Function):
    """A depthwise convolution of float32 copies, none of which outlives it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.rate = stride, rate
        pad = rate * (weight.shape[-1] // 2)
        with torch.autocast("cpu", enabled=False):
            out = F.conv2d(_full(x), _full(weight), None, stride, pad, rate, x.shape[1])
        return out.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        pad = ctx.rate * (weight.shape[-1] // 2)
        of_x, of_weight = gradients(
            _full(outer),
            _full(x),
            _full(weight),
            ctx.stride,
            (pad, pad),
            ctx.rate,
            asked=ctx.needs_input_grad[:2],
            groups=x.shape[1],
        )
        of_x = None if of_x is None else of_x.to(x.dtype)
        return of_x, None if of_weight is None else of_weight.to(weight.dtype), None, None


class _AtrousInBackward(torch.autograd.Function):
    """An atrous depthwise convolution whose gradients are those of `atrous_depthwise`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rate = rate
        if rate > SMALL_RATE:
            return atrous_depthwise(x, weight, rate)
        pad = rate * (weight.shape[-1] // 2)
        return F.conv2d(x, weight, None, 1, pad, rate, x.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        asked = ctx.needs_input_grad[:2]
        with torch.enable_grad():
            # Made anew, for the images that it makes would stay in memory until here.
            x, weight = (
                one.detach().requires_grad_(its)
                for one, its in zip(ctx.saved_tensors, asked, strict=True)
            )
            result = atrous_depthwise(x, weight, ctx.rate)
            learning = [one for one in (x, weight) if one.requires_grad]
            found = iter(torch.autograd.grad(result, learning, outer))
        return *(next(found) if its else None for its in asked), None


def _full(values: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def atrous_depthwise(x: Tensor, weight: Tensor, rate: int) -> Tensor:
    """An atrous depthwise convolution as ordinary ones: every rate-th pixel makes an image.

    Source: v2, section 3.1, the second implementation ("subsample the input feature maps by a
    factor equal to the atrous convolution rate").

    Args:
        x: N x C x H x W.
        weight: C x 1 x k x k.
        rate: pixels between the taps.

    Returns:
        N x C x H x W.
    """
    number, channels, height, width = x.shape
    pad = rate * (weight.shape[-1] - 1) // 2
    rows, columns = (-(-(side + 2 * pad) // rate) for side in (height, width))
    padded = F.pad(x, (pad, columns * rate - width - pad, pad, rows * rate - height - pad))
    parted = padded.permute(0, 2, 3, 1).reshape(number, rows, rate, columns, rate, channels)
    images = parted.permute(2, 4, 0, 1, 3, 5).reshape(-1, rows, columns, channels)
    out = F.conv2d(images.permute(0, 3, 1, 2), weight, groups=channels)
    rows, columns = out.shape[-2:]
    parted = out.permute(0, 2, 3, 1).reshape(rate, rate, number, rows, columns, channels)
    joined = parted.permute(2, 3, 0, 4, 1, 5).reshape(number, rows * rate, columns * rate, channels)
    cut = joined.permute(0, 3, 1, 2)[..., :height, :width]
    # Batch norm is slow on maps that have gaps in memory.
    return cut.contiguous(memory_format=torch.channels_last)
