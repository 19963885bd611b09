"""The loss of a training batch at the labels' size: this project's beside upsampled scores.

    python -m benchmarks.loss [--batch 4] [--classes 21] [--crop 513] [--device cpu]

takes scores at output stride 16 (v3) and at 4 (v3+'s decoder) through the loss and back, as
`F.interpolate` and `F.cross_entropy` do it and as `upsampled_cross_entropy` does, in turn. Time is
the processor's on the CPU, so that other programs count less, and the clock's on a GPU; the median
over the rounds. Memory is the most that is held beside scores and labels: on the CPU each loss has
a process of its own for it.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.datasets.transforms import VOID
from pipeline.entry import run
from pipeline.training.upsampled import upsampled_cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]
MIB = 1024**2


def plain(scores: Tensor, labels: Tensor) -> Tensor:
    """As the well-known DeepLab repositories write it."""
    large = F.interpolate(scores, labels.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(large, labels, ignore_index=VOID)


def ours(scores: Tensor, labels: Tensor) -> Tensor:
    """The same mean, some rows at a time."""
    counts = labels != VOID
    classes = torch.where(counts, labels, 0)
    weights = counts.float()
    return upsampled_cross_entropy(scores, classes, weights, align_corners=True) / weights.sum()


LOSSES: dict[str, Loss] = {"plain": plain, "ours": ours}


def case(arguments: argparse.Namespace, stride: int) -> tuple[Tensor, Tensor]:
    """Random scores and labels, a tenth of them void."""
    generator = torch.Generator().manual_seed(0)
    side = (arguments.crop - 1) // stride + 1
    scores = torch.randn(arguments.batch, arguments.classes, side, side, generator=generator)
    size = (arguments.batch, arguments.crop, arguments.crop)
    labels = torch.randint(arguments.classes, size, generator=generator)
    labels[torch.rand(size, generator=generator) < 0.1] = VOID
    return scores.to(arguments.device).requires_grad_(), labels.to(arguments.device)


def once(loss: Loss, scores: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Seconds of one forward and backward pass, and the gradient."""
    clock = time.process_time if scores.device.type == "cpu" else time.perf_counter
    _wait(scores)
    started = clock()
    (gradient,) = torch.autograd.grad(loss(scores, labels), scores)
    _wait(scores)
    return clock() - started, gradient


def _wait(scores: Tensor) -> None:
    if scores.is_cuda:
        torch.cuda.synchronize()


def memory(arguments: argparse.Namespace, stride: int, name: str) -> float:
    """MiB that a loss needs at its peak."""
    if arguments.device == "cuda":
        scores, labels = case(arguments, stride)
        once(LOSSES[name], scores, labels)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        once(LOSSES[name], scores, labels)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    child = context.Process(target=_resident, args=(arguments, stride, name, answer))
    child.start()
    child.join()
    found: float = answer.get()
    return found


def _resident(arguments: argparse.Namespace, stride: int, name: str, answer: Any) -> None:
    torch.set_num_threads(arguments.threads)
    small = argparse.Namespace(**{**vars(arguments), "crop": 65})
    once(LOSSES[name], *case(small, stride))  # code and threads are there before it counts
    scores, labels = case(arguments, stride)
    before = _peak()
    once(LOSSES[name], scores, labels)
    answer.put(_peak() - before)


def _peak() -> float:
    """MiB that this process has held at most; `ru_maxrss` would count what started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Print a line for each output stride."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (
        ("batch", 4),
        ("classes", 21),
        ("crop", 513),
        ("rounds", 7),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"batch {arguments.batch}, {arguments.classes} classes, crop {arguments.crop}, "
        f"{arguments.device}, {arguments.threads} thread(s)"
    )
    for stride in (16, 4):
        scores, labels = case(arguments, stride)
        seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
        gradients = {}
        for _ in range(arguments.rounds + 1):
            for name, loss in LOSSES.items():
                taken, gradients[name] = once(loss, scores, labels)
                seconds[name].append(taken)
        held = {name: memory(arguments, stride, name) for name in LOSSES}
        times = {name: statistics.median(values[1:]) for name, values in seconds.items()}
        apart = (gradients["ours"] - gradients["plain"]).abs().max() / gradients[
            "plain"
        ].abs().max()
        print(
            f"scores at stride {stride}: time {1e3 * times['plain']:.0f} ms -> "
            f"{1e3 * times['ours']:.0f} ms ({times['plain'] / times['ours']:.1f} times faster), "
            f"peak {held['plain']:.0f} MiB -> {held['ours']:.0f} MiB "
            f"({held['plain'] / held['ours']:.0f} times less), "
            f"gradients apart by {apart.item():.0e} of the largest"
        )


if __name__ == "__main__":
    run(main)
