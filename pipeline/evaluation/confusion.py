"""The confusion matrix over a whole split, and the figures that come from it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.files import write_whole

if TYPE_CHECKING:
    # Reports read matrices without torch, which takes seconds to import.
    import torch

Labels = Union[npt.NDArray[Any], "torch.Tensor"]
VOID = 255


class ConfusionMatrix:
    """Pixels by true class (rows) and predicted class (columns), over any number of images.

    One matrix serves a whole split and the figures are taken from it once: the mean of per-image
    IoUs is a different figure. The counts are integers, so a sum over processes is exact, and a
    matrix can be made of summed `counts` (int64, C x C).

    A class is *absent* if no pixel of the truth has it: its figures are NaN and no mean counts
    it. A pixel wrongly predicted as an absent class still lowers the IoU of its true class.
    """

    def __init__(
        self, num_classes: int, counts: npt.NDArray[np.int64] | None = None, void: int = VOID
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: at least 1")
        if counts is None:
            counts = np.zeros((num_classes, num_classes), np.int64)
        if counts.shape != (num_classes, num_classes):
            raise ValueError(f"counts of shape {counts.shape} for {num_classes} classes")
        self.num_classes = num_classes
        self.counts = counts
        self.void = void

    def update(self, truth: Labels, prediction: Labels, source: str = "the labels") -> None:
        """Count the pixels of one or more images; those that are void in the truth are left out.

        Args:
            truth: class numbers or void, any shape; a numpy array or a tensor on any device.
            prediction: class numbers, the same shape and kind.
            source: what an error names, usually the label's file.

        Raises:
            UserError: a value of the truth is neither a class nor void.
            ValueError: the shapes differ, or a prediction is no class.
        """
        if tuple(truth.shape) != tuple(prediction.shape):
            raise ValueError(
                f"truth {tuple(truth.shape)} and prediction {tuple(prediction.shape)} differ"
            )
        valid = truth != self.void
        rows, columns = _wide(truth[valid]), _wide(prediction[valid])
        check_truth(rows, self.num_classes, self.void, source)
        check_prediction(columns, self.num_classes)
        self.counts += _bincount(rows * self.num_classes + columns, self.num_classes**2).reshape(
            self.counts.shape
        )

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        if (self.num_classes, self.void) != (other.num_classes, other.void):
            raise ValueError(
                f"{self.num_classes} classes (void {self.void}) and "
                f"{other.num_classes} (void {other.void}) cannot be added"
            )
        return ConfusionMatrix(self.num_classes, self.counts + other.counts, self.void)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        return self.void == other.void and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # it changes with every update

    def reset(self) -> None:
        """Start again from no pixels."""
        self.counts[:] = 0

    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes occur in the truth, shape C."""
        return np.asarray(self.counts.sum(axis=1) > 0)

    def sums(self) -> npt.NDArray[np.int64]:
        """The pixels of each class that are hit, true and predicted, 3 x C."""
        return np.stack([np.diag(self.counts), self.counts.sum(axis=1), self.counts.sum(axis=0)])

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each class in percent, shape C; NaN where absent.

        IoU = TP / (TP + FP + FN) (Everingham et al. 2015, section 4.1.3).
        """
        return class_ious(self.sums())

    def miou(self) -> float:
        """Mean IoU over the classes that are present, in percent; NaN without any pixel."""
        return float(mean_iou(self.sums()))

    def frequency_weighted_iou(self) -> float:
        """Mean IoU weighted by each class's share of the true pixels; NaN without any pixel.

        Long, Shelhamer and Darrell 2015 (arXiv 1411.4038), section 5.
        """
        present = self.present()
        if not present.any():
            return float("nan")
        return float(np.average(self.iou()[present], weights=self.counts.sum(axis=1)[present]))

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Share of each class's pixels that were found, in percent, shape C; NaN where absent."""
        hits, true, _ = self.sums()
        return _percent(hits, true, true > 0)

    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that are present; NaN without any pixel."""
        return _mean(self.accuracy())

    def pixel_accuracy(self) -> float:
        """Share of the pixels that are predicted right, in percent; NaN without any pixel."""
        total = int(self.counts.sum())
        return 100.0 * int(np.trace(self.counts)) / total if total else float("nan")

    def write_csv(self, path: Path, classes: Sequence[str]) -> None:
        """Write the counts: header = names of the classes, rows = truth, columns = prediction."""
        if len(classes) != self.num_classes:
            raise ValueError(f"{len(classes)} names for {self.num_classes} classes")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(classes)
        writer.writerows(self.counts.tolist())
        write_whole(path, text.getvalue())


def class_ious(sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """IoU of each class in percent; NaN where the class is absent from the truth.

    Args:
        sums: ... x 3 x C, the pixels of each class that are hit, true and predicted.

    Returns:
        ... x C.
    """
    hits, true, predicted = np.moveaxis(sums, -2, 0)
    return _percent(hits, true + predicted - hits, true > 0)


def mean_iou(sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean of `class_ious` over the classes that are present, shape ...; NaN where none is."""
    ious = class_ious(sums)
    present = ~np.isnan(ious)
    return _percent(np.nansum(ious, axis=-1) / 100, present.sum(axis=-1), present.any(axis=-1))


