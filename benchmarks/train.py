"""Training images a second: this project's training beside loops as other repositories write them.

    python -m benchmarks.train FOLDER [--backbone mobilenet_v2] [--batch 2] [--steps 6] [--rounds 3]
    python -m benchmarks.train FOLDER --miou 200 --crop 129 --batch 8 [--weights imagenet]

trains DeepLabv3+ at output stride 16 on crops of a real data set, which it fetches and prepares in
FOLDER by the project's own stages. The contestants share the network and differ in what is around
it:

plain        the loop of the well-known DeepLabV3+ repositories: float32, NCHW, images opened and
             augmented by PIL, the loss of upsampled scores
torchvision  the settings of torchvision's references: the same, with its transforms v2
ours         `pipeline.training` as `train.precision=32-true` runs it: Lightning, checkpoints,
             tracking and all
ours bf16    the same with `train.precision=bf16-mixed`
ours bf16 compiled   and with `trainer.compile=true`

Each runs in a process of its own, turn by turn, so that other programs slow all alike. "CPU" is the
time that the processor worked for an image, loader processes included; "wall" is what passed. On a
machine that others use, `--threads 1` makes CPU times comparable: threads that wait for each other
do so at work. Memory is the peak of the training process beyond what its imports take.

With `--miou N` each trains N iterations from each seed instead, and its val mIoU is printed.
"""

import argparse
import json
import os
import time

from benchmarks.race import add_options, busy, prepared, race, resident, table
from pipeline.entry import run

CONTESTANTS = ("plain", "torchvision", "ours", "ours bf16", "ours bf16 compiled")
#: Steps that are not timed: loaders fill, memory is laid out, kernels are compiled.
WARM_UP = 2


def main() -> None:
    """Run every contestant in turn, and print the table; or one of them, as this starts it."""
    options = _options()
    about = f"batch {options.batch}, {options.crop} x {options.crop}"
    found = race("benchmarks.train", options, CONTESTANTS, about, _contest)
    if found and options.miou:
        print(f"{'val mIoU, %':20}" + "".join(f"   seed {n:<2}" for n in range(options.rounds)))
        for name, results in found.items():
            print(f"{name:20}" + "".join(f"{result['miou']:9.2f}" for result in results))
    elif found:
        print(table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_options(parser, CONTESTANTS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--miou", type=int, default=0, metavar="N", help="train N iterations")
    return parser.parse_args()


class _Clock:
    """Counts the steps of a training, and ends its process after enough of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.before = resident("VmRSS")
        self.marks: list[tuple[float, float]] = []

    def step(self) -> None:
        """A step begins."""
        self.marks.append((time.perf_counter(), busy()))
        steps = len(self.marks) - 1 - WARM_UP
        if steps < self.options.steps:
            return
        images = steps * self.options.batch
        (wall, spent), (end, worked) = self.marks[WARM_UP], self.marks[-1]
        result = {
            "wall": (end - wall) / images,
            "cpu": (worked - spent) / images,
            "mib": (resident("VmHWM") - self.before) / 1024,
        }
        print("\n" + json.dumps(result), flush=True)
        os._exit(0)


def _contest(options: argparse.Namespace) -> None:
    """Be one contestant."""
    import mlflow.tracking  # noqa: F401  an import, which is not counted
    import torch

    from benchmarks.contestants import by_hand, ours, settings

    if options.threads:
        torch.set_num_threads(options.threads)
    config = settings(options, options.miou or 10 * (options.steps + WARM_UP))
    data = prepared(options)
    step = (lambda: None) if options.miou else _Clock(options).step
    if options.contestant.startswith("ours"):
        miou = ours(config, data, step)
    else:
        miou = by_hand(config, data, step, with_pil=options.contestant == "plain")
    print("\n" + json.dumps({"miou": miou}))


if __name__ == "__main__":
    run(main)
