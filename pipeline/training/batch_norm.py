"""Batch norm while a network trains: its momentum, frozen, or over the processes together."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.training.processes import process_count, sum_over_processes


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Say how much of a batch goes into the running statistics.

    Args:
        network: all of whose batch norms are meant.
        momentum: 1 - the papers' decay: 3e-4 in v3, section 4.1.
    """
    for module in _batch_norms(network):
        module.momentum = momentum


def freeze(network: nn.Module) -> None:
    """Normalise by the running statistics, and leave them as they are.

    Scale and shift go on learning, as in the authors' TensorFlow code.
    """
    for module in _batch_norms(network):
        module.eval()


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Have every batch norm take its statistics over the processes together.

    The parameters stay the same tensors, under the same names.

    Args:
        network: changed in place.
        device: on which it is trained.
    """
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm  # it knows timm's batch norms too

        convert_sync_batchnorm(network)
        return
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncedBatchNorm2d):
                setattr(parent, name, SyncedBatchNorm2d(child))


def _batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """What torch's `SyncBatchNorm` is on a GPU, for the CPU, where torch has none.

    Every process has to hold equally many pixels.

    Args:
        plain: whose parameters and statistics it takes over; timm's, which apply an activation as
            well, keep it.
    """

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.drop = getattr(plain, "drop", nn.Identity())
        self.act = getattr(plain, "act", nn.Identity())
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        together = self.training and process_count() > 1
        normalised = self._together(input) if together else super().forward(input)
        result: Tensor = self.act(self.drop(normalised))
        return result

    @torch.compiler.disable
    def _together(self, input: Tensor) -> Tensor:
        mean, variance = _moments(input)
        pixels = process_count() * input.numel() // input.shape[1]
        momentum = cast(float, self.momentum)
        with torch.no_grad():
            cast(Tensor, self.num_batches_tracked).add_(1)
            cast(Tensor, self.running_mean).lerp_(mean, momentum)
            # The running variance is unbiased, as everywhere in torch.
            unbiased = variance * (pixels / max(pixels - 1, 1))
            cast(Tensor, self.running_var).lerp_(unbiased, momentum)
        result: Tensor = _Normalise.apply(input, self.weight, self.bias, mean, variance, self.eps)
        return result


def _moments(input: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's mean and variance over all processes."""
    variance, mean = torch.var_mean(_precise(input.detach()), dim=(0, 2, 3), correction=0)
    own = torch.stack([mean, variance])
    every = [torch.empty_like(own) for _ in range(process_count())]
    dist.all_gather(every, own)
    means, variances = torch.stack(every).unbind(1)
    mean = means.mean(0)
    # The variance within the processes and between them: no difference of large squares.
    return mean, variances.mean(0) + (means - mean).square().mean(0)


def _precise(values: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class _Normalise(torch.autograd.Function):
    """Normalisation by statistics that depend on every process's input."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
    ) -> Tensor:
        """(input - mean) / sqrt(variance + epsilon) * weight + bias, a channel."""
        ctx.save_for_backward(input, weight, mean, (variance + epsilon).rsqrt())
        return F.batch_norm(input, mean, variance, weight, bias, False, 0.0, epsilon)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """As batch norm's (Ioffe and Szegedy, arXiv 1502.03167, section 3), means over all."""
        input, weight, mean, inverse = ctx.saved_tensors
        shape = (1, -1, 1, 1)
        gradient = _precise(outer)
        normalised = (_precise(input) - mean.view(shape)) * inverse.view(shape)
        of_bias = gradient.sum((0, 2, 3))
        of_weight = (gradient * normalised).sum((0, 2, 3))
        pixels = process_count() * input.numel() // input.shape[1]
        shift, slope = (sum_over_processes(torch.stack([of_bias, of_weight])) / pixels).unbind()
        centred = gradient - shift.view(shape) - normalised * slope.view(shape)
        of_input = centred * (weight * inverse).view(shape)
        return of_input.to(input.dtype), of_weight, of_bias, None, None, None
