"""Score a network on a whole split: single and multi-scale, each without and with the CRF."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from pipeline.config import CrfConfig, EvaluateConfig
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.pictures import overlay
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.confusion import ConfusionMatrix
from pipeline.evaluation.figures import MODES
from pipeline.inference.crf import CrfPool
from pipeline.inference.whole_image import Network, single_and_multi_scale

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One image of the split with its truth, at its own size."""

    id: str
    image: npt.NDArray[np.uint8]
    truth: Labels
    #: What an error names.
    label_path: Path
    #: Whether its pictures are saved.
    shown: bool


def score(
    network: Network,
    device: torch.device,
    data: Prepared,
    evaluate: EvaluateConfig,
    crf: CrfConfig,
    pictures: Path,
    workers: int | None = None,
    progress_bar: bool = True,
) -> dict[str, ConfusionMatrix]:
    """One confusion matrix a mode over the split, at the ground truth's own size.

    The network runs here, the CRF in processes beside it. Memory does not grow with the split.

    Args:
        network: in evaluation mode, on `device`.
        device: where it runs.
        data: the training-ready set.
        evaluate: split, scales, flip, padding, how many pictures.
        crf: its settings.
        pictures: folder for <id>/{image,truth,<mode>}.png of images spread over the split.
        workers: CRF processes; 0: none, None: one a core.
        progress_bar: whether to show one.

    Returns:
        Mode -> matrix, for each of `MODES`.

    Raises:
        UserError: the split is empty or wholly void, an image and its label differ in size, a
            label holds what is no class, or the network's output does not fit the data set.
    """
    scoring = _Scoring(network, device, data, evaluate, pictures)
    with CrfPool(crf, workers) as pool, _progress(progress_bar) as progress:
        task = progress.add_task(f"evaluate {evaluate.split}", total=len(scoring.ids))
        for (example, mode), labels in pool.refine_all(scoring.jobs()):
            scoring.record(example, mode, labels)
            progress.advance(task, int(mode == MODES[-1]))
    if not scoring.matrices["single"].counts.any():
        raise UserError(
            f"evaluate.split={evaluate.split}: every pixel of {data.name} is void there, nothing "
            "can be scored; choose a split with labels"
        )
    return scoring.matrices


class _Scoring:
    """The state of one pass over a split: the matrices, and what is shown."""

    def __init__(
        self,
        network: Network,
        device: torch.device,
        data: Prepared,
        evaluate: EvaluateConfig,
        pictures: Path,
    ) -> None:
        self.network, self.device, self.data = network, device, data
        self.evaluate, self.pictures = evaluate, pictures
        self.ids = data.ids(evaluate.split)
        if not self.ids:
            raise UserError(
                f"evaluate.split={evaluate.split}: {data.name} has no images there; choose "
                f"another of {', '.join(name for name, ids in data.splits.items() if ids)}"
            )
        self.matrices = {mode: ConfusionMatrix(len(data.classes), void=data.void) for mode in MODES}
        self.shown = spread(len(self.ids), evaluate.pictures)

    def jobs(self) -> Iterator[tuple[tuple[Example, str], Labels, npt.NDArray[np.float32]]]:
        """Run the network on image after image; what the CRF is to refine comes out."""
        for index, id in enumerate(self.ids):
            example = self._read(id, index in self.shown)
            for mode, maps in self._predict(example).items():
                self.record(example, mode, maps.argmax(dim=0).to(torch.uint8).cpu().numpy())
                yield (example, f"{mode}_crf"), example.image, maps.cpu().numpy()

    def record(self, example: Example, mode: str, labels: Labels) -> None:
        """Count one prediction, and save its picture if this image is shown."""
        self.matrices[mode].update(example.truth, labels, source=str(example.label_path))
        if example.shown:
            self._save(example, mode, overlay(example.image, labels, self.data.palette))

    def _read(self, id: str, shown: bool) -> Example:
        image_path, label_path = self.data.image_path(id), self.data.label_path(id)
        image, truth = read_image(image_path), read_label(label_path)
        if image.shape[:2] != truth.shape:
            raise UserError(
                f"{label_path}: {truth.shape[1]} x {truth.shape[0]} pixels, but {image_path} has "
                f"{image.shape[1]} x {image.shape[0]}; run `dvc repro -f augment`"
            )
        example = Example(id, image, truth, label_path, shown)
        if shown:
            self._save(example, "image", image)
            self._save(example, "truth", overlay(image, truth, self.data.palette))
        return example

    def _predict(self, example: Example) -> Mapping[str, Tensor]:
        pixels = torch.from_numpy(example.image.copy()).permute(2, 0, 1).to(self.device)
        settings = self.evaluate
        single, multi = single_and_multi_scale(
            self.network, pixels.float() / 255, settings.scales, settings.flip, settings.pad_to
        )
        if single.shape[0] != len(self.data.classes):
            raise UserError(
                f"the network has {single.shape[0]} classes, data set {self.data.name} has "
                f"{len(self.data.classes)}; train on this data set first"
            )
        if not bool(torch.isfinite(single).all() and torch.isfinite(multi).all()):
            raise UserError(
                f"{self.data.image_path(example.id)}: the network's probabilities are not finite; "
                "its training diverged, train again with a lower train.learning_rate"
            )
        return {"single": single, "ms_flip": multi}

    def _save(self, example: Example, name: str, picture: npt.NDArray[np.uint8]) -> None:
        folder = self.pictures / example.id
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")


def spread(length: int, count: int) -> set[int]:
    """`count` indices of 0 .. length - 1, the middles of as many equal shares; all if fewer."""
    count = min(count, length)
    return {(2 * number + 1) * length // (2 * count) for number in range(count)}


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=not shown,
    )
