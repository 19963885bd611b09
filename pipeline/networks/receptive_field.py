"""The receptive field of a network: every pixel on which one of its scores depends.

Found by following one column of pixels through the operations that the network really runs, on an
image that has a shape and no values. Heights are as widths: the kernels are square.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from pipeline.networks.field_of_view import Field

Columns = NDArray[np.int64]

#: Sides of the image, 2 ** n + 1: it grows until the field of the scores in its middle lies inside.
SMALLEST, LARGEST = 2**12 + 1, 2**15 + 1
#: The first column of an empty span, after every other, and a tap that there is not.
NOWHERE, NO_TAP = np.int64(2**62), np.int64(-(2**62))

aten = torch.ops.aten
#: Averages over so many pixels that they depend on the image's size: of all, or of some bins.
OF_THE_IMAGE = (
    aten.mean,
    aten.adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten.adaptive_max_pool2d,
    aten.native_group_norm,
)
#: With those that torch calls pointwise: they take of each map the column at its own place.
AT_ITS_PLACE = (
    aten.alias,
    aten.amax,
    aten.cat,
    aten.detach,
    aten.expand,
    aten.hardswish,
    aten.hardswish_,
    aten.native_batch_norm,
    aten.native_group_norm,
    aten.slice,
    aten.stack,
    aten.sum,
)
#: These take a map's type and device, and nothing that it shows.
NEW = (aten.new_full, aten.new_zeros, aten.new_ones, aten.new_empty)


class Spans(NamedTuple):
    """The columns of the image that each column of a map depends on.

    Attributes:
        first: the first of them; `NOWHERE` where there are none.
        last: the last of them; -1 where there are none.
        inside: whether nothing that it depends on lies beyond the image's borders.
    """

    first: Columns
    last: Columns
    inside: NDArray[np.bool_]


class NotFollowedError(Exception):
    """An operation of which it is not known what it sees; the message names it."""


def receptive_field(scores: Callable[[Tensor], Tensor]) -> Field | None:
    """The receptive field of one score, without the borders of the image.

    Args:
        scores: 1 x 3 x H x W on the device "meta" to class scores before upsampling, such as the
            method `scores` of a network in evaluation mode.

    Returns:
        None where an operation cannot be followed, or everything is seen (attention).
    """
    side = SMALLEST
    while side <= LARGEST:
        try:
            (first, last, inside), image = spans(scores, side)
        except NotFollowedError:
            return None
        middle = slice(len(first) // 4, -(-3 * len(first) // 4))
        if inside[middle].all():
            return Field(int((last - first)[middle].max()) + 1, image)
        side = 2 * side - 1
    return None


def spans(scores: Callable[[Tensor], Tensor], side: int) -> tuple[Spans, bool]:
    """What each column of the scores depends on, in an image of side x side pixels.

    Args:
        scores: as `receptive_field` takes them.
        side: pixels.

    Returns:
        Columns of the image for each column of the scores, and whether the whole image joins.

    Raises:
        NotFollowedError: for an operation that is not known.
    """
    image = torch.empty(1, 3, side, side, device="meta")
    following = _Following(image)
    with torch.no_grad(), following:
        result = scores(image)
    return following.spans[result], following.image


class _Following(TorchDispatchMode):
    """Gives every map that is made from the image its spans."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        columns = np.arange(image.shape[-1])
        self.spans = WeakTensorKeyDictionary()
        self.spans[image] = Spans(columns, columns, np.full(len(columns), True))
        self.image = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.overloadpacket is aten.native_batch_norm:
            # Finding out that its result has the shape of its input takes torch milliseconds.
            results = tuple(torch.empty_like(args[0]) for _ in range(3))
        else:
            results = func(*args, **(kwargs or {}))
        if func.overloadpacket not in NEW:
            maps = [one for one in _tensors((args, kwargs)) if one in self.spans]
            for result in _tensors(results) if maps else ():
                # Those of fewer dimensions are statistics of a normalisation.
                if result.ndim > 3:
                    self.spans[result] = self._seen(func, args, maps, result)
        return results

    def _seen(
        self, func: Any, args: Sequence[Any], maps: Sequence[Tensor], result: Tensor
    ) -> Spans:
        """The spans of a result of an operation on maps."""
        width = result.shape[-1]
        if func.overloadpacket in OF_THE_IMAGE:
            self.image = True
        if (taps := _taps(func, args, width)) is not None:
            return _through(self.spans[maps[0]], taps)
        known = torch.Tag.pointwise in func.tags or func.overloadpacket in AT_ITS_PLACE
        if known and {one.shape[-1] for one in maps} <= {1, width}:
            return _joined([self.spans[one] for one in maps], width)
        if func.overloadpacket in OF_THE_IMAGE:
            return Spans(np.full(width, NOWHERE), np.full(width, -1), np.full(width, True))
        raise NotFollowedError(f"{func}: {', '.join(str(tuple(one.shape)) for one in maps)}")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _through(spans: Spans, taps: Columns) -> Spans:
    """What the columns of a result see, each through its taps on the columns of a map.

    Args:
        spans: of the map, which has `width` columns.
        taps: result's columns x taps; those outside 0..width-1 lie on the padding.
    """
    width = len(spans.first)
    # One column more, which sees nothing, stands for the padding; and one for no tap at all.
    taps = np.where((taps >= 0) & (taps < width), taps, np.where(taps == NO_TAP, width + 1, width))
    return Spans(
        np.append(spans.first, [NOWHERE, NOWHERE])[taps].min(axis=1),
        np.append(spans.last, [-1, -1])[taps].max(axis=1),
        np.append(spans.inside, [False, True])[taps].min(axis=1),
    )


