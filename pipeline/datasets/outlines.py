"""Outlines as signed distances: negative inside, positive outside, in units of the grid.

A distance gives both sides of the exercise: its sign is the label, its last half pixel the soft
edge in the image. Only elementwise + - * / and sqrt on float64, which IEEE 754 rounds the same on
every processor; no drawing library, whose pixels change between versions.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Array = np.ndarray
Point = tuple[float, float]

#: Unit vectors at 120 steps round the circle (divisible by 5, 6, 8, 10 and 12). Rounded to 1/4096,
#: so that the last bit of the machine's cosine does not reach a pixel.
DIRECTIONS: tuple[Point, ...] = tuple(
    (
        round(4096 * math.cos(math.tau * k / 120)) / 4096,
        round(4096 * math.sin(math.tau * k / 120)) / 4096,
    )
    for k in range(120)
)


def grid(side: int, extent: float) -> tuple[Array, Array]:
    """The pixels' centres, x of shape (1, side) and y of shape (side, 1), in 0..extent."""
    centres = (np.arange(side, dtype=np.float64) + 0.5) * (extent / side)
    return centres[None, :], centres[:, None]


def turn(x: Array, y: Array, centre: Point, direction: Point) -> tuple[Array, Array]:
    """Coordinates along and across a direction, from a centre."""
    u, v = x - centre[0], y - centre[1]
    return u * direction[0] + v * direction[1], v * direction[0] - u * direction[1]


def disc(x: Array, y: Array, centre: Point, radius: float) -> Array:
    """A filled circle."""
    u, v = x - centre[0], y - centre[1]
    return np.sqrt(u * u + v * v) - radius


def box(x: Array, y: Array, centre: Point, half: Point, direction: Point) -> Array:
    """A filled rectangle with the half sides `half`, turned to a direction."""
    u, v = turn(x, y, centre, direction)
    u, v = np.abs(u) - half[0], np.abs(v) - half[1]
    a, b = np.maximum(u, 0.0), np.maximum(v, 0.0)
    return np.sqrt(a * a + b * b) + np.minimum(np.maximum(u, v), 0.0)


def band(distance: Array, width: float) -> Array:
    """The line of a given width along another shape's outline."""
    return np.abs(distance) - width / 2


def polyline(x: Array, y: Array, points: Sequence[Point], width: float) -> Array:
    """A line of a given width through the points, with round ends."""
    pairs = pairwise(points)
    nearest = _segment_squared(x, y, *next(pairs))
    for start, end in pairs:
        nearest = np.minimum(nearest, _segment_squared(x, y, start, end))
    return np.sqrt(nearest) - width / 2


def polygon(x: Array, y: Array, points: Sequence[Point]) -> Array:
    """A filled simple polygon: the distance to its sides, its sign by the even-odd rule."""
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
        if ay != by:
            inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * ((bx - ax) / (by - ay)))
    distance = polyline(x, y, (*points, points[0]), 0.0)
    return np.where(inside, -distance, distance)


def star(x: Array, y: Array, centre: Point, radii: Point, spikes: int, turned: int) -> Array:
    """A star with its tips at radii[1] and its notches at radii[0]; `turned` in 1/120 of a turn."""
    points = []
    for k in range(2 * spikes):
        dx, dy = DIRECTIONS[(turned + 60 * k // spikes) % 120]
        radius = radii[k % 2]
        points.append((centre[0] + radius * dx, centre[1] + radius * dy))
    return polygon(x, y, points)


def _segment_squared(x: Array, y: Array, start: Point, end: Point) -> Array:
    """The squared distance to a straight line between two points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    u, v = x - start[0], y - start[1]
    along = np.minimum(np.maximum((u * dx + v * dy) / (dx * dx + dy * dy), 0.0), 1.0)
    u, v = u - along * dx, v - along * dy
    return u * u + v * v
