"""What `benchmarks.train` and `benchmarks.infer` compare: loops by hand, and this project's.

Trainings call `step` before a step, and train the same network from the same weights.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import functional as pil
from torchvision.transforms import v2

from pipeline.composition import load_config
from pipeline.config import Config
from pipeline.datasets.datamodule import as_floats, read_pair
from pipeline.datasets.prepared import Prepared, load_prepared
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.inference.whole_image import probabilities
from pipeline.models.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SegmentationNetwork,
    build_model,
)
from pipeline.models.weights import load_weights
from pipeline.training.run import train_run
from pipeline.training.schedule import schedule
from pipeline.training.task import SegmentationTask

Step = Callable[[], None]


def settings(options: argparse.Namespace, iterations: int) -> Config:
    """The configuration that all contestants share."""
    weights = "null" if options.weights is None else options.weights
    return load_config(
        [
            f"dataset={options.set}",
            "model=deeplab_v3plus",
            f"model.backbone={options.backbone}",
            "model.output_stride=16",
            f"model.weights={weights}",
            f"seed={options.seed}",
            f"train.batch_size={options.batch}",
            f"train.crop_size={options.crop}",
            f"train.iterations={iterations}",
            f"train.validate_every={iterations}",
            "train.scale_min=0.5",
            "train.scale_max=2.0",
            "train.photometric=false",
            "train.keep=last",
            f"train.precision={'bf16-mixed' if 'bf16' in options.contestant else '32-true'}",
            f"trainer.compile={'compiled' in options.contestant}",
            f"trainer.workers={options.workers}",
            "trainer.progress_bar=false",
        ]
    )


def ours(config: Config, prepared: Path, step: Step) -> float:
    """The project's own training, as its stage runs it; the val mIoU in the end."""
    once = SegmentationTask.training_step

    def counted(task: SegmentationTask, *batch: Any) -> Any:
        step()
        return once(task, *batch)

    setattr(SegmentationTask, "training_step", counted)  # noqa: B010  mypy knows no other way
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        train_run(config, Path(folder) / "run", prepared)
        rows = (Path(folder) / "run/history.csv").read_text().splitlines()
        last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
        return float(last["val_miou"])


