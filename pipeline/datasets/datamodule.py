"""Training and validation loaders over a training-ready set.

Training is a sequence of seeded views: view n shows one image of the split, augmented by random
numbers that depend on the seed and n alone. Batch b is the views b * B .. (b + 1) * B - 1, so the
same seed gives the same batches on any number of workers and processes, and from any start.

Pixels stay whole numbers of 8 bits until they are where the network is: a batch that passes from a
loader process to training is then a quarter the size, and its labels an eighth.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.config import TrainConfig
from pipeline.cores import core_count
from pipeline.datasets.decoded import DecodedPairs
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.prepared import Prepared
from pipeline.datasets.transforms import TrainTransform
from pipeline.errors import UserError, nearest


class LoaderError(UserError):
    """A file that cannot be read, met by a loader process: one line, as everywhere.

    Such a process hands an exception on by its type and the text of its traceback, the last line of
    which is what it said.
    """

    def __init__(self, message: str) -> None:
        name = f"{LoaderError.__module__}.{LoaderError.__qualname__}: "
        super().__init__(message.splitlines()[-1].removeprefix(name))


class TrainingViews(Dataset[tuple[Tensor, Tensor]]):
    """Augmented views of images; an item's key is (view number, index of the image).

    Args:
        data: the set.
        ids: the images, in the order of their indices.
        transform: what a view shows of an image.
        seed: of the views.
        decoded: where images are kept decoded; None: they are decoded for each view.
    """

    def __init__(
        self,
        data: Prepared,
        ids: list[str],
        transform: TrainTransform,
        seed: int,
        decoded: Path | None = None,
    ) -> None:
        self.data = data
        self.ids = ids
        self.transform = transform
        self.seed = seed
        self.pairs = None if decoded is None else DecodedPairs(data, decoded)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        view, index = key
        id = self.ids[index]
        try:
            image, label = read_pair(self.data, id) if self.pairs is None else self.pairs.read(id)
        except UserError as error:
            raise LoaderError(str(error)) from None
        return self.transform(image, label, np.random.default_rng((self.seed, view)))


class WholeImages(Dataset[tuple[Tensor, Tensor, str]]):
    """The whole images of a split, unscaled: uint8 H x W x 3, label H x W, id."""

    def __init__(self, data: Prepared, ids: list[str]) -> None:
        self.data = data
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        image, label = read_pair(self.data, self.ids[index])
        return torch.from_numpy(image), torch.from_numpy(label), self.ids[index]


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
    """The training and val splits of a training-ready set.

    Args:
        data: the set.
        config: split, batch size, crop and augmentation.
        seed: of the views.
        fill: RGB in [0, 1] of padded pixels, the network's mean pixel.
        workers: loader processes; None: one a core, at most 8.
        start: the iteration to begin with, when a run is resumed.
        decoded: a folder in which images are kept decoded; None: they are decoded for each view.

    Raises:
        UserError: `train.split` or a class of `train.repeat` is not in the data set.
    """

    def __init__(
        self,
        data: Prepared,
        config: TrainConfig,
        seed: int,
        fill: tuple[float, float, float],
        workers: int | None = None,
        start: int = 0,
        decoded: Path | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.config = config
        self.seed = seed
        self.fill = fill
        self.workers = min(core_count(), 8) if workers is None else workers
        self.start = start
        self.decoded = decoded
        self.training_ids = images_of_a_pass(data, config)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches of B x c x c x 3 and B x c x c, both uint8."""
        config = self.config
        scales = (config.scale_min, config.scale_max, config.scale_step)
        flip, photometric = config.flip, config.photometric
        if config.overfit_images is not None:
            scales, flip, photometric = (1.0, 1.0, 1.0), False, False
        transform = TrainTransform(config.crop_size, *scales, flip, photometric, self.fill)
        sampler = ViewSampler(
            len(self.training_ids),
            config.batch_size,
            config.iterations,
            self.seed,
            *self._place(),
            start=self.start,
        )
        # A loader draws a seed for its workers: from a generator of its own, so that the new loader
        # of a resumed run leaves dropout's random numbers where they were.
        return DataLoader(
            TrainingViews(self.data, self.training_ids, transform, self.seed, self.decoded),
            batch_sampler=sampler,
            num_workers=self.workers,
            worker_init_fn=_one_thread,
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor, str]]:
        """Whole images, one a batch; over several processes each image is given once."""
        rank, processes = self._place()
        overfit = self.config.overfit_images is not None
        ids = self.training_ids if overfit else self.data.ids("val")
        if processes > len(ids):
            raise UserError(
                f"trainer.devices: {processes} processes, but only {len(ids)} images to validate; "
                "take fewer"
            )
        images = WholeImages(self.data, ids[rank::processes])
        return DataLoader(images, batch_size=None, generator=torch.Generator())

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, str], dataloader_idx: int
    ) -> tuple[Tensor | str, ...]:
        """Images to float32 ... x 3 x H x W in [0, 1], labels to int64, where the network is."""
        images, labels, *names = batch
        return as_floats(images), labels.long(), *names

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def images_of_a_pass(data: Prepared, config: TrainConfig) -> list[str]:
    """The images that one pass over the training data shows.

    Those of `train.split`, and once more those that show a class of `train.repeat`: the
    bootstrapping on hard images of v3, section 4.3.

    Raises:
        UserError: no such split, or no such class.
    """
    if config.split not in data.splits:
        raise UserError(
            f"train.split={config.split}: data set {data.name} has no such split; "
            f"{nearest(config.split, data.splits)}"
        )
    ids = data.ids(config.split)
    if config.overfit_images is not None:
        return ids[: config.overfit_images]
    for name in config.repeat:
        if name not in data.classes:
            raise UserError(
                f"train.repeat: data set {data.name} has no class {name}; "
                f"{nearest(name, data.classes)}"
            )
    hard = {data.classes.index(name) for name in config.repeat}
    return ids + [id for id in ids if hard.intersection(data.shows[id])] if hard else ids


def read_pair(data: Prepared, id: str) -> tuple[np.ndarray, np.ndarray]:
    """An image, uint8 H x W x 3, and its label, uint8 H x W."""
    return read_image(data.image_path(id)).copy(), read_label(data.label_path(id)).copy()


def as_floats(images: Tensor) -> Tensor:
    """uint8 ... x H x W x 3 to float32 ... x 3 x H x W in [0, 1], in channels-last memory."""
    return images.movedim(-1, -3).to(torch.float32).div_(255)


def _one_thread(_: int) -> None:
    """Loader processes share the cores with the network: one thread each."""
    torch.set_num_threads(1)
