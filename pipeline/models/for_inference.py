"""A trained network, made quicker where nothing is learnt any more; its scores stay the same."""

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pipeline.models.decoder import DecoderStage
from pipeline.models.layers import AtrousConv2d, ClassLayer
from pipeline.models.remade import BatchNorm2d

AnyModule = TypeVar("AnyModule", bound=nn.Module)
#: Of those it is known that they do nothing else; layers that are made of them may.
CONVOLUTIONS = (nn.Conv2d, AtrousConv2d)
BATCH_NORMS = (nn.BatchNorm2d, BatchNorm2d)
#: Pixels a side of the image that shows which layer follows which.
PROBE = 65
#: Of the largest score. Rounding makes a hundredth of this, a wrong layer a multiple.
TOLERANCE = 1e-2


def for_inference(network: AnyModule, precision: str = "32") -> AnyModule:
    """A copy in evaluation mode with fewer operations, its scores the same within rounding.

    A batch norm goes into the weights of the convolution before it, where nothing else sees that
    convolution's result. The decoder convolves its features before it upsamples them.

    Args:
        network: on the processor; it stays as it is.
        precision: 32 or bf16, in which the copy is to run: autocast would make weights in bf16
            anew for every image.
    """
    quick = _folded(network.eval())
    for module in quick.modules():
        if isinstance(module, DecoderStage):
            module.convolves_first = True
        if precision == "bf16" and type(module) in (*CONVOLUTIONS, ClassLayer):
            module.to(torch.bfloat16)
    return quick


@torch.inference_mode(False)
@torch.no_grad()
def _folded(network: AnyModule) -> AnyModule:
    folded = copy.deepcopy(network)
    if not any(type(module) in BATCH_NORMS for module in network.modules()):
        return folded
    image = torch.rand(1, 3, PROBE, PROBE, generator=torch.Generator().manual_seed(0))
    for convolution, norm in list(_pairs(folded, image)):
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        for module in folded.modules():
            for name, child in module.named_children():
                if child is norm:
                    setattr(module, name, nn.Identity())
    before, after = network(image), folded(image)
    same = (before - after).abs().max() <= TOLERANCE * before.abs().max()
    return folded if same else copy.deepcopy(network)


def _pairs(network: nn.Module, image: Tensor) -> Iterator[tuple[nn.Conv2d, Any]]:
    """The convolutions whose result goes to one batch norm, which sees no others'."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    seen: set[tuple[nn.Module | None, nn.Module]] = set()

    def after(convolution: nn.Module, _: object, result: Tensor) -> None:
        # The result is kept: the address of one that is gone may become another's.
        made[id(result)] = (convolution, result)

    def before(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.add((made.get(id(arguments[0]), (None,))[0], norm))

    hooks = [
        module.register_forward_hook(after)
        for module in network.modules()
        if type(module) in CONVOLUTIONS
    ]
    hooks += [
        module.register_forward_pre_hook(before)
        for module in network.modules()
        if type(module) in BATCH_NORMS and getattr(module, "running_mean", None) is not None
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    for convolution, norm in seen:
        alone = sum(convolution is one or norm is other for one, other in seen) == 1
        if alone and isinstance(convolution, nn.Conv2d):
            yield convolution, norm