def by_hand(config: Config, prepared: Path, step: Step, *, with_pil: bool) -> float:
    """A training loop as other repositories write it; the val mIoU, by the project's scoring.

    Args:
        config: of the network, the schedule and the loader.
        prepared: the training-ready set.
        step: called before each step.
        with_pil: the loader of the well-known repositories; otherwise torchvision's transforms v2.
    """
    torch.manual_seed(config.seed)
    data, train = load_prepared(prepared), config.train
    network = build_model(config.model, len(data.classes)).train()
    load_weights(network, config.model)
    mean, std = network.input_mean.clone(), network.input_std.clone()
    network.input_mean.zero_()  # these loaders normalise
    network.input_std.fill_(1)
    optimiser = torch.optim.SGD(
        network.parameters(), train.learning_rate, train.momentum, weight_decay=train.weight_decay
    )
    rates = LambdaLR(optimiser, schedule(train))
    criterion = nn.CrossEntropyLoss(ignore_index=255)
    kind = PILViews if with_pil else TorchvisionViews
    for images, labels in _batches(kind(data, data.ids("train"), train.crop_size), config):
        step()
        scores = network.outputs(images).scores
        logits = F.interpolate(scores, labels.shape[-2:], mode="bilinear", align_corners=False)
        loss = criterion(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        loss.item()
    network.input_mean.copy_(mean)
    network.input_std.copy_(std)
    return _miou(network.eval(), data)


def _batches(views: Dataset[Any], config: Config) -> Iterator[Any]:
    loader = DataLoader(
        views,
        config.train.batch_size,
        shuffle=True,
        num_workers=config.trainer.workers or 0,
        drop_last=True,
    )
    left = config.train.iterations
    while left > 0:
        for batch in loader:
            yield batch
            left -= 1
            if left == 0:
                break


@torch.no_grad()
def _miou(network: SegmentationNetwork, data: Prepared) -> float:
    matrix = ConfusionMatrix(len(data.classes))
    for id in data.ids("val"):
        image, label = read_pair(data, id)
        scores = probabilities(network, as_floats(torch.from_numpy(image)))
        matrix.update(torch.from_numpy(label), scores.argmax(0), source=id)
    return matrix.miou()


def evaluate_by_hand(
    network: SegmentationNetwork,
    data: Prepared,
    workers: int,
    ids: Sequence[str],
    *,
    with_numpy: bool,
) -> ConfusionMatrix:
    """An evaluation as other repositories write it: image by image, each at its own size.

    Args:
        network: trained.
        data: the training-ready set.
        workers: loader processes.
        ids: of the images.
        with_numpy: labels are counted by numpy, as the well-known repositories do it, without
            gradients; otherwise by torch, in inference mode.
    """
    network.eval()
    network.input_mean.zero_()  # these loaders normalise
    network.input_std.fill_(1)
    classes = len(data.classes)
    loader = DataLoader(WholeImages(data, ids), batch_size=1, num_workers=workers)
    counts = torch.zeros(classes**2, dtype=torch.int64)
    with torch.no_grad() if with_numpy else torch.inference_mode():
        for images, labels in loader:
            scores = network.scores(images)
            logits = F.interpolate(scores, labels.shape[-2:], mode="bilinear", align_corners=False)
            found = logits.max(1)[1]
            if with_numpy:
                truth, guess = labels.cpu().numpy().flatten(), found.cpu().numpy().flatten()
                valid = (truth >= 0) & (truth < classes)
                pairs = classes * truth[valid].astype(int) + guess[valid]
                counts += torch.from_numpy(np.bincount(pairs, minlength=classes**2))
            else:
                known = (labels >= 0) & (labels < classes)
                counts += torch.bincount(
                    classes * labels[known] + found[known], minlength=classes**2
                )
    return ConfusionMatrix(classes, counts.reshape(classes, classes).numpy())


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Open, to floats, normalise."""

    def __init__(self, data: Prepared, ids: Sequence[str]) -> None:
        self.data, self.ids = data, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        id = self.ids[index]
        image = Image.open(self.data.image_path(id)).convert("RGB")
        label = np.array(Image.open(self.data.label_path(id)), dtype=np.int64)
        pixels = pil.normalize(pil.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
        return pixels, torch.from_numpy(label)


class PILViews(Dataset[tuple[Tensor, Tensor]]):
    """Open, scale image and mask, pad, crop, mirror, to floats, normalise: one after the other."""

    def __init__(self, data: Prepared, ids: Sequence[str], crop: int) -> None:
        self.data, self.ids, self.crop = data, ids, crop

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        id, crop = self.ids[index], self.crop
        image = Image.open(self.data.image_path(id)).convert("RGB")
        label = Image.open(self.data.label_path(id))
        scale = random.uniform(0.5, 2.0)
        size = [int(image.height * scale), int(image.width * scale)]
        image = pil.resize(image, size, pil.InterpolationMode.BILINEAR)
        label = pil.resize(label, size, pil.InterpolationMode.NEAREST)
        missing = [0, 0, max(0, crop - image.width), max(0, crop - image.height)]
        image = pil.pad(image, missing, fill=tuple(round(255 * value) for value in IMAGENET_MEAN))
        label = pil.pad(label, missing, fill=255)
        top = random.randint(0, image.height - crop)
        left = random.randint(0, image.width - crop)
        image, label = (pil.crop(part, top, left, crop, crop) for part in (image, label))
        if random.random() < 0.5:
            image, label = pil.hflip(image), pil.hflip(label)
        pixels = pil.normalize(pil.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
        return pixels, torch.from_numpy(np.array(label, dtype=np.int64))


class TorchvisionViews(Dataset[tuple[Tensor, Tensor]]):
    """As torchvision's references/segmentation/presets.py composes them, with transforms v2."""

    def __init__(self, data: Prepared, ids: Sequence[str], crop: int) -> None:
        self.data, self.ids = data, ids
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
        self.transform: Callable[..., Any] = v2.Compose(
            [
                v2.RandomResize(min_size=260, max_size=1040, antialias=True),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
                v2.ToDtype({tv_tensors.Image: torch.float, "others": None}, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = read_pair(self.data, self.ids[index])
        pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
        drawn, mask = self.transform(pixels, tv_tensors.Mask(torch.from_numpy(label)))
        return drawn.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).long()
