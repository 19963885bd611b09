"""Batch norm and ReLU whose results training makes again in backward instead of keeping them.

Source: Pleiss et al., arXiv 1707.06990, section 3 (normalised maps are cheap to make and dear to
keep); Rota Bulò et al., arXiv 1712.02616, section 3.1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

#: Attribute of a map: how it was made.
WAY = "way_it_was_made"


class Way:
    """How a map was made, for backward to make it once more.

    Args:
        make: makes it.
        version: the map's, which a change in place raises.
    """

    def __init__(self, make: Callable[[], Tensor], version: int) -> None:
        self.version = version
        self._make: Callable[[], Tensor] | None = make
        self._maps: Tensor | None = None

    def maps(self) -> Tensor:
        """The map, which is made once for all who ask."""
        if self._maps is None:
            if self._make is None:
                raise RuntimeError("backward was called before, and let go of these maps")
            with torch.no_grad():
                self._maps = self._make()
        return self._maps

    def rectified(self, top: float | None) -> "Way":
        """How the map's ReLU was made, in its place; its version is not known yet."""
        make = self._make
        assert make is not None
        return Way(lambda: _rectify(make(), top), -1)

    def let_go(self) -> None:
        """Nobody will ask again."""
        self._make = self._maps = None


class remade(saved_tensors_hooks):  # noqa: N801  a context, as its base
    """Inside, layers keep how a batch norm or its ReLU was made where they would keep the map.

    Half as many maps stay in memory. The same operators make the others again, from what batch
    norm keeps anyway: gradients are the same to the bit.
    """

    def __init__(self) -> None:
        super().__init__(_pack, _unpack)


def _pack(kept: Tensor) -> Tensor | Way:
    way = getattr(kept, WAY, None)
    return way if isinstance(way, Way) and way.version == kept._version else kept


def _unpack(kept: Tensor | Way) -> Tensor:
    return kept.maps() if isinstance(kept, Way) else kept


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, whose result knows how it was made."""

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        result = super().forward(input)
        if _learns(result):
            setattr(result, WAY, Way(self._again(input.detach()), result._version))
        return result

    def _again(self, input: Tensor) -> Callable[[], Tensor]:
        by_batch = self.training
        mean, variance = (None, None) if by_batch else (self.running_mean, self.running_var)
        weight, bias = self.weight, self.bias
        return lambda: F.batch_norm(input, mean, variance, weight, bias, by_batch, 0.0, self.eps)


class ReLU(nn.ReLU):
    """ReLU in place; of a batch norm's result, how it was made is enough for its gradient."""

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; 0 below 0."""
        return _rectified(input, None) if _learns(input) else super().forward(input)


class ReLU6(nn.ReLU6):
    """ReLU6 in place, as `ReLU`; torch's keeps a copy beside the result."""

    def __init__(self) -> None:
        super().__init__(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; 0 below 0, 6 above 6."""
        return _rectified(input, 6.0) if _learns(input) else super().forward(input)


def _learns(maps: Tensor) -> bool:
    """Whether a gradient will be taken; the compiler does all this by itself."""
    return not torch.compiler.is_compiling() and torch.is_grad_enabled() and maps.requires_grad


def _rectified(input: Tensor, top: float | None) -> Tensor:
    before = getattr(input, WAY, None)
    way = before.rectified(top) if isinstance(before, Way) else None
    result: Tensor = _Rectified.apply(input, top, way)
    if way is not None:
        way.version = result._version
    setattr(result, WAY, way)
    return result


def _rectify(maps: Tensor, top: float | None) -> Tensor:
    return maps.clamp_(min=0) if top is None else maps.clamp_(0, top)


class _Rectified(torch.autograd.Function):
    """In place: 0 below 0, `top` above it."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, top: float | None, way: Way | None) -> Tensor:
        _rectify(input, top)
        ctx.mark_dirty(input)
        ctx.top, ctx.way = top, way
        if way is None:
            ctx.save_for_backward(input)
        return input

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        if ctx.way is None:
            (result,) = ctx.saved_tensors
        else:
            result = ctx.way.maps()
            ctx.way.let_go()
        if ctx.top is None:
            gradient = torch.ops.aten.threshold_backward(outer, result, 0.0)
        else:
            gradient = torch.ops.aten.hardtanh_backward(outer, result, 0.0, ctx.top)
        return gradient, None, None
