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
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pipeline.entry import SAID_TO_TORCH, run

CONTESTANTS = ("plain", "torchvision", "ours", "ours bf16", "ours bf16 compiled")
#: Steps that are not timed: loaders fill, memory is laid out, kernels are compiled.
WARM_UP = 2


def main() -> None:
    """Run every contestant in turn, and print the table; or one of them, as this starts it."""
    options = _options()
    if options.contestant:
        _contest(options)
        return
    _prepared(options)
    names = options.only or CONTESTANTS
    print(
        f"DeepLabv3+ {options.backbone}, batch {options.batch}, {options.crop} x {options.crop}, "
        f"{options.rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors",
        flush=True,
    )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(options.rounds):
        for name, results in found.items():
            results.append(_result(name, seed))
    if options.miou:
        print(f"{'val mIoU, %':20}" + "".join(f"   seed {n:<2}" for n in range(options.rounds)))
        for name, results in found.items():
            print(f"{name:20}" + "".join(f"{result['miou']:9.2f}" for result in results))
        return
    heads = ("images/s", "x wall", "x CPU", "CPU s", "MiB", "x MiB")
    print(f"{'':20}{''.join(f'{head:>9}' for head in heads)}")
    first = next(iter(found.values()))
    for name, results in found.items():
        print(f"{name:20}{_line(results, first)}")


def _result(name: str, seed: int) -> dict[str, float]:
    """What a contestant found, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train", *sys.argv[1:]]
    command += ["--contestant", name, "--seed", str(seed)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


def _line(results: list[dict[str, float]], first: list[dict[str, float]]) -> str:
    """Medians over the rounds, and ratios round by round to the first contestant's."""

    def median(key: str) -> float:
        return statistics.median(result[key] for result in results)

    def ratio(key: str) -> float:
        pairs = zip(first, results, strict=True)
        return statistics.median(one[key] / other[key] for one, other in pairs)

    return (
        f"{1 / median('wall'):9.2f}{ratio('wall'):9.2f}{ratio('cpu'):9.2f}{median('cpu'):9.2f}"
        f"{median('mib'):9.0f}{1 / ratio('mib'):9.2f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for downloads, raw and prepared data")
    parser.add_argument("--set", dest="set", default="voc2012-subset", help="a manifest's name")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--crop", type=int, default=513)
    parser.add_argument("--threads", type=int, help="of the network; all processors")
    parser.add_argument("--miou", type=int, default=0, metavar="N", help="train N iterations")
    parser.add_argument("--weights", help="as model.weights; random")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="repeatable")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _prepared(options: argparse.Namespace) -> Path:
    from pipeline.datasets.fetch import fetch
    from pipeline.datasets.manifest import load_manifest
    from pipeline.datasets.prepare import prepare

    manifest, out = load_manifest(options.set), options.folder / "prepared" / options.set
    if not (out / "dataset.json").is_file():
        fetch(manifest, options.folder / "raw", downloads=options.folder / "downloads")
        prepare(manifest, options.folder / "raw" / options.set, out)
    return Path(out)


class _Clock:
    """Counts the steps of a training, and ends its process after enough of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.before = _resident("VmRSS")
        self.marks: list[tuple[float, float]] = []

    def step(self) -> None:
        """A step begins."""
        self.marks.append((time.perf_counter(), _busy()))
        steps = len(self.marks) - 1 - WARM_UP
        if steps < self.options.steps:
            return
        images = steps * self.options.batch
        (wall, busy), (end, worked) = self.marks[WARM_UP], self.marks[-1]
        result = {
            "wall": (end - wall) / images,
            "cpu": (worked - busy) / images,
            "mib": (_resident("VmHWM") - self.before) / 1024,
        }
        print("\n" + json.dumps(result), flush=True)
        os._exit(0)


def _contest(options: argparse.Namespace) -> None:
    """Be one contestant."""
    if not options.contestant.startswith("ours"):
        for name in SAID_TO_TORCH:  # nobody else does
            os.environ.pop(name, None)
    import mlflow.tracking  # noqa: F401  an import, which is not counted
    import torch

    from benchmarks.contestants import by_hand, ours, settings

    if options.threads:
        torch.set_num_threads(options.threads)
    config = settings(options, options.miou or 10 * (options.steps + WARM_UP))
    prepared = _prepared(options)
    step = (lambda: None) if options.miou else _Clock(options).step
    if options.contestant.startswith("ours"):
        miou = ours(config, prepared, step)
    else:
        miou = by_hand(config, prepared, step, with_pil=options.contestant == "plain")
    print("\n" + json.dumps({"miou": miou}))


def _resident(key: str) -> float:
    """VmRSS or VmHWM of this process, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def _busy() -> float:
    """Seconds that the processor worked for this process and its children."""
    import psutil

    spent = resource.getrusage(resource.RUSAGE_SELF)
    total = spent.ru_utime + spent.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    run(main)
