"""The painter behind `shapes`: puts objects on a canvas, image and label together.

Lengths are in units: an image is 128 units wide at every `side`, a pixel at the default side.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.datasets import outlines, textures
from pipeline.datasets.outlines import DIRECTIONS, Array, Point
from pipeline.datasets.textures import Colour, Dice

UNITS = 128.0
VOID = 255

#: Colours by material, two or more of each. Classes that look alike share a material, clutter takes
#: its colour from any of them, and every image moves every colour: none gives a class away.
FIGURES: tuple[Colour, ...] = ((206, 66, 56), (222, 110, 48), (196, 62, 104))
STRIPES: tuple[tuple[Colour, Colour], ...] = (
    ((238, 232, 220), (52, 84, 180)), ((240, 214, 96), (40, 54, 110)),
)  # fmt: skip
CHECKS: tuple[tuple[Colour, Colour], ...] = (
    ((150, 66, 170), (240, 186, 220)), ((110, 56, 150), (246, 222, 120)),
)  # fmt: skip
LINES: tuple[Colour, ...] = ((246, 222, 84), (250, 240, 226))
WIRES: tuple[Colour, ...] = ((60, 214, 220), (132, 232, 120))
SOILS: tuple[Colour, ...] = (
    (128, 150, 84), (164, 152, 106), (150, 128, 104), (112, 132, 108), (176, 168, 148),
)  # fmt: skip
WATERS: tuple[Colour, ...] = ((56, 96, 150), (60, 124, 132), (84, 104, 128), (72, 88, 112))
STONES: tuple[Colour, ...] = ((170, 158, 140), (190, 172, 130), (150, 150, 154), (178, 140, 116))


class Painter:
    """An image and its label while the objects are put on, later ones over earlier ones."""

    def __init__(self, dice: Dice, side: int) -> None:
        self.dice = dice
        self.x, self.y = outlines.grid(side, UNITS)
        self._pixels_per_unit = side / UNITS
        self.label = np.zeros((side, side), dtype=np.uint8)
        #: Distance to the sea; positive everywhere where there is none.
        self.shore: Array = np.full((side, side), UNITS)
        #: The middle of the land inside a ring of sea.
        self.beach: Point | None = None
        self._taken: list[tuple[Point, float]] = []
        soils = dice.shuffled(SOILS)
        water, stone = self._jitter(dice.pick(WATERS)), self._jitter(dice.pick(STONES))
        self.figure = self._jitter(dice.pick(FIGURES))
        self.line, self.wire = self._jitter(dice.pick(LINES)), self._jitter(dice.pick(WIRES))
        stripes = [self._jitter(colour) for colour in dice.pick(STRIPES)]
        checks = [self._jitter(colour) for colour in dice.pick(CHECKS)]
        x, y = self.x, self.y
        first, second = self._jitter(soils[0]), self._jitter(soils[1])
        self.image = textures.meadow(dice, x, y, first, second)
        self.water = textures.waves(dice, x, y, water, _brighter(water, 46))
        self.stone = textures.speckle(dice, x, y, stone, _brighter(stone, -66))
        self.stripes = textures.stripes(dice, x, y, *stripes)
        self.checks = textures.checks(dice, x, y, *checks)
        self.plain = textures.plain(dice, x, y, self.figure)

    def stamp(self, distance: Array, paint: Array | Colour, number: int | None) -> None:
        """Put an object on.

        Args:
            distance: signed distance to its outline in units, (side, side).
            paint: one colour, or one for each pixel, (side, side, 3).
            number: its class; the pixel-wide ring around it becomes void. None: clutter, which
                belongs to what it lies on.
        """
        pixels = distance * self._pixels_per_unit
        cover = np.minimum(np.maximum(0.5 - pixels, 0.0), 1.0)
        self.image = textures.blend(self.image, paint, cover)
        if number is None:
            return
        inside = pixels < 0.0
        self.label[_grown(inside)] = VOID
        self.label[inside] = number

    def place(self, radius: float, keep: float, ground: int = 0) -> Point | None:
        """Find room for an object of a radius; None where 40 tries find no room.

        Args:
            radius: of the object, units.
            keep: the share of the radius that later objects stay away from; below 1 they may
                hide a part of it.
            ground: -1 wholly in the sea, 1 wholly on land, 0 anywhere.
        """
        margin = min(0.4 * radius, 12.0)
        for _ in range(40):
            x = self.dice.uniform(margin, UNITS - margin)
            y = self.dice.uniform(margin, UNITS - margin)
            near = any(
                (x - a) * (x - a) + (y - b) * (y - b) < (0.9 * radius + r) * (0.9 * radius + r)
                for (a, b), r in self._taken
            )
            clear = not ground or ground * self._to_sea((x, y)) > 1.1 * radius + 4.0
            if clear and not near:
                self.take((x, y), keep * radius)
                return x, y
        return None

    def take(self, centre: Point, radius: float) -> None:
        """Keep a round place free of what is put on later."""
        self._taken.append((centre, radius))

    def _to_sea(self, point: Point) -> float:
        """Distance from a point to the sea's edge, negative in the sea, units."""
        column, row = (int(value * self._pixels_per_unit) for value in point)
        return float(self.shore[row, column])

    def ragged(self, distance: Array, roughness: float, cell: float) -> Array:
        """The same outline made irregular, by up to `roughness` units."""
        return distance + roughness * textures.noise(self.dice, self.x, self.y, cell)

    def blob(self, centre: Point, radius: float) -> Array:
        """An irregular round outline."""
        ring = outlines.disc(self.x, self.y, centre, radius)
        return self.ragged(ring, 0.4 * radius, 0.9 * radius + 2.0)

    def crooked(self, length: float, bends: int) -> list[Point]:
        """The corners of a line that starts anywhere and wanders."""
        heading = self.dice.integer(0, 119)
        points = [(self.dice.uniform(0.0, UNITS), self.dice.uniform(0.0, UNITS))]
        for _ in range(bends):
            dx, dy = DIRECTIONS[heading % 120]
            points.append((points[-1][0] + length * dx, points[-1][1] + length * dy))
            heading += self.dice.integer(-22, 22)
        return points

    def clutter(self, pieces: int) -> None:
        """Lines, blobs, puddles and crumbs in the objects' own colours, which are no objects."""
        colours = (self.figure, self.line, self.wire, _one_of(self.stripes), _one_of(self.checks))
        for _ in range(pieces):
            kind, colour = self.dice.integer(0, 9), self.dice.pick(colours)
            if kind <= 2:
                width = self.dice.uniform(1.4, 3.2)
                points = self.crooked(self.dice.uniform(15.0, 60.0), 1)
                self.stamp(outlines.polyline(self.x, self.y, points, width), colour, None)
            elif kind <= 5:
                self._smear(colour)
            elif kind == 6:
                self.stamp(
                    self.blob(self._anywhere(), self.dice.uniform(4.0, 9.0)), self.water, None
                )
            else:
                centre, radius = self._anywhere(), self.dice.uniform(0.5, 0.8)
                self.stamp(outlines.disc(self.x, self.y, centre, radius), colour, None)

    def _smear(self, colour: Colour) -> None:
        """A soft-edged stain."""
        distance = self.blob(self._anywhere(), self.dice.uniform(5.0, 15.0))
        cover = textures.step(-distance, self.dice.uniform(0.12, 0.3))
        self.image = textures.blend(self.image, colour, self.dice.uniform(0.3, 0.7) * cover)

    def _anywhere(self) -> Point:
        return self.dice.uniform(0.0, UNITS), self.dice.uniform(0.0, UNITS)

    def _jitter(self, colour: Sequence[float]) -> Colour:
        r, g, b = (value + self.dice.uniform(-22.0, 22.0) for value in colour)
        return r, g, b


def _grown(inside: Array) -> Array:
    """A mask and the pixels that touch it by a side."""
    grown = inside.copy()
    grown[1:] |= inside[:-1]
    grown[:-1] |= inside[1:]
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    return grown


def _brighter(colour: Colour, by: float) -> Colour:
    r, g, b = (value + by for value in colour)
    return r, g, b


def _one_of(paint: Array) -> Colour:
    """One colour of a texture."""
    r, g, b = (float(value) for value in paint[0, 0])
    return r, g, b
