"""Training images a second: this project's training beside loops as other repositories write them.

    python -m benchmarks.train FOLDER [--backbone mobilenet_v2] [--batch 2] [--steps 6] [--rounds 3]

trains DeepLabv3+ at output stride 16 on 513 x 513 crops of a real data set, which it fetches and
prepares in FOLDER by the project's own stages. The contestants share the network and differ in what
is around it:

plain        the loop of the well-known DeepLabV3+ repositories: float32, NCHW, images opened and
             augmented by PIL, the loss of upsampled scores
torchvision  the settings of torchvision's references: the same, with its transforms v2
ours         `pipeline.training` as `train.precision=32-true` runs it: Lightning, checkpoints,
             tracking and all
ours bf16    the same with `train.precision=bf16-mixed`
ours bf16 compiled   and with `trainer.compile=true`

Each runs in a process of its own, turn by turn, so that other programs slow all alike. "CPU" is the
time that the processor worked for an image, loader processes included; "wall" is what passed.
Memory is the peak of the training process beyond what its imports take.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.entry import run

CROP = 513
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
    found: dict[str, list[dict[str, float]]] = {name: [] for name in options.only or CONTESTANTS}
    for _ in range(options.rounds):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.train", *sys.argv[1:]]
            told = subprocess.run(
                [*command, "--contestant", name], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            results.append(json.loads(told.splitlines()[-1]))
    print(
        f"DeepLabv3+ {options.backbone}, batch {options.batch}, {CROP} x {CROP}, "
        f"{options.steps} steps, {options.rounds} rounds"
    )
    heads = ("images/s", "x wall", "x CPU", "CPU s", "MiB", "x MiB", "start s")
    print(f"{'':20}{''.join(f'{head:>9}' for head in heads)}")
    first = next(iter(found.values()))
    for name, results in found.items():
        print(f"{name:20}{_line(results, first)}")


def _line(results: list[dict[str, float]], first: list[dict[str, float]]) -> str:
    """Medians over the rounds, and ratios round by round to the first contestant's."""

    def median(key: str) -> float:
        return statistics.median(result[key] for result in results)

    def ratio(key: str) -> float:
        pairs = zip(first, results, strict=True)
        return statistics.median(one[key] / other[key] for one, other in pairs)

    return (
        f"{1 / median('wall'):9.2f}{ratio('wall'):9.2f}{ratio('cpu'):9.2f}{median('cpu'):9.2f}"
        f"{median('mib'):9.0f}{1 / ratio('mib'):9.2f}{median('start'):9.1f}"
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
        self.started = _age()
        self.marks: list[tuple[float, float]] = []

    def step(self) -> None:
        """A step begins."""
        if not self.marks:
            self.started = _age()
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
            "start": self.started,
        }
        print("\n" + json.dumps(result), flush=True)
        os._exit(0)


def _contest(options: argparse.Namespace) -> None:
    """Be one contestant."""
    if options.contestant.startswith("ours"):
        _ours(options)
    else:
        _loop(options)


def _config(options: argparse.Namespace) -> Any:
    from pipeline.composition import load_config

    iterations = 10 * (options.steps + WARM_UP)
    return load_config(
        [
            f"dataset={options.set}",
            "model=deeplab_v3plus",
            f"model.backbone={options.backbone}",
            "model.output_stride=16",
            "model.weights=null",
            f"train.batch_size={options.batch}",
            f"train.crop_size={CROP}",
            f"train.iterations={iterations}",
            f"train.validate_every={iterations}",
            "train.scale_min=0.5",
            "train.scale_max=2.0",
            "train.photometric=false",
            f"train.precision={'bf16-mixed' if 'bf16' in options.contestant else '32-true'}",
            f"trainer.compile={'compiled' in options.contestant}",
            f"trainer.workers={options.workers}",
            "trainer.progress_bar=false",
        ]
    )


def _ours(options: argparse.Namespace) -> None:
    """The project's own training, its step counted."""
    from pipeline.training.run import train_run
    from pipeline.training.task import SegmentationTask

    clock, step = _Clock(options), SegmentationTask.training_step

    def counted(task: SegmentationTask, *batch: Any) -> Any:
        clock.step()
        return step(task, *batch)

    setattr(SegmentationTask, "training_step", counted)  # noqa: B010  mypy knows no other way
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        train_run(_config(options), Path(folder) / "run", _prepared(options))


def _loop(options: argparse.Namespace) -> None:
    """A training loop by hand."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    from benchmarks.loader import PlainViews
    from pipeline.datasets.prepared import load_prepared
    from pipeline.models.network import build_model

    config = _config(options)
    data = load_prepared(_prepared(options))
    views: Any = PlainViews(data, data.ids("train"))
    if options.contestant == "torchvision":
        views = _torchvision_views(data)
    clock = _Clock(options)
    network = build_model(config.model, len(data.classes)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.007, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    loader = DataLoader(
        views, options.batch, shuffle=True, num_workers=options.workers, drop_last=True
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    for images, labels in batches():
        clock.step()
        scores = network.outputs(images).scores
        size = labels.shape[-2:]
        logits = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        loss = criterion(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()


def _torchvision_views(data: Any) -> Any:
    """As torchvision's references/segmentation/presets.py composes them, with transforms v2."""
    import torch
    from torch.utils.data import Dataset
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    from benchmarks.loader import MEAN, STD
    from pipeline.datasets.datamodule import read_pair

    transform: Callable[..., Any] = v2.Compose(
        [
            v2.RandomResize(min_size=260, max_size=1040, antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(
                CROP, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}
            ),
            v2.ToDtype({tv_tensors.Image: torch.float, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    class Views(Dataset[Any]):
        def __len__(self) -> int:
            return len(data.ids("train"))

        def __getitem__(self, index: int) -> Any:
            image, label = read_pair(data, data.ids("train")[index])
            pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
            drawn, mask = transform(pixels, tv_tensors.Mask(torch.from_numpy(label)))
            return drawn.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).long()

    return Views()


def _resident(key: str) -> float:
    """VmRSS or VmHWM of this process, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def _age() -> float:
    """Seconds since this process was started."""
    import psutil

    return time.time() - psutil.Process().create_time()


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
