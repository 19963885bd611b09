"""Score the stored logits of a split: single and multi-scale, each without and with the CRF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.config import CrfConfig, EvaluateConfig, TrainerConfig
from pipeline.cores import core_count
from pipeline.datasets.images import read_image, read_label
from pipeline.datasets.pictures import overlay, palette_picture
from pipeline.datasets.prepared import Prepared
from pipeline.errors import UserError
from pipeline.evaluation.figures import MODES
from pipeline.evaluation.tally import Tally
from pipeline.inference.crf import refine, releases_lock
from pipeline.inference.logits import StoredLogits
from pipeline.inference.passes import labels_of
from pipeline.inference.progress import progress
from pipeline.inference.seconds import Seconds
from pipeline.inference.side_by_side import in_order

Labels = npt.NDArray[np.uint8]
#: The modes whose label maps are kept, of every image.
KEPT = ("single", "single_crf")


@dataclass(frozen=True)
class Scoring:
    """Everything that happens to one image; called on an id, in a thread or a process."""

    data: Prepared
    logits: StoredLogits
    crf: CrfConfig
    #: For pictures/<id>/{image,truth,<mode>}.png, and labels/<mode>/<id>.png of `KEPT`.
    folder: Path
    #: Ids whose pictures are saved.
    shown: frozenset[str]

    def __call__(self, id: str) -> tuple[Tally, dict[str, float]]:
        """The counts of one image, and the seconds of each part of the work."""
        seconds = Seconds()
        with seconds.part("reading"):
            image, truth = self._read(id)
        with seconds.part("upsampling"):
            maps = self._probabilities(id, image)
            labels = {mode: labels_of(found) for mode, found in maps.items()}
        with seconds.part("CRF"):
            labels["single_crf"] = refine(image, maps["single"], self.crf)
            same = maps["ms_flip"] is maps["single"]
            labels["ms_flip_crf"] = (
                labels["single_crf"] if same else refine(image, maps["ms_flip"], self.crf)
            )
        with seconds.part("tally"):
            tally = Tally(len(self.data.classes), MODES, self.data.void)
            tally.add(truth, labels, source=str(self.data.label_path(id)))
        if id in self.shown:
            with seconds.part("pictures"):
                self._save(id, image, {"truth": truth} | {mode: labels[mode] for mode in MODES})
        with seconds.part("label maps"):
            for mode in KEPT:
                path = self.folder / "labels" / mode / f"{id}.png"
                palette_picture(labels[mode], self.data.palette).save(path)
        return tally, seconds.parts

    def _read(self, id: str) -> tuple[npt.NDArray[np.uint8], Labels]:
        image_path, label_path = self.data.image_path(id), self.data.label_path(id)
        image, truth = read_image(image_path), read_label(label_path)
        if image.shape[:2] != truth.shape:
            raise UserError(
                f"{label_path}: {truth.shape[1]} x {truth.shape[0]} pixels, but {image_path} has "
                f"{image.shape[1]} x {image.shape[0]}; run `dvc repro -f augment`"
            )
        return image, truth

    def _probabilities(
        self, id: str, image: npt.NDArray[np.uint8]
    ) -> dict[str, npt.NDArray[np.float32]]:
        maps = self.logits.probabilities(id)
        if maps["single"].shape[1:] != image.shape[:2]:
            raise UserError(
                f"{self.data.image_path(id)}: of another size than the network saw; "
                f"{self.logits.remedy}"
            )
        return maps

    def _save(self, id: str, image: npt.NDArray[np.uint8], labels: Mapping[str, Labels]) -> None:
        folder = self.folder / "pictures" / id
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "image.png")
        for name, values in labels.items():
            picture = overlay(image, values, self.data.palette)
            Image.fromarray(picture).save(folder / f"{name}.png")


def score(
    data: Prepared,
    logits: StoredLogits,
    ids: Sequence[str],
    evaluate: EvaluateConfig,
    crf: CrfConfig,
    folder: Path,
    trainer: TrainerConfig,
) -> tuple[Tally, Seconds]:
    """Count every image in all of `MODES`, at the ground truth's own size.

    Images are worked on side by side, each from file to counts; the counts are the same integers on
    any number of workers. Memory does not grow with the split.

    Args:
        data: the training-ready set.
        logits: of its split.
        ids: which images are counted, and in which order.
        evaluate: split, how many pictures.
        crf: its settings.
        folder: for pictures/<id>/{image,truth,<mode>}.png of images spread over the split, and
            labels/<mode>/<id>.png, the label maps of `KEPT`, of every image.
        trainer: workers and the progress bar.

    Returns:
        The counts, and the seconds of each part of the work.

    Raises:
        UserError: the images are wholly void, an image and its label differ in size, a label holds
            what is no class, or stored logits are missing or damaged.
    """
    shown = frozenset(ids[index] for index in spread(len(ids), evaluate.pictures))
    scoring = Scoring(data, logits, crf, folder, shown)
    for mode in KEPT:
        (folder / "labels" / mode).mkdir(parents=True, exist_ok=True)
    workers = core_count() if trainer.workers is None else trainer.workers
    total, seconds = Tally(len(data.classes), MODES, data.void), Seconds()
    with progress(trainer.progress_bar) as bar:
        task = bar.add_task(f"evaluate {evaluate.split}", total=len(ids))
        for tally, parts in in_order(scoring, ids, workers, threads=releases_lock(crf)):
            total += tally
            seconds.add(parts)
            bar.advance(task)
    if not total.matrices["single"].counts.any():
        raise UserError(
            f"evaluate.split={evaluate.split}: every pixel of {data.name} is void there, nothing "
            "can be scored; choose a split with labels"
        )
    return total, seconds


def spread(length: int, count: int) -> set[int]:
    """`count` indices of 0 .. length - 1, the middles of as many equal shares; all if fewer."""
    count = min(count, length)
    return {(2 * number + 1) * length // (2 * count) for number in range(count)}