def _joined(spans: Sequence[Spans], width: int) -> Spans:
    """What the columns see that are made of several maps' columns at the same place."""
    firsts, lasts, insides = (
        [np.broadcast_to(part, width) for part in parts] for parts in zip(*spans, strict=True)
    )
    return Spans(np.min(firsts, axis=0), np.max(lasts, axis=0), np.min(insides, axis=0))


def _taps(func: Any, args: Sequence[Any], width: int) -> Columns | None:
    """The columns of its input that each of the `width` columns of an operation's result takes.

    None for an operation that takes of each map the column at its own place.
    """
    columns = np.arange(width)[:, None]
    match func.overloadpacket:
        case aten.convolution:
            _, weight, _, stride, padding, rate, transposed, *_ = args
            offsets = rate[-1] * np.arange(weight.shape[-1]) - padding[-1]
            if not transposed:
                return columns * stride[-1] + offsets
            sources, between = np.divmod(columns - offsets, stride[-1])
            return np.where(between == 0, sources, NO_TAP)
        case aten.max_pool2d_with_indices | aten.max_pool2d | aten.avg_pool2d:
            return _pool_taps(func, args, columns)
        case aten.constant_pad_nd:
            return columns - args[1][0]
        case aten.slice if args[1] % args[0].ndim == args[0].ndim - 1:
            start, step = args[2] or 0, args[4] if len(args) > 4 else 1
            return columns * step + (start if start >= 0 else start + args[0].shape[-1])
        case aten.upsample_bilinear2d:
            return _bilinear_taps(args[0].shape[-1], columns, align_corners=args[2])
        case aten.upsample_nearest2d:
            return columns * args[0].shape[-1] // width
    return None


def _pool_taps(func: Any, args: Sequence[Any], columns: Columns) -> Columns:
    kernel = args[1][-1]
    stride = args[2][-1] if len(args) > 2 and args[2] else kernel
    padding = args[3][-1] if len(args) > 3 else 0
    has_rate = func.overloadpacket is not aten.avg_pool2d and len(args) > 4
    rate = args[4][-1] if has_rate else 1
    return columns * stride + rate * np.arange(kernel) - padding


def _bilinear_taps(width: int, columns: Columns, *, align_corners: bool) -> Columns:
    """The two nearest columns of the input; the second one only where its weight is not 0.

    Positions are in fractions of whole numbers, so that a column that lies on another is known.
    """
    wanted = len(columns)
    if align_corners:
        numerators, denominator = columns * (width - 1), max(1, wanted - 1)
    else:
        numerators, denominator = (2 * columns + 1) * width - wanted, 2 * wanted
    left, between = np.divmod(np.maximum(numerators, 0), denominator)
    right = np.where(between > 0, np.minimum(left + 1, width - 1), left)
    return np.concatenate([left, right], axis=1)
