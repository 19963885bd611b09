"""Masks whose pixels are numbers: palette, grey or two-valued images of 1, 8 or 16 bits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.formats.base import Classes, LabelFormat, as_classes, class_map
from pipeline.datasets.images import read_numbers
from pipeline.datasets.section import Section
from pipeline.datasets.statistics import VOID

MOST = 0xFFFF


@dataclass(frozen=True)
class Numbers(LabelFormat):
    """The pixel's value is the class number, or is mapped to it."""

    classes: Classes
    #: Value in the mask -> class number; anything else is void. None: they are the same.
    map: dict[int, int] | None = None

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "Numbers":
        """From the manifest: `map: {7: road, 8: sidewalk}` or nothing."""
        section.keys(("path", "format"), ("map",))
        if "map" not in section:
            return cls(classes)
        numbers = class_map(section, "map", classes, int)
        if max(numbers) > MOST:
            raise section.wrong("map", f"{max(numbers)}: a mask's numbers are in 0..{MOST}")
        return cls(classes, numbers)

    def read(self, path: Path) -> np.ndarray:
        """See LabelFormat.read."""
        values = read_numbers(path)
        if self.map is None:
            return as_classes(values, path, self.classes)
        table = np.full(MOST + 1, VOID, dtype=np.uint8)
        table[list(self.map)] = list(self.map.values())
        return table[values.clip(0, MOST)]
