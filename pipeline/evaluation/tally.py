"""What is counted over a split, for every mode at once: all figures of an evaluation come from it.

Integers throughout: the tallies of several processes add up to exactly that of one.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.evaluation.confusion import VOID, ConfusionMatrix, check_prediction, check_truth
from pipeline.evaluation.trimap import WIDTHS, band_index
from pipeline.files import write_whole

Labels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]


class Tally:
    """Confusion matrices, counts by image and counts by distance from a border, of every mode.

    Args:
        num_classes: C.
        modes: ways in which the network was run; names of the predictions that are counted.
        void: the truth's value that is left out.
        trimap_widths: W widths of the band around the borders in pixels, rising; () for none.
    """

    def __init__(
        self,
        num_classes: int,
        modes: Sequence[str],
        void: int = VOID,
        trimap_widths: Sequence[int] = WIDTHS,
    ) -> None:
        widths = tuple(trimap_widths)
        if any(width < 1 for width in widths) or sorted(set(widths)) != list(widths):
            raise ValueError(f"trimap_widths={widths}: whole pixels from 1, rising")
        self.num_classes, self.modes, self.void = num_classes, tuple(modes), void
        self.trimap_widths = widths
        self.matrices = {mode: ConfusionMatrix(num_classes, void=void) for mode in self.modes}
        #: Mode -> 3 x C for each image, in order: hits, pixels in the truth, pixels predicted.
        self.per_image: dict[str, list[npt.NDArray[np.int32]]] = {mode: [] for mode in self.modes}
        #: Mode -> 3 x C x W, the same over all images inside each band around the borders.
        self.trimap = {
            mode: np.zeros((3, num_classes, len(widths)), np.int64) for mode in self.modes
        }

    @property
    def images(self) -> int:
        """How many images were added."""
        return len(self.per_image[self.modes[0]]) if self.modes else 0

    def add(self, truth: Labels, labels: Mapping[str, Labels], source: str = "the labels") -> None:
        """Count one image in all modes.

        Args:
            truth: H x W, class numbers or void.
            labels: mode -> H x W class numbers; what stands under void does not matter.
            source: what an error names, usually the label's file.

        Raises:
            UserError: a value of the truth is neither a class nor void.
            ValueError: the modes or the shapes differ, or a prediction is no class.
        """
        if set(labels) != set(self.modes):
            raise ValueError(f"labels of {sorted(labels)} for the modes {sorted(self.modes)}")
        for mode in self.modes:
            if labels[mode].shape != truth.shape:
                raise ValueError(f"truth {truth.shape} and {mode} {labels[mode].shape} differ")
        valid = np.flatnonzero(truth.ravel() != self.void)
        true = _taken(truth, valid)
        check_truth(true, self.num_classes, self.void, source)
        predicted = {mode: _taken(labels[mode], valid) for mode in self.modes}
        for found in predicted.values():
            check_prediction(found, self.num_classes)
        for mode in self.modes:
            self._count(mode, true, predicted[mode])
        if not self.trimap_widths:
            return
        bands = band_index(truth, self.trimap_widths).ravel()[valid]
        inside = np.flatnonzero(bands < len(self.trimap_widths))
        true, bands = true[inside], bands[inside]
        in_truth = self._by_band(true, bands)
        for mode in self.modes:
            found = predicted[mode][inside]
            # In one histogram: hits in the lower half, errors in the upper.
            parts = self._by_band(found + self.num_classes * (found != true), bands, halves=2)
            hits = parts[: self.num_classes]
            self.trimap[mode] += [hits, in_truth, hits + parts[self.num_classes :]]

    def _count(self, mode: str, true: Indices, predicted: Indices) -> None:
        classes = self.num_classes
        counts = np.bincount(true * classes + predicted, minlength=classes**2)
        image = ConfusionMatrix(classes, counts.reshape(classes, classes), self.void)
        self.matrices[mode].counts += image.counts
        self.per_image[mode].append(image.sums().astype(np.int32))

    def _by_band(self, classes: Indices, bands: Indices, halves: int = 1) -> npt.NDArray[np.int64]:
        """Pixels of each class inside each band, (halves * C) x W."""
        shape = halves * self.num_classes, len(self.trimap_widths)
        counts = np.bincount(classes * shape[1] + bands, minlength=shape[0] * shape[1])
        return np.asarray(counts.reshape(shape).cumsum(axis=1), np.int64)

    def __add__(self, other: "Tally") -> "Tally":
        total = Tally(self.num_classes, self.modes, self.void, self.trimap_widths)
        total += self
        total += other
        return total

    def __iadd__(self, other: "Tally") -> "Tally":
        if self._kind() != other._kind():
            raise ValueError(f"tallies of {self._kind()} and of {other._kind()} cannot be added")
        for mode in self.modes:
            self.matrices[mode].counts += other.matrices[mode].counts
            self.per_image[mode] += other.per_image[mode]
            self.trimap[mode] += other.trimap[mode]
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        mine, theirs = self.arrays(), other.arrays()
        return self._kind() == other._kind() and all(
            np.array_equal(mine[name], theirs[name]) for name in mine
        )

    __hash__ = None  # type: ignore[assignment]  # it changes with every image

    def _kind(self) -> tuple[Any, ...]:
        return self.num_classes, self.modes, self.void, self.trimap_widths

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything as arrays, from which `from_arrays` makes it again."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "kind": np.array([self.num_classes, self.void]),
            "modes": np.array(self.modes, np.str_),
            "widths": np.array(self.trimap_widths, np.int64),
        }
        for mode in self.modes:
            images = self.per_image[mode]
            arrays[f"confusion/{mode}"] = self.matrices[mode].counts
            arrays[f"images/{mode}"] = np.array(images, np.int32).reshape(-1, 3, self.num_classes)
            arrays[f"trimap/{mode}"] = self.trimap[mode]
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Tally":
        """The tally whose `arrays` these are."""
        num_classes, void = map(int, arrays["kind"])
        modes = [str(mode) for mode in arrays["modes"]]
        tally = cls(num_classes, modes, void, [int(width) for width in arrays["widths"]])
        for mode in modes:
            counts = arrays[f"confusion/{mode}"]
            tally.matrices[mode] = ConfusionMatrix(num_classes, counts.astype(np.int64), void)
            tally.per_image[mode] = list(arrays[f"images/{mode}"].astype(np.int32))
            tally.trimap[mode] = arrays[f"trimap/{mode}"].astype(np.int64)
        return tally


def _taken(labels: Labels, places: Indices) -> Indices:
    """Some of the labels, wide enough for `class * C + class`."""
    return labels.ravel()[places].astype(np.intp)


def write_counts(path: Path, tally: Tally, ids: Sequence[str]) -> None:
    """Write a tally and the ids of its images, in the order in which they were added, as .npz."""
    if len(ids) != tally.images:
        raise ValueError(f"{len(ids)} ids for {tally.images} images")
    file = io.BytesIO()
    np.savez_compressed(file, ids=np.array(ids, np.str_), **tally.arrays())  # type: ignore[arg-type]
    write_whole(path, file.getvalue())


def read_counts(path: Path) -> tuple[list[str], Tally]:
    """The ids and the tally that `write_counts` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    remedy = "run `dvc repro evaluate` again"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [str(id) for id in arrays["ids"]], Tally.from_arrays(arrays)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such counts; {remedy}") from error
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not the counts of an evaluation ({error}); {remedy}") from error
