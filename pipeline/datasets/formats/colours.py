"""Masks that are painted in the classes' colours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.formats.base import Classes, LabelFormat
from pipeline.datasets.images import read_colours
from pipeline.datasets.section import Section
from pipeline.datasets.statistics import VOID
from pipeline.errors import UserError


@dataclass(frozen=True)
class Colours(LabelFormat):
    """Every pixel has the colour of a class in the manifest, or one of void's."""

    classes: Classes
    void_colours: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "Colours":
        """From the manifest: `void_colours: [[255, 255, 255]]` or nothing."""
        section.keys(("path", "format"), ("void_colours",))
        if "void_colours" not in section:
            return cls(classes)
        void = [section.colour("void_colours", value) for value in section.items("void_colours")]
        for colour in void:
            if colour in classes.palette:
                name = classes.names[classes.palette.index(colour)]
                raise section.wrong("void_colours", f"{list(colour)}: is the colour of {name}")
        return cls(classes, tuple(void))

    def read(self, path: Path) -> np.ndarray:
        """See LabelFormat.read."""
        pixels = _packed(read_colours(path))
        known = _packed(np.array([*self.classes.palette, *self.void_colours]))
        numbers = [*range(len(self.classes.palette)), *(VOID for _ in self.void_colours)]
        order = np.argsort(known)
        places = np.searchsorted(known[order], pixels).clip(max=len(known) - 1)
        wrong = known[order][places] != pixels
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            value = int(pixels[row, column])
            raise UserError(
                f"{path}: colour {[value >> 16, value >> 8 & 255, value & 255]} at x={column}, "
                f"y={row} is no class's; mend the mask, or classes and void_colours in "
                f"{self.classes.manifest}"
            )
        return np.array(numbers, dtype=np.uint8)[order][places]


def _packed(colours: np.ndarray) -> np.ndarray:
    """... x 3 -> one whole number a colour."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue
