"""PASCAL-Part's annotation of persons, merged to six parts.

MATLAB files in `Annotations_Part`: the struct `anno` has `objects`, each with `class`, `mask` and
`parts`, each with `part_name` and `mask`; later objects lie over earlier ones (the archive's
`mat2map.m`). The six parts are those of Chen et al., Attention to scale, CVPR 2016, on which
DeepLab v2 reports (section 4.3): neck goes with the torso, a hand with the lower arm, a foot
with the lower leg. What is a person but no part is background.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.formats.base import Classes, LabelFormat
from pipeline.datasets.formats.matlab import read_matlab
from pipeline.datasets.section import Section
from pipeline.errors import UserError

#: Class -> the parts of a person that it is made of, by PASCAL-Part's names.
PARTS = {
    "head": "head leye reye lear rear lebrow rebrow nose mouth hair",
    "torso": "torso neck",
    "upper_arms": "luarm ruarm",
    "lower_arms": "llarm rlarm lhand rhand",
    "upper_legs": "luleg ruleg",
    "lower_legs": "llleg rlleg lfoot rfoot",
}


@dataclass(frozen=True)
class PersonPart(LabelFormat):
    """The parts of all persons of an image."""

    #: PASCAL-Part's name of a part -> class number.
    numbers: dict[str, int]

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "PersonPart":
        """From the manifest: the classes must be background and the six parts."""
        section.keys(("path", "format"))
        for name in PARTS:
            if name not in classes.names[1:]:
                raise section.wrong("format", f"person_part: needs a class {name}, after class 0")
        return cls(
            {
                part: classes.names.index(name)
                for name, parts in PARTS.items()
                for part in parts.split()
            }
        )

    def read(self, path: Path) -> np.ndarray:
        """See LabelFormat.read."""
        record = read_matlab(path, "anno")
        try:
            return self._paint(record["objects"].ravel())
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a PASCAL-Part annotation: {error}") from error

    def _paint(self, objects: np.ndarray) -> np.ndarray:
        if not objects.size:
            raise ValueError("it has no objects")
        label = np.zeros(objects[0]["mask"].shape, dtype=np.uint8)
        for one in objects:
            for name, mask in _parts(one) if one["class"].item() == "person" else ():
                if name not in self.numbers:
                    raise ValueError(f"{name} is no part of a person")
                if mask.shape != label.shape:
                    raise ValueError(f"masks of {mask.shape} and {label.shape} pixels")
                label[mask.astype(bool)] = self.numbers[name]
        return label


def _parts(person: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and mask of each part; an object without parts has an empty matrix there."""
    for part in person["parts"].ravel():
        yield str(part["part_name"].item()), part["mask"]
