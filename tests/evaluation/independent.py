"""The figures of an evaluation once more, written from their definitions alone.

Nothing of the package is used: loops over images, classes and widths, with one boolean mask after
the other, where the package counts in histograms. Slow, and that is all right.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter, minimum_filter

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def class_ious(
    truths: Sequence[Labels],
    guesses: Sequence[Labels],
    classes: int,
    void: int = 255,
    scored: Sequence[Mask] | None = None,
) -> list[float | None]:
    """IoU of each class in percent over all images; None for a class that no true pixel has.

    Args:
        truths: class numbers and void.
        guesses: class numbers.
        classes: how many there are.
        void: left out.
        scored: of each image, the pixels that count; None: all.
    """
    ious: list[float | None] = []
    for number in range(classes):
        intersection = union = true_pixels = 0
        for index, (truth, guess) in enumerate(zip(truths, guesses, strict=True)):
            counts = truth != void
            if scored is not None:
                counts = counts & scored[index]
            is_true, is_guessed = (truth == number) & counts, (guess == number) & counts
            intersection += int(np.count_nonzero(is_true & is_guessed))
            union += int(np.count_nonzero(is_true | is_guessed))
            true_pixels += int(np.count_nonzero(is_true))
        ious.append(100.0 * intersection / union if true_pixels else None)
    return ious


def miou(
    truths: Sequence[Labels],
    guesses: Sequence[Labels],
    classes: int,
    void: int = 255,
    scored: Sequence[Mask] | None = None,
) -> float | None:
    """Their mean over the classes that occur; None where none does."""
    known = [iou for iou in class_ious(truths, guesses, classes, void, scored) if iou is not None]
    return sum(known) / len(known) if known else None


def pixel_accuracy(truths: Sequence[Labels], guesses: Sequence[Labels], void: int = 255) -> float:
    """Percent of the pixels that are predicted right."""
    right = sum(int(((t == g) & (t != void)).sum()) for t, g in zip(truths, guesses, strict=True))
    return 100.0 * right / sum(int((t != void).sum()) for t in truths)


def mean_accuracy(
    truths: Sequence[Labels], guesses: Sequence[Labels], classes: int, void: int = 255
) -> float:
    """Mean over the classes that occur of the percent of their pixels that are found."""
    recalls = []
    for number in range(classes):
        of_class = sum(int((truth == number).sum()) for truth in truths)
        pairs = zip(truths, guesses, strict=True)
        found = sum(int(((t == number) & (g == number)).sum()) for t, g in pairs)
        if number != void and of_class:
            recalls.append(100.0 * found / of_class)
    return sum(recalls) / len(recalls)


def frequency_weighted_iou(
    truths: Sequence[Labels], guesses: Sequence[Labels], classes: int, void: int = 255
) -> float:
    """IoUs weighted by how many of the true pixels have the class."""
    total = weighted = 0.0
    for number, iou in enumerate(class_ious(truths, guesses, classes, void)):
        if iou is not None:
            pixels = sum(int((truth == number).sum()) for truth in truths)
            total += pixels
            weighted += pixels * iou
    return weighted / total


def band(truth: Labels, width: int) -> Mask:
    """Pixels around which the square of side 2 * width + 1 holds another label, void or not."""
    side = 2 * width + 1
    highest = maximum_filter(truth, side, mode="nearest")
    return np.asarray(highest != minimum_filter(truth, side, mode="nearest"))


def trimap_miou(
    truths: Sequence[Labels],
    guesses: Sequence[Labels],
    classes: int,
    width: int,
    void: int = 255,
) -> float | None:
    """MIoU inside the band of one width."""
    bands = [band(truth, width) for truth in truths]
    return miou(truths, guesses, classes, void, bands)
