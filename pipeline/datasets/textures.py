"""Random numbers, textures and light that come out the same on every machine.

numpy promises a fixed stream only for its bit generators (NEP 19), so the draws here are made from
their raw words; everything after that is elementwise + - * / on float64 (see `outlines.py`).
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pipeline.datasets.outlines import DIRECTIONS, Array, Point, turn

Colour = tuple[float, float, float]
T = TypeVar("T")


class Dice:
    """Random draws from raw PCG64 words, keyed by non-negative integers."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def fractions(self, *shape: int) -> Array:
        """Uniform float64 in [0, 1)."""
        words = self._bits.random_raw(int(np.prod(shape))).reshape(shape)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def uniform(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(self.fractions(1)[0])

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + (int(self._bits.random_raw()) >> 32) * (high - low + 1) // 2**32

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform(0.0, 1.0) < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in random order."""
        rest = list(options)
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in options]


def noise(dice: Dice, x: Array, y: Array, cell: float) -> Array:
    """Value noise in -1..1, smooth, with features of about `cell` units; (rows, columns)."""
    columns, across = _cells(x, cell)
    rows, down = _cells(y, cell)
    knots = 2.0 * dice.fractions(int(rows.max()) + 2, int(columns.max()) + 2) - 1.0
    upper_left, upper_right = knots[rows, columns], knots[rows, columns + 1]
    lower_left, lower_right = knots[rows + 1, columns], knots[rows + 1, columns + 1]
    upper = upper_left + (upper_right - upper_left) * across
    lower = lower_left + (lower_right - lower_left) * across
    return upper + (lower - upper) * down


def _cells(positions: Array, cell: float) -> tuple[Array, Array]:
    """The lattice cell of each position and the smoothed way through it."""
    scaled = positions / cell
    whole = np.floor(scaled)
    part = scaled - whole
    return whole.astype(np.int64), part * part * (3.0 - 2.0 * part)


def triangle(phase: Array) -> Array:
    """A wave of period 1 between -1 and 1, straight up and straight down."""
    return 4.0 * np.abs(phase - np.floor(phase) - 0.5) - 1.0


def blend(first: Array | Colour, second: Array | Colour, share: Array) -> Array:
    """Two colours, the second where `share` is 1; (rows, columns, 3)."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return a + (b - a) * share[..., None]


def step(values: Array, sharpness: float) -> Array:
    """0 for negative and 1 for positive values, with a ramp of width 1 / sharpness."""
    return np.minimum(np.maximum(values * sharpness + 0.5, 0.0), 1.0)


def plain(dice: Dice, x: Array, y: Array, colour: Colour) -> Array:
    """One colour, a little uneven."""
    return np.asarray(colour) + 12.0 * noise(dice, x, y, 9.0)[..., None]


def meadow(dice: Dice, x: Array, y: Array, first: Colour, second: Colour) -> Array:
    """Two soils in large patches with grass of three sizes; the background."""
    patches = step(noise(dice, x, y, 37.0) + 0.4 * noise(dice, x, y, 11.0), 1.5)
    grass = 13.0 * noise(dice, x, y, 13.0) + 15.0 * noise(dice, x, y, 5.0)
    return blend(first, second, patches) + (grass + 15.0 * noise(dice, x, y, 2.0))[..., None]


def waves(dice: Dice, x: Array, y: Array, trough: Colour, crest: Colour) -> Array:
    """Wavy lines of changing distance."""
    along, _ = turn(x, y, (0.0, 0.0), dice.pick(DIRECTIONS))
    phase = along / dice.uniform(6.0, 9.0) + 1.1 * noise(dice, x, y, 19.0)
    height = 0.5 + 0.5 * triangle(phase) * (0.7 + 0.3 * noise(dice, x, y, 8.0))
    return blend(trough, crest, height) + 8.0 * noise(dice, x, y, 3.0)[..., None]


def speckle(dice: Dice, x: Array, y: Array, ground: Colour, spots: Colour) -> Array:
    """Spots strewn on a ground."""
    return blend(plain(dice, x, y, ground), spots, step(noise(dice, x, y, 2.7) - 0.3, 4.0))


def stripes(dice: Dice, x: Array, y: Array, first: Colour, second: Colour) -> Array:
    """Straight stripes."""
    along, _ = turn(x, y, _shift(dice), dice.pick(DIRECTIONS))
    wave = triangle(along / dice.uniform(5.0, 7.5))
    return blend(plain(dice, x, y, first), second, step(wave, 2.0))


def checks(dice: Dice, x: Array, y: Array, first: Colour, second: Colour) -> Array:
    """A chessboard."""
    along, across = turn(x, y, _shift(dice), dice.pick(DIRECTIONS))
    period = dice.uniform(7.0, 9.5)
    product = triangle(along / period) * triangle(across / period)
    return blend(plain(dice, x, y, first), second, step(product, 5.0))


def _shift(dice: Dice) -> Point:
    return dice.uniform(-9.0, 0.0), dice.uniform(-9.0, 0.0)


def light(dice: Dice, x: Array, y: Array, image: Array, extent: float) -> Array:
    """Uneven light (a gradient, a vignette, soft shade), a colour cast and sensor noise; uint8."""
    dx, dy = dice.pick(DIRECTIONS)
    u, v = 2.0 * x / extent - 1.0, 2.0 * y / extent - 1.0
    level = 1.0 + dice.uniform(0.0, 0.22) * (u * dx + v * dy)
    level = level - dice.uniform(0.0, 0.14) * (u * u + v * v)
    level = level + dice.uniform(0.02, 0.14) * noise(dice, x, y, 47.0)
    cast = np.asarray([dice.uniform(0.88, 1.12) for _ in range(3)])
    grain = dice.uniform(3.0, 12.0) * (dice.fractions(*image.shape) - dice.fractions(*image.shape))
    lit = np.floor(image * (level[..., None] * cast) + grain + 0.5)
    return np.minimum(np.maximum(lit, 0.0), 255.0).astype(np.uint8)
