"""What a network costs: parameters, multiply-adds, peak memory, milliseconds."""

import copy
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from torch.utils.weak import WeakIdKeyDictionary


class MultiplyAdds(NamedTuple):
    """Multiply-adds of the convolutions.

    Attributes:
        direct: a tap for every position of the output.
        in_tensorflow: with what TensorFlow adds to atrous convolutions, as the papers count.
    """

    direct: int
    in_tensorflow: int


def count_parameters(model: nn.Module) -> int:
    """The number of trainable weights, as the papers state it (batch norm's statistics are not)."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds of one 1 x 3 x size x size image through the convolutions.

    The papers' "M-Adds": a convolution's taps on the padding count, batch norm, ReLU and
    upsampling do not. Nothing is computed, so the size may be large.
    """
    return count_multiply_adds(model, size).direct


def count_multiply_adds(model: nn.Module, size: int) -> MultiplyAdds:
    """Multiply-adds of one 1 x 3 x size x size image, directly and as TensorFlow counts.

    TensorFlow 1 computes an atrous convolution of rate r as r x r ordinary ones, each on every
    r-th pixel ("space to batch"), and pads the map to a multiple of r for that. The papers' figures
    include the padding: on a 33 x 33 map, rates 6, 12 and 18 compute 36 x 36 positions each.
    """
    padding = 0

    def convolution(
        images: Sequence[int],
        weight: Sequence[int],
        _bias: object,
        stride: Sequence[int],
        _padding: object,
        dilation: Sequence[int],
        transposed: bool,
        *_: object,
        out_shape: Sequence[int],
    ) -> int:
        def flops(output: Sequence[int]) -> int:
            return conv_flop_count([*images], [*weight], [*output], transposed=transposed)

        nonlocal padding
        if not transposed and max(weight[2:]) > 1 and max(stride) == 1:
            sides = (
                -(-side // rate) * rate for side, rate in zip(out_shape[2:], dilation, strict=True)
            )
            padding += flops([*out_shape[:2], *sides]) - flops(out_shape)
        return flops(out_shape)

    formulas = {torch.ops.aten.convolution: convolution}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    shapes_only, image = _shapes_only(model, size)
    with torch.no_grad(), counter:
        shapes_only(image)
    total = counter.get_total_flops()
    return MultiplyAdds(total // 2, (total + padding) // 2)


def peak_memory(model: nn.Module, size: int) -> int:
    """Bytes that a forward pass of one 1 x 3 x size x size image needs at its worst moment.

    Weights, image and the maps alive at the same time, without gradients, in PyTorch's eager order:
    a map is freed as soon as nothing refers to it. What a library sets aside inside a convolution
    is not known beforehand and not in it. Nothing is computed.
    """
    shapes_only, image = _shapes_only(model, size)
    live = LiveTensors([image, *shapes_only.parameters(), *shapes_only.buffers()])
    with torch.no_grad(), live:
        shapes_only(image)
    return live.peak


class LiveTensors(TorchDispatchMode):
    """Follows the bytes of the given tensors and of all that operations make, while they live."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = WeakIdKeyDictionary()
        self._bytes = self.peak = 0
        self._add(tensors)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        self._add(result for result in tree_leaves(results) if isinstance(result, Tensor))
        return results

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            # A view shares the storage of what it shows, and an operation in place takes none.
            if storage not in self._known:
                self._known[storage] = storage.nbytes()
                self._bytes += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes()).atexit = False
        self.peak = max(self.peak, self._bytes)

    def _free(self, freed: int) -> None:
        self._bytes -= freed


def _shapes_only(model: nn.Module, size: int) -> tuple[nn.Module, Tensor]:
    """The network in evaluation mode and an image, both with shapes and without values."""
    if model.training or not all(weight.is_meta for weight in model.parameters()):
        model = copy.deepcopy(model).to("meta").eval()
    return model, torch.empty(1, 3, size, size, device="meta")


def milliseconds_per_image(
    model: nn.Module, size: int, device: torch.device | str, repeats: int = 10
) -> float:
    """The median time of one 1 x 3 x size x size image, in milliseconds.

    Args:
        model: stays as and where it is: if that is not in evaluation mode on the device, a copy is
            timed.
        size: pixels a side.
        device: where to run.
        repeats: timed runs, after three that are not.
    """
    device = torch.device(device)
    there = all(weight.device == device for weight in model.parameters())
    timed = model if there and not model.training else copy.deepcopy(model).to(device).eval()
    image = torch.rand(1, 3, size, size, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(3 + repeats):
            _wait_for(device)
            start = time.perf_counter()
            timed(image)
            _wait_for(device)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


def _wait_for(device: torch.device) -> None:
    # Accelerators return before they have finished.
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
