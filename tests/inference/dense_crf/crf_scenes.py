"""Pictures and class maps for the tests of the dense CRF."""

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]


def scene(
    seed: int, classes: int = 4, height: int = 40, width: int = 60, texture: float = 2.0
) -> tuple[Image, Maps]:
    """Discs on a ground, one colour a class, and maps as a network's: smooth, wrong near borders.

    Args:
        seed: of everything random.
        classes: how many; the maps favour the class of the disc, a few pixels beside it.
        height: of the image.
        width: of the image.
        texture: standard deviation of the colours' noise.
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int64)
    rows, columns = np.mgrid[:height, :width]
    for label in range(1, classes):
        middle = generator.uniform(0, 1, 2) * (height, width)
        radius = generator.uniform(0.15, 0.35) * min(height, width)
        labels[np.hypot(rows - middle[0], columns - middle[1]) < radius] = label
    colours = generator.integers(20, 236, (classes, 3))
    noise = generator.normal(0, texture, (height, width, 3))
    image = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)

    shifted = np.roll(labels, generator.integers(-3, 4, 2), (0, 1))
    scores = 3.0 * (shifted == np.arange(classes)[:, None, None])
    for axis in (1, 2):
        scores = (np.roll(scores, 1, axis) + scores + np.roll(scores, -1, axis)) / 3
    scores += generator.normal(0, 0.3, scores.shape)
    return image, softmax(scores)


def softmax(scores: npt.NDArray[np.float64]) -> Maps:
    """Over the first axis."""
    exponents = np.exp(scores)
    return (exponents / exponents.sum(axis=0)).astype(np.float32)


def differing(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> float:
    """The share of pixels where two label maps differ."""
    assert first.shape == second.shape
    return float((first != second).mean())
