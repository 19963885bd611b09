"""The settings of the dense CRF, in the papers' names, and what they are checked for."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError

#: `symmetric`: both sides of the kernel are divided by the root of its sum, as pydensecrf does;
#: `after`: the filtered values are divided by it, as the papers' code is believed to do.
Normalisation = Literal["symmetric", "after"]
#: `lattice`: the permutohedral lattice, as pydensecrf; `fast`: the same on a grid of half the size,
#: whose messages meet the unary term at full size; `exact`: the kernels themselves, on a GPU (see
#: `tiled`).
Mode = Literal["lattice", "fast", "exact"]

#: The least probability of a class: -log 0 is infinite, and infinity spoils the whole map.
SMALLEST_PROBABILITY = 1e-5
#: Beyond this many sigmas across the image, the lattice's coordinates lose their precision.
MOST_SIGMAS = 3500
#: Labels are uint8.
MOST_CLASSES = 256


@dataclass(frozen=True)
class DenseCrfSettings:
    """The fully connected CRF (v1, section 2.3; v2, section 3.3).

    Raises:
        UserError: a value is outside its range.
    """

    w1: float = 4.0
    #: Pixels.
    sigma_alpha: float = 67.0
    #: Intensity levels of 0..255.
    sigma_beta: float = 3.0
    w2: float = 3.0
    #: Pixels.
    sigma_gamma: float = 1.0
    #: Mean-field steps; 0 gives the unary term back.
    iterations: int = 10
    normalisation: Normalisation = "symmetric"
    mode: Mode = "lattice"
    #: The least likely classes take no part while their greatest probabilities sum to less than
    #: this, so that no pixel loses more; one that is the likeliest anywhere always does. Most of
    #: the classes go, and with them most of the time.
    leave_out: float = 0.2

    def __post_init__(self) -> None:
        for key in ("w1", "w2", "leave_out"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"crf.{key}={value}: must be a number, 0 or more")
        for key in ("sigma_alpha", "sigma_beta", "sigma_gamma"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"crf.{key}={value}: must be a number above 0")
        if self.iterations != int(self.iterations) or self.iterations < 0:
            raise UserError(f"crf.iterations={self.iterations}: must be a whole number, 0 or more")
        for key, choices in (("normalisation", Normalisation), ("mode", Mode)):
            value, allowed = getattr(self, key), get_args(choices)
            if value not in allowed:
                raise UserError(f"crf.{key}={value}: valid: {', '.join(allowed)}")

    def shares_filters(self, other: "DenseCrfSettings") -> bool:
        """Whether a prepared `DenseCrf` serves both: they differ in weights and iterations only."""
        keys = ("sigma_alpha", "sigma_beta", "sigma_gamma", "normalisation", "mode")
        return all(getattr(self, key) == getattr(other, key) for key in keys)


def checked_image(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image in one piece of memory.

    Raises:
        ValueError: it is not H x W x 3 of uint8, or has no pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: {image.dtype} {image.shape}, wanted uint8 (height, width, 3)")
    return np.require(image, requirements=["C", "A"])


def checked_maps(
    probabilities: npt.NDArray[np.floating], height: int, width: int
) -> npt.NDArray[np.float32]:
    """The probabilities as float32, in one piece of memory; whether they are finite is not checked.

    Raises:
        ValueError: they are not C x H x W floats for the image, or have no class.
        UserError: there are too many classes.
    """
    shape = probabilities.shape
    if not np.issubdtype(probabilities.dtype, np.floating):
        raise ValueError(f"probabilities: {probabilities.dtype}, wanted float32")
    if len(shape) != 3 or shape[1:] != (height, width) or shape[0] == 0:
        raise ValueError(
            f"probabilities: {shape}, wanted (classes, {height}, {width}) as the image"
        )
    if shape[0] > MOST_CLASSES:
        raise UserError(f"the dense CRF: {shape[0]} classes, it takes {MOST_CLASSES} at most")
    return np.require(probabilities, np.float32, requirements=["C", "A"])


def check_finite(probabilities: npt.NDArray[np.float32]) -> None:
    """Name the first value that is not finite.

    Raises:
        UserError: there is one.
    """
    bad = ~np.isfinite(probabilities)
    if bad.any():
        label, row, column = (int(index) for index in np.argwhere(bad)[0])
        raise UserError(
            f"probabilities: {probabilities[label, row, column]} for class {label} at row {row}, "
            f"column {column} ({int(bad.sum())} such values); the network's weights or its input "
            "are not finite, train again with a lower train.learning_rate"
        )


def check_sigmas(settings: DenseCrfSettings, height: int, width: int) -> None:
    """Whether the lattice can tell positions and colours apart.

    Raises:
        UserError: a sigma is too narrow for it.
    """
    for key, extent in (("sigma_alpha", max(height, width)), ("sigma_beta", 255)):
        least = extent / MOST_SIGMAS
        if getattr(settings, key) < least:
            raise UserError(
                f"crf.{key}={getattr(settings, key)}: too narrow for the filter of the CRF on an "
                f"image of {width} x {height} pixels; at least {least:.3g}"
            )
