"""SBD's masks: MATLAB files in `benchmark_RELEASE/dataset/cls`.

The struct `GTcls` has a field `Segmentation` of VOC's class numbers, 0..20, without void
(Hariharan et al., Semantic contours from inverse detectors, ICCV 2011; the archive's README).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets.formats.base import Classes, LabelFormat, as_classes
from pipeline.datasets.formats.matlab import read_matlab
from pipeline.datasets.section import Section
from pipeline.errors import UserError


@dataclass(frozen=True)
class Sbd(LabelFormat):
    """`GTcls.Segmentation`."""

    classes: Classes

    @classmethod
    def parse(cls, section: Section, classes: Classes) -> "Sbd":
        """From the manifest; there is nothing to choose."""
        section.keys(("path", "format"))
        return cls(classes)

    def read(self, path: Path) -> np.ndarray:
        """See LabelFormat.read."""
        record = read_matlab(path, "GTcls")
        try:
            values = np.asarray(record["Segmentation"], dtype=np.int64)
        except (IndexError, ValueError, TypeError) as error:
            raise UserError(f"{path}: GTcls has no Segmentation of numbers") from error
        if values.ndim != 2:
            raise UserError(f"{path}: GTcls.Segmentation must be a matrix, is {values.shape}")
        return as_classes(values, path, self.classes)
