"""Training and validation loaders over a training-ready set.

Training is a sequence of seeded views: view n shows one image of the split, augmented by random
numbers that depend on the seed and n alone. Batch b is the views b * B .. (b + 1) * B - 1, so the
same seed gives the same batches on any number of workers and processes, and from any start.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from pipeline.config import TrainConfig
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.transforms import TrainTransform
from pipeline.errors import UserError


class TrainingViews(Dataset[tuple[Tensor, Tensor]]):
    """Augmented views of a split; an item's key is (view number, index of the image)."""

    def __init__(
        self, data: Prepared, ids: list[str], transform: TrainTransform | None, seed: int
    ) -> None:
        self.data = data
        self.ids = ids
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        view, index = key
        image, label = read_pair(self.data, self.ids[index])
        if self.transform is None:
            return F.to_dtype(image, torch.float32, scale=True), label.long()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(self.seed, view))
            return self.transform(image, label)


class WholeImages(Dataset[tuple[Tensor, Tensor, str]]):
    """The whole images of a split, unscaled: float32 3 x H x W in [0, 1], label H x W, id."""

    def __init__(self, data: Prepared, ids: list[str]) -> None:
        self.data = data
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        image, label = read_pair(self.data, self.ids[index])
        return F.to_dtype(image, torch.float32, scale=True), label, self.ids[index]


class ViewSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (view, image index) keys, from a given iteration on.

    Each pass over the images is a new permutation. Of each global batch, this process takes every
    `processes`-th view, starting at its rank. Its length is that of the whole training: a resumed
    Lightning loop counts the batches before the start as fetched.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        iterations: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        start: int = 0,
    ) -> None:
        if batch_size % processes:
            raise UserError(
                f"train.batch_size={batch_size}: must be a multiple of the {processes} processes"
            )
        self.images = images
        self.batch_size = batch_size
        self.iterations = iterations
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.start = start

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        pass_number, order = -1, np.empty(0, dtype=np.int64)
        for iteration in range(self.start, self.iterations):
            batch = []
            for view in range(iteration * self.batch_size, (iteration + 1) * self.batch_size):
                if view // self.images != pass_number:
                    pass_number = view // self.images
                    generator = np.random.default_rng((self.seed, pass_number))
                    order = generator.permutation(self.images)
                batch.append((view, int(order[view % self.images])))
            yield batch[self.rank :: self.processes]


class SegmentationData(LightningDataModule):
    """The train and val splits of a training-ready set.

    Args:
        data: the set.
        config: batch size, crop and augmentation.
        seed: of the views.
        fill: RGB in [0, 1] of padded pixels, the network's mean pixel.
        workers: loader processes; None: one a core, at most 8.
        start: the iteration to begin with, when a run is resumed.
    """

    def __init__(
        self,
        data: Prepared,
        config: TrainConfig,
        seed: int,
        fill: tuple[float, float, float],
        workers: int | None = None,
        start: int = 0,
    ) -> None:
        super().__init__()
        self.data = data
        self.config = config
        self.seed = seed
        self.fill = fill
        self.workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        self.start = start

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of B x 3 x c x c float32 in [0, 1] and B x c x c int64."""
        config = self.config
        ids = self.data.ids("train")
        scales = (config.scale_min, config.scale_max, config.scale_step)
        flip, photometric = config.flip, config.photometric
        if config.overfit_images is not None:
            ids = ids[: config.overfit_images]
            scales, flip, photometric = (1.0, 1.0, 1.0), False, False
        # A loader draws a seed for its workers: from a generator of its own, so that the new loader
        # of a resumed run leaves dropout's random numbers where they were.
        transform = TrainTransform(config.crop_size, *scales, flip, photometric, self.fill)
        sampler = ViewSampler(
            len(ids),
            config.batch_size,
            config.iterations,
            self.seed,
            *self._place(),
            start=self.start,
        )
        return DataLoader(
            TrainingViews(self.data, ids, transform, self.seed),
            batch_sampler=sampler,
            num_workers=self.workers,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, str]]:
        """Whole images, one a batch; over several processes each image is given once."""
        rank, processes = self._place()
        ids = self.data.ids("val")
        if self.config.overfit_images is not None:
            ids = self.data.ids("train")[: self.config.overfit_images]
        images = WholeImages(self.data, ids[rank::processes])
        return DataLoader(images, batch_size=None, generator=torch.Generator())

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def read_pair(data: Prepared, identifier: str) -> tuple[Tensor, Tensor]:
    """An image, uint8 3 x H x W, and its label, uint8 H x W."""
    image = torch.from_numpy(read_image(data.image_path(identifier)).copy())
    label = torch.from_numpy(read_label(data.label_path(identifier)).copy())
    return image.permute(2, 0, 1), label


def _mix(seed: int, view: int) -> int:
    """One 63-bit seed from two numbers, without the collisions of a sum."""
    return int(np.random.SeedSequence((seed, view)).generate_state(1, np.uint64)[0] >> 1)


def _one_thread(_: int) -> None:
    """Loader processes share the cores with the network: one thread each."""
    torch.set_num_threads(1)
