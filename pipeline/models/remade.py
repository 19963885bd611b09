"""Maps and weights that training makes again in backward instead of keeping them.

Batch norm's results, their sums with a shortcut, the ReLU of either, and weights in half precision.

Source: Pleiss et al., arXiv 1707.06990, section 3 (normalised maps are cheap to make and dear to
keep); Rota Bulò et al., arXiv 1712.02616, section 3.1.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

#: Attribute of a map: how it was made.
WAY = "way_it_was_made"
#: Autograd's name of a batch norm that keeps the mean and 1 / deviation of its batch.
COUNTED = "NativeBatchNormBackward0"
#: What 1 stays 1 with, in float32.
NOTHING = 1e-30


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

    def plus(self, shortcut: "Tensor | Way") -> Callable[[], Tensor]:
        """What makes the sum of this map, which nobody else asks for, and a shortcut."""
        make = self._make
        assert make is not None
        return lambda: make() + _unpack(shortcut)

    def keep(self, maps: Tensor) -> None:
        """These are the maps, so nothing has to be made."""
        version = maps._version
        self._make = lambda: _unchanged(maps, version)

    def let_go(self) -> None:
        """Nobody will ask again."""
        self._make = self._maps = None


class remade(saved_tensors_hooks):  # noqa: N801  a context, as its base
    """Inside, layers keep how a map or a weight was made where they would keep it itself.

    Half as many maps stay in memory, and no weights in half precision. The same operators make the
    others again, from what batch norm keeps anyway: gradients are the same to the bit.
    """

    def __init__(self) -> None:
        super().__init__(_pack, _unpack)
        self._cached = True

    def __enter__(self) -> None:
        """Autocast keeps no weights either."""
        self._cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        """As before."""
        super().__exit__(*error)
        torch.set_autocast_cache_enabled(self._cached)


def _pack(kept: Tensor) -> Tensor | Way:
    return _way(kept) or _way_of_cast(kept) or kept


def _way(maps: Tensor) -> Way | None:
    """How these maps were made, unless they were changed since."""
    way = getattr(maps, WAY, None)
    return way if isinstance(way, Way) and way.version == maps._version else None


def _way_of_cast(kept: Tensor) -> Way | None:
    """How a weight in half precision was made."""
    if kept.grad_fn is None or kept.grad_fn.name() != "ToCopyBackward0":
        return None
    weight = getattr(kept.grad_fn.next_functions[0][0], "variable", None)
    if weight is None or (weight.device, weight.stride()) != (kept.device, kept.stride()):
        return None
    kind, version = kept.dtype, weight._version
    return Way(lambda: _unchanged(weight, version).to(kind), kept._version)


def _unchanged(values: Tensor, version: int) -> Tensor:
    if values._version != version:
        raise RuntimeError("a weight or map was changed in place between forward and backward")
    return values


def _unpack(kept: Tensor | Way) -> Tensor:
    return kept.maps() if isinstance(kept, Way) else kept


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, whose result knows how it was made."""

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        result = super().forward(input)
        if _learns(result):
            setattr(result, WAY, Way(self._again(input.detach(), result), result._version))
        return result

    def _again(self, input: Tensor, result: Tensor) -> Callable[[], Tensor]:
        by_batch, counted = self.training, cast(Any, result.grad_fn)
        if by_batch and input.is_cpu and counted.name() == COUNTED:
            return self._with_statistics(input, counted._saved_result1, counted._saved_result2)
        mean, variance = (None, None) if by_batch else (self.running_mean, self.running_var)
        weight, bias = self.weight, self.bias
        return lambda: F.batch_norm(input, mean, variance, weight, bias, by_batch, 0.0, self.eps)

    def _with_statistics(self, input: Tensor, mean: Tensor, scale: Tensor) -> Callable[[], Tensor]:
        """The batch's are not counted again: half the time, and the same to the bit.

        A variance of 1 leaves the weight times 1 / deviation as forward's kernel took it.
        """
        weight = self.weight if self.affine else torch.ones_like(scale)
        bias, one = self.bias, torch.ones_like(scale)
        return lambda: F.batch_norm(input, mean, one, weight * scale, bias, False, 0.0, NOTHING)


def added(maps: Tensor, shortcut: Tensor) -> Tensor:
    """The sum of a batch norm's result and a shortcut, N x C x H x W, which knows how it was made.

    A shortcut that is such a sum itself is made again with it, and then stays for its own block's
    turn in backward: `keep` the ends of long chains.
    """
    result = maps + shortcut
    way = _way(maps) if _learns(result) else None
    if way is not None:
        setattr(result, WAY, Way(way.plus(_way(shortcut) or shortcut.detach()), result._version))
    return result


def keep(maps: Tensor) -> Tensor:
    """The same maps, which are not made again: a chain of sums starts anew with them.

    Raises:
        RuntimeError: in backward, if they were changed in place since.
    """
    way = _way(maps) if _learns(maps) else None
    if way is not None:
        way.keep(maps.detach())
    return maps


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
    before = _way(input)
    way = None if before is None else before.rectified(top)
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
