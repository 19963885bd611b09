"""Sums over a training's processes; with one process, nothing happens."""

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of every process's values, the same on all of them; not differentiable."""
    if process_count() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def take_first_process_values(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with the first process's."""
    if process_count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