def read_csv(path: Path) -> tuple[list[str], ConfusionMatrix]:
    """The names of the classes and the matrix that `write_csv` wrote.

    Raises:
        UserError: the file is missing, or holds no square matrix of counts.
    """
    remedy = "run `dvc repro evaluate` again"
    if not path.is_file():
        raise UserError(f"{path}: no such confusion matrix; {remedy}")
    with path.open(newline="") as file:
        classes, *rows = list(csv.reader(file)) or [[]]
    try:
        counts = np.array([[int(value) for value in row] for row in rows], np.int64)
    except ValueError as error:
        raise UserError(f"{path}: not a table of pixel counts ({error}); {remedy}") from error
    if not classes or counts.shape != (len(classes), len(classes)):
        raise UserError(
            f"{path}: {len(classes)} names over counts of shape {counts.shape}; {remedy}"
        )
    return classes, ConfusionMatrix(len(classes), counts)


def check_truth(labels: Any, num_classes: int, void: int, source: str) -> None:
    """Refuse a truth that holds what is no class, void being left out already."""
    if not _all_within(labels, num_classes):
        raise UserError(
            f"{source}: value {_first_outside(labels, num_classes)} is neither a class "
            f"(0..{num_classes - 1}) nor void ({void}); correct the label, or the data set's list "
            "of classes"
        )


def check_prediction(labels: Any, num_classes: int) -> None:
    """Refuse a prediction that holds what is no class."""
    if not _all_within(labels, num_classes):
        value = _first_outside(labels, num_classes)
        raise ValueError(f"prediction {value} is no class (0..{num_classes - 1})")


# uint8 class numbers would overflow in `row * C + column`; tensors are told from arrays by type
# alone, so that this module needs no torch.


def _wide(labels: Labels) -> Any:
    return labels.astype(np.int64) if isinstance(labels, np.ndarray) else labels.long()


def _all_within(labels: Any, num_classes: int) -> bool:
    return not bool(((labels < 0) | (labels >= num_classes)).any())


def _first_outside(labels: Any, num_classes: int) -> int:
    return int(labels[(labels < 0) | (labels >= num_classes)][0])


def _bincount(indices: Any, length: int) -> npt.NDArray[np.int64]:
    if isinstance(indices, np.ndarray):
        return np.bincount(indices, minlength=length).astype(np.int64)
    counts: npt.NDArray[np.int64] = indices.bincount(minlength=length).cpu().numpy()
    return counts


def _percent(part: Any, whole: Any, known: Any) -> npt.NDArray[np.float64]:
    """100 part / whole where `known`, NaN elsewhere."""
    figures = np.full(np.shape(part), np.nan)
    return np.divide(100.0 * part, whole, out=figures, where=known)


def _mean(figures: npt.NDArray[np.float64]) -> float:
    known = figures[~np.isnan(figures)]
    return float(known.mean()) if known.size else float("nan")
