"""What tracking and checkpoints cost a training: Lightning alone beside the whole run.

    python -m benchmarks.overhead FOLDER

trains a network of v3+ on a small set, drawn in FOLDER, in turns: by Lightning with the task and
the loader alone, and as `python -m pipeline.train` does, with the defaults of `trainer`: history,
MLflow in a new store, the look at every loss, the best network, the state every five minutes. What
is compared is seconds a step, and seconds that the processor works,
which other programs on the machine change less; every figure is the median over the rounds. What is
done once a training, whatever its length, is said apart: MLflow's import, and what is written at
the end.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from pytorch_lightning import Trainer

from pipeline.composition import load_config
from pipeline.config import Config
from pipeline.datasets.datamodule import SegmentationData
from pipeline.datasets.fetch import fetch
from pipeline.datasets.manifest import Generator, load_manifest
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import Prepared
from pipeline.entry import run
from pipeline.models.network import build_model
from pipeline.training.run import quiet, train_run
from pipeline.training.task import SegmentationTask

#: Images of 384 pixels; one is validated.
SIZES = {"train": 8, "val": 1, "test": 1}
#: Steps before the clock.
WARM_UP = 3


class Spent(NamedTuple):
    """Seconds of a training: of its steps, and after them.

    Attributes:
        wall: that passed in a step.
        cpu: that the processor worked in a step.
        ending: that passed from the last step to the end, with the validation.
    """

    wall: float
    cpu: float
    ending: float


class Clock:
    """Looks at the time whenever a step begins: what happens after a step is part of it."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def step(self, *_: object) -> None:
        """A step begins."""
        self.marks.append((time.perf_counter(), time.process_time()))

    def spent(self) -> Spent:
        """The seconds; asked for when the training is over."""
        end = time.perf_counter()
        (wall, cpu), (last, worked) = self.marks[WARM_UP], self.marks[-1]
        steps = len(self.marks) - 1 - WARM_UP
        return Spent((last - wall) / steps, (worked - cpu) / steps, end - last)


def main() -> None:
    """Train in turns, and print the table."""
    options = _options()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.folder / 'mlflow.db'}"
    quiet()
    config = _config(options)
    data = _data(options.folder)
    started = time.process_time()
    import mlflow  # noqa: F401

    importing = time.process_time() - started
    rounds: dict[str, list[Spent]] = {"Lightning alone": [], "the whole run": []}
    trainings: dict[str, Callable[[], Spent]] = {
        "Lightning alone": lambda: _timed(lambda: _alone(config, data)),
        "the whole run": lambda: _timed(lambda: _whole(config, data, options.folder / "run")),
    }
    for number in range(options.rounds + 1):
        # In turns, each first as often as the other; the first round is for the memory to grow.
        for name in sorted(trainings, reverse=bool(number % 2)):
            spent = trainings[name]()
            print(f"round {number}: {name}: {spent}", file=sys.stderr, flush=True)
            if number:
                rounds[name].append(spent)
    _print(rounds, importing, options.steps)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where data and runs are put")
    parser.add_argument("--steps", type=int, default=40, help="that are timed, of each training")
    parser.add_argument("--rounds", type=int, default=4, help="of both trainings")
    parser.add_argument("--crop", type=int, default=257, help="pixels a side")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    return options


def _config(options: argparse.Namespace) -> Config:
    return load_config(
        [
            *("dataset=shapes", "model=deeplab_v3plus", f"model.backbone={options.backbone}"),
            *(f"train.crop_size={options.crop}", f"train.batch_size={options.batch}"),
            f"train.iterations={options.steps + WARM_UP + 1}",
            *("train.validate_every=1000000", "trainer.workers=0", "trainer.progress_bar=false"),
            f"trainer.accelerator={options.accelerator}",
        ]
    )


def _data(folder: Path) -> Prepared:
    manifest = load_manifest("shapes")
    splits = {
        name: dataclasses.replace(split, size=SIZES[name])
        for name, split in manifest.splits.items()
    }
    small = dataclasses.replace(manifest, source=Generator("shapes", 0, 384), splits=splits)
    return prepare(small, fetch(small, folder / "raw"), folder / "prepared" / "shapes")


def _timed(training: Callable[[], None]) -> Spent:
    clock = Clock()
    with patch.object(SegmentationTask, "on_train_batch_start", clock.step):
        training()
    return clock.spent()


def _alone(config: Config, data: Prepared) -> None:
    """Lightning with the task and the loader, and nothing that is kept."""
    network, train = build_model(config.model, len(data.classes)), config.train
    network.to(memory_format=torch.channels_last)
    task = SegmentationTask(network, train, len(data.classes))
    mean = network.input_mean.flatten().tolist()
    loaders = SegmentationData(data, train, config.seed, (mean[0], mean[1], mean[2]), 0)
    trainer = Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        max_epochs=1,
        max_steps=train.iterations,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        logger=False,
    )
    trainer.fit(task, datamodule=loaders)


def _whole(config: Config, data: Prepared, folder: Path) -> None:
    """As the stage does."""
    shutil.rmtree(folder, ignore_errors=True)
    config.variant = "overhead"
    train_run(config, folder, data.folder)


def _print(rounds: dict[str, list[Spent]], importing: float, steps: int) -> None:
    alone, whole = (
        Spent(*(statistics.median(column) for column in zip(*found, strict=True)))
        for found in rounds.values()
    )
    print(f"{'a step':<18}{'seconds':>10}{'of the processor':>18}")
    for name, spent in zip(rounds, (alone, whole), strict=True):
        print(f"{name:<18}{spent.wall:>10.3f}{spent.cpu:>18.3f}")
    shares = (100 * (whole.wall / alone.wall - 1), 100 * (whole.cpu / alone.cpu - 1))
    print(f"{'overhead':<18}{shares[0]:>9.1f}%{shares[1]:>17.1f}%")
    print(
        f"median of {len(rounds['the whole run'])} rounds of {steps} steps; once a training: "
        f"{importing:.1f} s of the processor for MLflow's import, and {whole.ending:.1f} s at the "
        "end, with the validation of one image"
    )


if __name__ == "__main__":
    run(main)
